"""The parts of the page, each from a run to tables, texts and figures."""

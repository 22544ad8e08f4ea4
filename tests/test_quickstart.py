"""docs/quickstart.ipynb: its cells run in their order, and it holds text alone."""

import json
from pathlib import Path

import numpy as np

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def cells(kind):
    return [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == kind]


def test_the_cells_run_in_their_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(cells("code"), 1):
        # Less data and fewer epochs than a reader takes, and two seeds.
        source = (("".join(cell["source"])).replace("rng.integers(0, 4, 800)",
                                                    "rng.integers(0, 4, 200)")
                  .replace("seeds=3, epochs=6", "seeds=2, epochs=2"))
        exec(compile(source, f"cell {number}", "exec"), names)
    run = names["run"]
    assert names["images"].shape == (200, 16, 16, 3) and run.config["seeds"] == [0, 1]
    assert run.report.is_file() and set(run.verdicts.method) == {"ft", "ssd"}
    assert np.isfinite(names["kernel"]).all() and names["kernel"].shape == (2, 3, 3, 3, 16)
    assert "accuracy_forget" in capsys.readouterr().out


def test_the_stored_outputs_are_text_of_a_whole_run():
    code = cells("code")
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    outputs = [o for c in code for o in c["outputs"]]
    assert {o["output_type"] for o in outputs} == {"stream"}
    text = "".join(line for o in outputs for line in o["text"])
    assert "runs/quickstart/report.html" in text and "ssd, 0 epochs" in text

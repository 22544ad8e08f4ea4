"""The report's document, and what turns it into HTML, Markdown and LaTeX."""

"""The receipt of a deletion request: what was asked, what was done, what is left.

A run whose forget set is a file of ids (`ids:FILE`) has requests.csv. From it, the predictions, the
verdict and the store, the report makes the folder `receipt/`:

    receipt.html, receipt.md   one page for a reader who has the page alone
    receipt.csv                a row per id (samples.py)
    remains.csv                a row per place where the images have left something (remains.py)
"""

from unlearn_jax.report.output import Output
from unlearn_jax.report.receipt import html, page, remains, samples
from unlearn_jax.report.receipt.requests import read_requests
from unlearn_jax.report.render import markdown
from unlearn_jax.report.tables.inputs import Run


def write_receipt(run: Run, output: Output) -> bool:
    """Writes `receipt/`; returns whether the run has a deletion request.

    Raises:
      ReportError: requests.csv or a file of predictions is malformed.
    """
    asked = read_requests(run)
    if asked is None:
        return False
    left = remains.find(run, asked)
    document = page.build(run, asked, left)
    output.write("receipt/receipt.csv", samples.table(run, asked))
    output.write("receipt/remains.csv", remains.table(left))
    output.write("receipt/receipt.md", markdown.render(document))
    output.write("receipt/receipt.html", html.render(document))
    return True

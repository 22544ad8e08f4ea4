"""The alphas that Forgetting was measured with, and the ceiling that bounds it."""

from unlearn_jax.errors import ReportError
from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.report.tables.stats import Estimate, estimate_metric


def alphas_of(run: Run, forget_set: str) -> list[str]:
    """The alphas of results.csv for a forget set, ascending, as they are written there."""
    rows = run.results[run.results.forget_set == forget_set]
    found = {n.removeprefix("forgetting@") for n in rows.metric if n.startswith("forgetting@")}
    try:
        return sorted(found, key=float)
    except ValueError:
        raise ReportError("results.csv: the column 'metric' holds forgetting@ALPHA with an ALPHA "
                          f"that is no number; found: {', '.join(sorted(found))}") from None


def ceiling(run: Run, forget_set: str, alpha: str) -> Estimate | None:
    """The retrain ceiling; None with one seed."""
    values = run.values(run.only(forget_set, "retrain"), forget_set, f"ceiling@{alpha}")
    return estimate_metric(f"ceiling@{alpha}", values) if len(values) else None

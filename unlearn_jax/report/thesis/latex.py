"""The study's tables as LaTeX, to be read by \\input; they need the package booktabs."""

from unlearn_jax.report.render.latex import escape, frame, needs, number, row
from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.report.tables.names import describe
from unlearn_jax.report.thesis.tables import Entry, StudyTable, column_title, metric_text


def render(run: Run, table: StudyTable) -> str:
    """One table: of each value the mean ± half of its interval, and below it the printed one."""
    stub = len(table.stub)
    head = [escape(t) for t in table.stub] + [escape(column_title(m)) for m in table.models]
    lines = []
    for place, (names, entries) in enumerate(table.rows):
        if place and stub > 1 and names[0] != table.rows[place - 1][0][0]:
            lines.append(r"\midrule")
        cells = [_value(run, entries.get(m)) for m in table.models]
        lines.append(row([*(escape(n) for n in names), *cells]))
        printed = [_printed(run, entries.get(m)) for m in table.models]
        if any(printed):
            lines.append(row([*([""] * stub), *printed]))
    return needs("booktabs") + "\n" + frame(_caption(run, table), "l" * stub + "r" * len(
        table.models), head, lines)


def _caption(run: Run, table: StudyTable) -> str:
    return escape(f"{table.title}: mean ± half the 95 % interval over {len(run.seeds)} seeds; in "
                  f"brackets what the reference study printed (its table {table.number}).")


def _value(run: Run, e: Entry | None) -> str:
    if e is None or not e.here.n:
        return "--"
    metric = describe(run, e.metric)
    text = metric.text(e.here.mean)
    if e.here.has_interval:
        text += rf" \pm {metric.text(e.here.half)}"
    return number(text)


def _printed(run: Run, e: Entry | None) -> str:
    if e is None or e.printed is None:
        return ""
    return f"({metric_text(describe(run, e.metric), e.printed)})"

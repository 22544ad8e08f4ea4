"""Progress bars: one step for each item, and none where none is wanted."""

import numpy as np
from fake_workdir import figures_of, write_workdir

from unlearn_jax.report import write_report
from unlearn_jax.report.output import Output
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.system import bars


class Noted:
    """A bar that notes what it is told."""

    def __init__(self):
        self.made, self.steps = [], 0

    def __call__(self, **options):
        self.made.append(options)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def update(self, count):
        self.steps += count


def test_work_is_counted_after_it_is_done():
    bar, seen = Noted(), []
    for item in bars.tracked(bar, iter("abc"), "audits, x", "models"):
        seen.append((item, bar.steps))
    assert seen == [("a", 0), ("b", 1), ("c", 2)] and bar.steps == 3
    assert bar.made == [{"desc": "audits, x", "total": 3, "unit": " models",
                         "delay": bars.PATIENCE}]
    assert list(bars.tracked(None, "ab", "", "")) == ["a", "b"]


def test_short_work_shows_no_bar_and_long_work_the_time_left(capsys, monkeypatch):
    clock = iter(np.arange(0, 1000, 1.5))
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    monkeypatch.setattr("tqdm.std.time", lambda: float(next(clock)))
    make = bars.work_bar()
    make.keywords["mininterval"] = 0
    list(bars.tracked(make, range(1), "quick", "models"))
    assert "quick" not in capsys.readouterr().err.replace("\r", "").strip()
    list(bars.tracked(make, range(9), "slow", "models"))
    said = capsys.readouterr().err
    assert "slow:" in said and "/9" in said and "<" in said  # [elapsed<left, rate]


def test_the_report_counts_its_pictures_before_it_draws_them(tmp_path, undrawn_figures):
    path = write_workdir(tmp_path, samples=12)
    bar = Noted()
    run = write_report(path, bar)
    (made,) = bar.made
    assert made["desc"] == "report" and made["total"] == bar.steps
    drawn = list(path.glob("figures/*.png"))
    assert 0 < len(drawn) <= bar.steps
    assert (path / "report.md").read_text().count("![") == len(drawn)
    named = []
    assert figures_of(build(read_run(path), Output(drawn=named.append))) == []
    assert {p.stem for p in drawn} <= set(named) and run.workdir == path

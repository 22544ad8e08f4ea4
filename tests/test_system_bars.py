"""Progress bars: one step for each item, and none where none is wanted."""

import numpy as np
from fake_workdir import figures_of, write_workdir

from unlearn_jax.report import write_report
from unlearn_jax.report.output import Output
from unlearn_jax.report.sections import forget_set
from unlearn_jax.report.sections.forget_set import section
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


def test_the_report_counts_its_sections_and_makes_each_once(tmp_path,
                                                            monkeypatch):
    path = write_workdir(tmp_path, samples=12)
    made = []
    monkeypatch.setattr(forget_set, "section", lambda run, name, output: (
        made.append(name), section(run, name, output))[1])
    bar = Noted()
    run = write_report(path, bar)
    (options,) = bar.made
    assert options["desc"] == "report" and options["total"] == bar.steps > len(run.forget_sets)
    assert made == list(run.forget_sets) and run.workdir == path
    drawn = list(path.glob("figures/*.png"))
    assert 0 < len(drawn) == (path / "report.md").read_text().count("![")
    assert figures_of(build(read_run(path), Output())) == []

"""The report: numbers by hand, two renderings of one document, pictures, and bad inputs."""

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import undrawn
from browser import unpacked
from fake_workdir import (
    change_json,
    change_results,
    text_report,
    write_csv,
    write_json,
    write_workdir,
)

from unlearn_jax.report import ReportError, write_report
from unlearn_jax.report.__main__ import main
from unlearn_jax.report.figures import style
from unlearn_jax.report.render import html, markdown, picture
from unlearn_jax.report.render.document import Cell, Table
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.predictions import parse_prediction_name
from unlearn_jax.report.tables.stats import estimate, summarise

T2 = 4.302652729911275  # Student's t, 97.5 %, two degrees of freedom (any printed table)
ATTACK = "<script>alert('x')</script> | `a` *b* [c](d) \"&amp;"
VOID = {"meta", "img"}


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    path = write_workdir(tmp_path_factory.mktemp("regression") / "run",
                         sets=("20-28", "random-0.02"), budgets=(2, 4))
    change_results(path, {("original", "mae_test"): (4, 5, 9, 4, 5, 9),
                          ("ft", "mae_validation"): (1, "nan", 4) * 4})
    write_report(path)
    return path


@pytest.fixture(scope="module")
def classification(tmp_path_factory):
    path = write_workdir(tmp_path_factory.mktemp("classification") / "run",
                         task="classification", sets=("class-3",))
    change_json(path / "run.json", lambda run: run.update(config_name=ATTACK, warnings=[ATTACK],
                                                          command=ATTACK))
    change_json(path / "data.json", lambda data: data["dropped_reasons"].update({ATTACK: 3}))
    draw(path)
    return path


def draw(path):
    """Writes the report with coarse pictures."""
    with undrawn.drawn_again(), mock.patch.object(picture, "DPI", 30):
        write_report(path)


def test_estimate_by_hand():
    # mean 6, squares 4 + 1 + 9 = 14, variance 7
    e = estimate([4, 5, 9])
    half = T2 * np.sqrt(7) / np.sqrt(3)
    assert (e.mean, e.n) == (6, 3)
    np.testing.assert_allclose([e.std, e.low, e.high], [np.sqrt(7), 6 - half, 6 + half], rtol=1e-9)
    one = estimate([np.nan, 3.0])
    assert (one.mean, one.n) == (3, 1) and np.isnan([one.std, one.low, one.high]).all()
    assert estimate([]).n == 0 and np.isnan(estimate([np.nan]).mean)


def test_summary_file(regression):
    with (regression / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["method", "forget_set", "epochs", "metric", "mean", "std",
                             "ci95_low", "ci95_high", "n"]
    found = {(r["method"], r["forget_set"], r["epochs"], r["metric"]): r for r in rows}
    assert len(found) == len(rows)
    row = found["original", "random-0.02", "0", "mae_test"]
    half = T2 * np.sqrt(7 / 3)
    np.testing.assert_allclose([float(row[c]) for c in ("mean", "std", "ci95_low", "ci95_high")],
                               [6, np.sqrt(7), 6 - half, 6 + half], rtol=1e-8)
    # a failed member does not count: (1 + 4) / 2, and t = 12.706 for one degree of freedom
    row = found["ft", "20-28", "4", "mae_validation"]
    assert (row["mean"], row["n"]) == ("2.5", "2")
    assert float(row["ci95_high"]) == pytest.approx(2.5 + 12.7062047 * 1.5, rel=1e-7)
    row = found["ft", "20-28", "4", "averaged:mae_test"]
    assert (row["std"], row["ci95_low"], row["ci95_high"], row["n"]) == ("", "", "", "1")


def test_summarise_keeps_budgets_and_sets_apart():
    rows = [("ft", "a", 2, 0, "m", 1.0), ("ft", "b", 2, 0, "m", 2.0), ("ft", "a", 4, 0, "m", 3.0)]
    table = pd.DataFrame(rows, columns=["method", "forget_set", "epochs", "seed", "metric",
                                        "value"])
    assert summarise(table)["mean"].tolist() == [1.0, 2.0, 3.0]


def test_headline_numbers(regression):
    half = T2 * np.sqrt(7 / 3)  # 6.57
    assert f"{half:.2f}" == "6.57"
    text = (regression / "report.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| original M_O")]
    assert rows and "| 6.00 ± 6.57 (3) |" in rows[0]
    page = (regression / "report.html").read_text()
    assert '>6.00</a> <span class="note">± 6.57 (3)</span>' in page
    assert 'data-sort="6.0"' in page
    summary = pd.read_csv(regression / "summary.csv")
    at = summary[(summary.method == "ft") & (summary.forget_set == "20-28")
                 & (summary.epochs == 4) & (summary.metric == "forgetting@15")].iloc[0]
    half = (at.ci95_high - at.ci95_low) / 2
    assert f"{at['mean']:.3f} ± {half:.3f} (3)" in text
    baseline = next(line for line in text.splitlines() if line.startswith("| median"))
    assert "±" not in baseline  # it knows no seed


def test_both_renderings_have_the_same_structure(regression, classification):
    for path in (regression, classification):
        text = (path / "report.md").read_text()
        page = unpacked((path / "report.html").read_text())
        titles = re.findall(r"^#{2,3} (.+)$", re.sub(r"(?s)```.*?```", "", text), re.M)
        in_html = [re.sub("<.*?>", "", t) for t in re.findall(r"<h[23]>(.*?)</h", page)]
        assert len(titles) == len(in_html) > 10
        assert [re.sub(r"\W", "", t) for t in titles] == [re.sub(r"\W", "", t) for t in in_html]
        assert text.count("\n\n| ") == len(re.findall(
            'tabindex="0" role="region" aria-label="[^"]+"><table>', page)) > 5
        assert text.count("\n- **") == page.count("<dd") > 20  # the glossary
        assert text.count("![") == page.count("<svg role") == len(list(path.glob("figures/*.png")))


class Balance(HTMLParser):
    """Fails on tags that do not close in order; notes what would be loaded, and ids."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.loads += [v for k, v in attrs.items() if k in ("src", "href", "srcset", "action")]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_well_formed_and_self_contained(regression, classification):
    for path in (regression, classification):
        page = unpacked((path / "report.html").read_text())
        parser = Balance()
        parser.feed(page)
        parser.close()
        assert parser.open == []
        assert len(set(parser.ids)) == len(parser.ids) > 5
        for load in parser.loads:
            assert load.startswith("data:image/png;base64,") or load[1:] in parser.ids
        assert not re.search(r"https?:|@import|url\((?!#)", page)
        assert "prefers-color-scheme: dark" in page and "width=device-width" in page


def test_what_files_hold_is_escaped(classification):
    page = (classification / "report.html").read_text()
    assert page.count("<script>") == 1 and "alert('x')" not in page
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;") >= 4
    text = (classification / "report.md").read_text()
    row = next(line for line in text.splitlines() if "script" in line and line.startswith("|"))
    assert row == ("| \\<script\\>alert('x')\\</script\\> \\| \\`a\\` \\*b\\* \\[c\\](d) "
                   "\"\\&amp; | 3 |")


def test_markdown_escapes_block_markers_and_fences():
    assert markdown.escape("- a\n# b") == "\\- a \\# b"
    assert markdown.escape("1. a_b _c_ M_R 20-28") == "1\\. a_b \\_c\\_ M_R 20-28"
    assert markdown.escape("-1.5") == "-1.5"


def test_the_same_files_give_the_same_report(classification):
    written = sorted([*classification.glob("report.*"), *classification.glob("figures/*.png"),
                      classification / "summary.csv"])
    before = [p.read_bytes() for p in written]
    assert min(map(len, before)) > 500  # of one pixel they are equal in any case
    draw(classification)
    assert [p.read_bytes() for p in written] == before


def test_a_class_is_known_by_its_name_first(tmp_path):
    # the classes are called "1" to "5", so that "3" is the third of them
    path = write_workdir(tmp_path, task="classification", sets=("class-3",), samples=12)
    assert read_run(path).forget_range("class-3") == (2, 2)
    path = write_workdir(tmp_path / "ages", samples=12)
    assert read_run(path).forget_range("20-28") == (20, 28)


def test_one_seed_has_no_interval_and_no_history_no_curves(tmp_path):
    path = write_workdir(tmp_path, seeds=(4,), history=False, samples=20)
    write_report(path)
    text = (path / "report.md").read_text()
    assert "(n=1, no interval)" in text and "±" not in re.sub("mean ± half", "", text)
    assert "with one seed there are no intervals" in text
    assert "One seed gives no interval, so nothing is established" in text
    assert "the ceiling is unknown" in text
    assert "No training curves" in text
    assert not (path / "figures" / "training-20-28.png").exists()


@pytest.mark.filterwarnings("error")
def test_failed_members_are_named_and_left_out(tmp_path):
    path = write_workdir(tmp_path, samples=20, failed=[("ft", 1), ("rnd", 0), ("rnd", 1),
                                                       ("rnd", 2)], methods=("ft", "rnd"))
    change_results(path, {("rnd", "averaged:mae_test"): ("nan",)})
    write_report(path)
    text = (path / "report.md").read_text()
    assert "4 members failed" in text
    assert re.search(r"\| fine-tuned M_FT \| 20-28 \| 2 \| 1 \| mae_test, mae_forget", text)
    assert "averaged prediction" in text
    row = next(line for line in text.splitlines() if line.startswith("| random labels"))
    assert "nan (n=0)" in row
    row = next(line for line in text.splitlines() if line.startswith("| fine-tuned"))
    assert "(2)" in row


@pytest.mark.filterwarnings("error")
def test_every_model_may_fail(tmp_path):
    failed = [(m, s) for m in ("original", "retrain", "ft") for s in (0, 1)]
    path = write_workdir(tmp_path, samples=12, seeds=(0, 1), failed=failed)
    write_report(path)
    assert "nothing to compare" in (path / "report.md").read_text()


def test_many_forget_sets_say_which_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "MOST_SETS", 1)
    path = write_workdir(tmp_path, samples=12, sets=("20-28", "28-36"))
    write_report(path)
    assert not list(path.glob("figures/*28-36*"))
    text = (path / "report.md").read_text()
    assert "figures are drawn for the first 1 forget sets (20-28)" in text
    assert "Forget set 28-36: mean ±" in text


def _edit(file, change):
    return lambda path: change_json(path / file, change)


def _csv(file, pattern, new):
    return lambda path: (path / file).write_text(
        re.sub(pattern, new, (path / file).read_text(), count=1))


@pytest.mark.parametrize("spoil, message", [
    (lambda p: (p / "results.csv").unlink(), "results.csv is missing"),
    (lambda p: (p / "data.json").write_text("{"), "data.json is not JSON"),
    (_csv("results.csv", "value", "score"), "results.csv: the column 'value' is missing"),
    (_csv("results.csv", r"mae_test,[^,]*", "mae_test,high"), "line 2: the column 'value' holds"),
    (_csv("results.csv", r"mae_test,[^,]*", "mae_test,"), "line 2: the column 'value' holds ''"),
    (_csv("results.csv", "original,20-28,0", "original,20-28,0.5"), "the column 'epochs' holds"),
    (_csv("results.csv", "original,20-28", "original,20-29"), "'forget_set' holds '20-29'; allow"),
    (_csv("results.csv", "original,20-28", "ori/ginal,20-28"), "the column 'method' holds"),
    (_csv("results.csv", "0,1,mae_test", "0,0,mae_test"), "results.csv, line 3: a second row for"),
    (lambda p: change_results(p, {("ft", "mae_forget"): None}), "method='ft', forget_set='20-28', "
     "epochs=2, metric='mae_forget'"),
    (_csv("history.csv", "validation_loss", "loss"), "the column 'validation_loss' is missing"),
    (_csv("history.csv", "(True|False)", "maybe"), "the column 'best' holds 'maybe'; allowed"),
    (_edit("data.json", lambda d: d["counts"].pop("test")), "data.json: the field 'counts.test'"),
    (_edit("data.json", lambda d: d.update(task="ranking")), "allowed: regression, class"),
    (_edit("data.json", lambda d: d["forget_sets"].update({"../x": {}})), "is no file name"),
    (_edit("data.json", lambda d: d["histograms"]["all"].update(old=3)), "has the label 'old'"),
    (_edit("run.json", lambda r: r["config"].pop("eval")), "run.json: the field 'config.eval.alp"),
    (_edit("run.json", lambda r: r.update(device=3)), "'device' is 3; it must be str"),
    (_edit("run.json", lambda r: r["stages"][1].pop("key")), "stages[1]: the field 'key'"),
])
def test_bad_tables_are_refused(tmp_path, spoil, message):
    path = write_workdir(tmp_path, samples=5)
    spoil(path)
    with pytest.raises(ReportError, match=re.escape(message)):
        text_report(path)


def test_what_does_not_fit_together_is_said(tmp_path):
    path = write_workdir(tmp_path, samples=5)
    file = path / "predictions" / "ft.20-28.2.test.npz"
    (path / "predictions" / "ft.20-28.99.test.npz").write_bytes(file.read_bytes())
    (path / "predictions" / "old.npz").write_bytes(b"")
    change_json(path / "run.json", lambda run: run.update(data_fingerprint="beef"))
    text = text_report(path)
    assert "There are 3 warnings" in text
    assert "predictions/ft.20-28.99.test.npz belongs to no model of results.csv" in text
    assert "predictions/old.npz is not named" in text and "run.json of data beef" in text


def test_prediction_names():
    assert parse_prediction_name("rnd.random-0.02.16.test.npz") == ("rnd", "random-0.02", 16,
                                                                    "test")
    assert parse_prediction_name("ft.ids-a.3.b.2.forget.npz") == ("ft", "ids-a.3.b", 2, "forget")
    for bad in ("ft.20-28.test.npz", "ft.20-28.x.test.npz", "ft.20-28.2.train.npz",
                "ft.20-28.2.test.csv"):
        with pytest.raises(ReportError, match="METHOD.FORGETSET.BUDGET.SPLIT.npz"):
            parse_prediction_name(bad)


def test_a_column_without_a_definition_is_refused():
    with pytest.raises(ValueError, match="no definition"):
        Table("caption", (("a", ""),), ())
    with pytest.raises(ValueError, match="2 cells in a table of 1"):
        Table("caption", (("a", "what"),), ((Cell("1"), Cell("2")),))


def test_no_jax_and_command_line(tmp_path):
    # `write_report` imports what it needs when it is called
    code = ("import sys, unlearn_jax.report.__main__, unlearn_jax.report.receipt, "
            "unlearn_jax.report.sections.page; "
            "from unlearn_jax.report.render import html, latex, markdown; "
            "print(sorted(m for m in sys.modules if m.split('.')[0] in ('jax', 'jaxlib', 'flax')))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    from unlearn_jax.report.__main__ import main

    assert main([str(tmp_path / "none")]) == 1
    path = write_workdir(tmp_path / "run", samples=5)
    assert main([str(path)]) == 0 and (path / "report.html").exists()


def test_a_bad_history_is_not_drawn_twice(tmp_path):
    path = write_workdir(tmp_path, samples=5)
    with (path / "history.csv").open() as file:
        header, *rows = csv.reader(file)
    write_csv(path / "history.csv", header, [*rows, rows[0]])
    with pytest.raises(ReportError, match="history.csv, line .*: a second row for stage=original"):
        read_run(path)


def test_stages_data_and_command(regression):
    text = (regression / "report.md").read_text()
    assert ("| original | – | 12 | 0123456789abcdef | computed | seeds, data, train | 20.0 | 3 | "
            "36,000 | 1,800 |") in text
    assert "| predictions | – | – | fedcba9876543210 | reused | eval | 0.1 | – | – | – |" in text
    assert "| random-0.02 | random-0.02 | 1,501 | 500 | 50.1 |" in text  # 2001 of 2994 + 998
    assert "| age missing in the name | 3 |" in text
    assert "| compilation of train (s) | 28.2 |" in text and "| version of jax | 0.10.2 |" in text
    assert "```text\npython -m unlearn_jax.main --config=configs/ft.py\n```" in text
    assert "\nseeds = [0, 1, 2]\n" in text and "\ndata.source = \"synthetic\"\n" in text


def test_audits_stand_in_tables_of_their_own(tmp_path):
    workdir = write_workdir(tmp_path)
    with (workdir / "results.csv").open("a", newline="") as file:
        for seed in (0, 1, 2):
            file.write(f"ft,20-28,2,{seed},mia_auc,0.6{seed},k\n")
            file.write(f"retrain,20-28,12,{seed},mia_auc,0.5{seed},k\n")
            file.write(f"retrain,20-28,12,{seed},w1_forget,0.5{seed},k\n")
        file.write("ft,20-28,2,-1,population:lira_accuracy,0.875,k\n")
    write_report(workdir)
    text = (workdir / "report.md").read_text()
    members = text.index("Audits, forget set 20-28")
    whole = text.index("Audits over all seeds together, forget set 20-28")
    assert "MIA AUC" in text[members:whole] and "0.610" in text[members:whole]
    assert "memory of D_f, except for W1 on D_f" in text[members:whole].replace("\\_", "_")
    assert "U-LiRA (%)" in text[whole:] and "87.5" in text[whole:]
    assert "mia_auc" not in text, "the headers and definitions explain it"


def test_a_loss_that_does_not_come_down_is_no_failure_and_has_no_mean(tmp_path):
    workdir = write_workdir(tmp_path)
    run = json.loads((workdir / "run.json").read_text())
    run["config"]["eval"]["relearn_epochs"] = 8
    write_json(workdir / "run.json", run)
    with (workdir / "results.csv").open("a", newline="") as file:
        for seed, epochs in ((0, 4), (1, "inf"), (2, "inf")):
            file.write(f"retrain,20-28,12,{seed},relearn_epochs,{epochs},k\n")
            file.write(f"retrain,20-28,12,{seed},relearn_censored,{int(epochs == 'inf')},k\n")
            file.write(f"ft,20-28,2,{seed},relearn_epochs,{seed + 1},k\n")
            file.write(f"ft,20-28,2,{seed},ain_high,{'inf' if seed else 0.5},k\n")
    text = text_report(workdir)
    assert "> 8 in 2 of 3" in text and "∞ in 2 of 3" in text
    assert "4.0 (n=1" not in text and "67 ±" in text
    assert "No member failed" in text and "failed in training" not in text
    summary = summarise(read_run(workdir).results).set_index("metric")
    assert summary.loc["relearn_epochs"].query("method == 'retrain'")["mean"].tolist() == [np.inf]
    page = html.render(build(read_run(workdir)), workdir)
    assert 'data-sort="Infinity"' in page and 'data-sort="inf"' not in page


def test_flops_that_nobody_counted_are_no_failure(tmp_path):
    path = write_workdir(tmp_path / "run")
    rows = pd.read_csv(path / "results.csv", dtype=str, keep_default_na=False)
    rows.loc[rows.metric.str.startswith("flops"), "value"] = "nan"
    assert (rows.value == "nan").any()
    rows.to_csv(path / "results.csv", index=False)
    write_report(path)
    assert "failed in training" not in (path / "report.md").read_text()


def test_the_report_of_an_unfinished_run_says_so(tmp_path, capsys):
    workdir = write_workdir(tmp_path / "w")
    assert main([str(workdir)]) == 0 and "not finished" not in capsys.readouterr().err
    change_json(workdir / "run.json", lambda run: run.update(finished=False))
    assert main([str(workdir)]) == 0
    assert "has not finished" in capsys.readouterr().err
    assert "has not finished: these results" in (workdir / "report.md").read_text()

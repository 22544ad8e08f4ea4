"""A run of the reference study on tiny data, as a user starts it: names, sharing, the plan."""

import json

import pytest
from test_stages import TINY, run_as_typed, statuses, table, values

FLAGS = [*TINY, "--config.data.size=300", "--config.forget.sets=('20-28','36-44')",
         "--config.unlearn.epochs=(1,2)", "--config.thesis.elsewhere.ft=(1,)",
         *(f"--config.thesis.elsewhere.{arm}=(2,)" for arm in ("rnd", "rnd_offset", "rnd_units"))]
ARMS = ("ft", "rnd", "rnd_offset", "rnd_units")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: (work directory, store, its process)."""
    base = tmp_path_factory.mktemp("thesis")
    done = run_as_typed("thesis.py:demo", base / "w", base / "store", *FLAGS, figures="made")
    assert done.returncode == 0, done.stderr[-3000:]
    return base / "w", base / "store", done


@pytest.mark.slow
def test_every_arm_has_its_budgets_on_its_sets(finished):
    workdir, _, _ = finished
    expected = {("original", "", 0), ("retrain", "20-28", 3), ("retrain", "36-44", 3)}
    for arm in ARMS:
        expected |= {(arm, "20-28", 1), (arm, "20-28", 2), (arm, "36-44", 1 if arm == "ft" else 2)}
    assert set(statuses(workdir)) == expected
    for method, name, epochs in expected - {("original", "", 0)}:
        for split in ("test", "forget", "retain"):
            assert (workdir / "predictions" / f"{method}.{name}.{epochs}.{split}.npz").exists()
    found = {r["method"] for r in table(workdir / "results.csv")}
    assert found == {"median", "original", "retrain", *ARMS}
    assert {r["stage"] for r in table(workdir / "history.csv")} == {"original", "retrain", *ARMS}


@pytest.mark.slow
def test_the_arms_of_one_method_differ(finished):
    found = values(finished[0])
    mae = {arm: found[arm, "20-28", "2", "0", "mae_forget"] for arm in ARMS}
    assert len(set(mae.values())) == 4


@pytest.mark.slow
def test_the_plan_is_printed_first_and_comes_true(finished):
    workdir, _, done = finished
    record = json.loads((workdir / "run.json").read_text())
    assert done.stdout.startswith("Plan\n") and "images/s, measured now in" in done.stdout
    walked = {}
    for stage in record["stages"]:
        if stage["stage"] not in ("data", "predictions"):
            walked.setdefault((stage["stage"], stage["forget_set"]), []).append(stage["images"])
    # The budgets of an arm are snapshots of one run, so that the longest holds the others.
    assert sum(j["images"] for j in record["plan"]["jobs"]) == sum(map(max, walked.values()))
    assert [j["models"] for j in record["plan"]["jobs"]] == [6, *[2, 2] * 4]
    predicted = sum(s["images"] for s in record["stages"] if s["stage"] == "predictions")
    assert record["plan"]["predicted"] == predicted
    flops = {(r["method"], r["forget_set"], r["seed"]): float(r["value"])
             for r in sorted(table(workdir / "results.csv"), key=lambda r: int(r["epochs"]))
             if r["metric"] == "flops"}  # of an arm the longest; M_O counts once
    whole = sum(v for (m, s, _), v in flops.items() if (m, s) != ("original", "36-44"))
    # planned from the step of plain training, whose loss costs a little less than random labels
    assert record["plan"]["flops"] == pytest.approx(whole, rel=1e-2)


@pytest.mark.slow
def test_again_it_computes_nothing_and_says_so(finished, tmp_path):
    workdir, store, _ = finished
    before = (workdir / "results.csv").read_text()
    done = run_as_typed("thesis.py:demo", workdir, store, *FLAGS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(statuses(workdir).values()) == {"reused"}
    assert "Every model is in the store: nothing to train." in done.stdout
    assert (workdir / "results.csv").read_text() == before


@pytest.mark.slow
def test_an_arm_is_the_run_of_its_method_alone(finished, tmp_path):
    workdir, store, _ = finished
    done = run_as_typed("rnd.py", tmp_path / "w", store, *TINY, "--config.data.size=300",
                        "--config.data.image_size=8", "--config.forget.sets=('20-28',)",
                        "--config.unlearn.epochs=(1,2)", "--config.unlearn.schedule=constant",
                        "--config.unlearn.learning_rate=5e-4")
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(statuses(tmp_path / "w").values()) == {"reused"}
    mine, theirs = values(tmp_path / "w"), values(workdir)
    for epochs in "12":
        for seed in "01":
            for metric in ("mae_forget", "F@15"):
                assert mine["rnd", "20-28", epochs, seed, metric] == theirs[
                    "rnd_offset", "20-28", epochs, seed, metric]


@pytest.mark.slow
def test_the_tables_are_written(finished):
    workdir, _, _ = finished
    for number in range(3, 9):
        assert table(workdir / "tables" / f"table{number}.csv")
        assert r"\begin{tabular}" in (workdir / "tables" / f"table{number}.tex").read_text()
    assert "## The reference study" in (workdir / "report.md").read_text()

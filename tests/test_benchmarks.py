import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    audit,
    formulations,
    measure,
    metrics,
    population,
    roofline,
    sisa,
    startup,
    sweep,
)
from unlearn_jax import native
from unlearn_jax.metrics import errors
from unlearn_jax.networks import conv

TINY = ["--network", "resnet4", "--width", "2", "--image-size", "8", "--batch", "4", "--steps", "2",
        "--n", "2"]


@pytest.mark.parametrize("benchmark, flags, names, figure", [
    (population, ["--members", "2"],
     {"ours", "ours-streamed", "ours-together", "vmap", "loop"}, "images_per_s"),
    (audit, ["--members", "3"], {"ours"}, "models_per_hour"),
])
def test_figures_are_written_with_their_context(monkeypatch, capsys, tmp_path, benchmark, flags,
                                                names, figure):
    path = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["benchmark", *TINY, *flags, "--json", str(path)])
    benchmark.main()
    content = json.loads(path.read_text())
    assert {"device", "versions", "n", "rows", "settings"} <= content.keys() and content["n"] == 2
    assert {row["impl"] for row in content["rows"]} == names
    for row in content["rows"]:
        assert row["members"] == int(flags[1])
        assert 0 < row[figure]["min"] <= row[figure]["median"] <= row[figure]["max"]
    assert "| impl | members |" in capsys.readouterr().out


def run(monkeypatch, tmp_path, benchmark, *flags):
    """What a benchmark writes with `--json`."""
    path = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["benchmark", *TINY, *flags, "--json", str(path)])
    benchmark.main()
    return json.loads(path.read_text())


def test_roofline_splits_a_step_into_phases(monkeypatch, tmp_path):
    monkeypatch.setattr(roofline, "limits", lambda n: {"flops_per_s": 1e9, "bytes_per_s": 1e9})
    rows = run(monkeypatch, tmp_path, roofline)["rows"]
    assert [row["phase"] for row in rows] == [
        "input", "forward", "input gradients", "weight gradients", "normalisation", "optimiser"]
    assert all(row["GB"] > 0 and row["GFLOP"] > 0 for row in rows[1:5])


def test_every_convolution_of_the_network_is_measured(monkeypatch, tmp_path):
    content = run(monkeypatch, tmp_path, formulations, "--members", "2", "--settings", "direct",
                  "onednn")
    rows = content["rows"]
    # resnet4: the stem, and two alike convolutions of its one block
    assert {row["convolution"] for row in rows} == {"8x8x3 3x3/1 2", "8x8x2 3x3/1 2"}
    assert {row["phase"] for row in rows} == set(conv.PHASES)
    there = not native.unavailable()
    assert len(rows) == 2 * 3 * (1 + there)
    assert [row["impl"] for row in rows if row["auto"]] == ["onednn" if there else "direct"] * 6
    assert all(0 < row["ms"]["min"] <= row["ms"]["max"] for row in rows)


def test_flops_of_a_convolution():
    geometry = formulations.Geometry((2, 2), ((1, 1), (1, 1)), (5, 8, 8, 3), (3, 3, 3, 7))
    assert geometry.flops == 2 * (5 * 4 * 4 * 7) * (3 * 3 * 3)


def test_startup_is_measured_in_processes_of_their_own(monkeypatch, tmp_path):
    content = run(monkeypatch, tmp_path, startup, "--members", "1", "--stem", "small", "--n", "1")
    assert [row["cache"] for row in content["rows"]] == ["cold", "cached"]
    for row in content["rows"]:
        assert 0 < row["step_compile_s"]["median"] < row["compile_s"]["median"]
        assert row["compile_s"]["median"] < row["first_step_s"]["median"]
        assert row["count_flops_s"]["median"] > 0 and row["step_flops"]["median"] > 0


def test_metrics_are_timed_against_a_loop_that_gives_the_same(monkeypatch, capsys, tmp_path):
    arrays = np.random.default_rng(0).gamma(2, 4, (4, 3, 50)).astype(np.float32)
    one_pass = errors.study_metrics(*arrays, np.array(metrics.ALPHAS, np.float32), metrics.WITHIN)
    for name, value in metrics.numpy_loop(*arrays)._asdict().items():
        np.testing.assert_allclose(getattr(one_pass, name), value, rtol=1e-5, err_msg=name)
    path = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", [
        "benchmark", "--members", "2", "--samples", "30", "--models", "4", "--forget", "3",
        "--replicates", "3", "--n", "2", "--json", str(path)])
    metrics.main()
    content = json.loads(path.read_text())
    assert [row["what"] for row in content["rows"]] == [
        "NumPy loop", "one pass", "its exponentials", "one reading", "forgetting quality",
        "with 3 replicates"]
    assert content["bound"] > 0 and all(row["ms"]["min"] > 0 for row in content["rows"])
    assert content["reached"] > 0 and all(row["CPU ms"]["min"] > 0 for row in content["rows"])
    assert "times as fast as the NumPy loop" in capsys.readouterr().out


def test_sisa_counts_and_times_each_deletion(monkeypatch, capsys, tmp_path):
    path = tmp_path / "figures.json"
    changes = ["data.size=300", "data.image_size=8", "model.name=resnet4", "model.width=2",
               "model.stem=small", "train.epochs=3", "train.recalibrate_norms=off", "seeds=(0,)",
               "unlearn.sisa.shards=3", "unlearn.sisa.slices=1"]
    monkeypatch.setattr(sys, "argv", ["benchmark", "--data", "synthetic", "--samples", "1", "--n",
                                      "1", "--json", str(path), "--set", *changes])
    sisa.main()
    rows = {row["delete"]: row for row in json.loads(path.read_text())["rows"]}
    assert list(rows) == ["one sample", "one per cent", "one class"]
    # one of three shards; then, where a class is in all of them, everything
    assert rows["one sample"]["images"] == pytest.approx(3, rel=0.05)
    assert rows["one sample"]["expected"] == pytest.approx(3, rel=0.05)
    assert rows["one class"]["images"] == pytest.approx(1, rel=0.02)
    for row in rows.values():
        assert row["nominal"] == 6 and row["delete_s"]["min"] > 0
        assert row["time"]["median"] == pytest.approx(
            row["retrain_s"]["median"] / row["delete_s"]["median"])
    assert "| data | delete |" in capsys.readouterr().out


def test_runs_take_turns_and_warm_up():
    order = []
    seconds = measure.in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")},
                               n=2, warmup=1)
    assert order == ["a", "b"] * 3
    assert all(s.shape == (2,) for s in seconds.values())
    assert measure.spread(np.array([3.0, 1.0, 2.0])) == {"min": 1.0, "median": 2.0, "max": 3.0}


def test_a_sweep_and_its_points_one_by_one_are_compared_cell_by_cell(monkeypatch, tmp_path):
    ran = []

    def stand_in(folder, module, *flags):
        """Writes the table that a program would, in place of running it."""
        ran.append([module, *flags])
        out = {f.partition("=")[0]: f.partition("=")[2] for f in flags}
        target = Path(out.get("--out") or out["--workdir"])
        target.mkdir(parents=True)
        off = 1e-6 if module == "unlearn_jax.report" else 0.0
        rows = [f"ft,20-28,{e},{s},mae_test,{e + int(s) + off}" for e in (1, 2) for s in "01"]
        rows += [f"ft,20-28,1,0,wall_seconds,{len(ran)}", "ft,20-28,1,,averaged:mae_test,3"]
        rows += ["retrain,20-28,3,0,ceiling@15,"] if off else ["retrain,20-28,3,0,mae_test,"]
        (target / "results.csv").write_text("\n".join(
            ["method,forget_set,epochs,seed,metric,value", *rows]))

    monkeypatch.setattr(sweep, "_run", stand_in)
    path = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", [
        "benchmark", "--epochs", "1", "2", "--sets", "20-28", "--seeds", "0", "1", "--ways",
        "population", "slurm", "singly", "--set", "data.size=9", "--json", str(path)])
    sweep.main()
    rows = {row["way"]: row for row in json.loads(path.read_text())["rows"]}
    assert [row["only in one"] for row in rows.values()] == [0, 0, 2]
    assert rows["slurm"]["cells"] == 5 and rows["slurm"]["largest difference"] == 0
    assert rows["singly"]["largest difference"] == pytest.approx(1e-6)
    assert rows["singly"]["cells"] == rows["singly"]["points"] == 4
    alone = [line for line in ran if line[0] == "unlearn_jax.main"]
    assert len(alone) == 4 and {"--config.seeds=(1,)", "--config.unlearn.epochs=(2,)",
                                "--config.forget.sets=('20-28',)"} <= set(alone[-1])
    assert all("--config.data.size=9" in line for line in ran[:-1]) and "--on=slurm" in ran[1]
    assert ran[-1][1:5] == [next(f for f in line if "--workdir" in f).partition("=")[2]
                            for line in alone]

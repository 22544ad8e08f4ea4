"""M_O and M_R from files: a run with exported models equals the run that they come from."""

import csv
import json

import numpy as np
import pytest
from test_stages import run, statuses, table

from unlearn_jax.config import ConfigError, check_config, default_config
from unlearn_jax.errors import InputError
from unlearn_jax.export.__main__ import main as export
from unlearn_jax.stages.outside import check_record
from unlearn_jax.storage.store import Store

COSTS = {"images", "wall_seconds", "flops", "steps", "epochs_trained"}
OFF = "--config.retrain.mode=off"
MODEL = ("--config.eval.audits=('mia','distances')",)


def values(workdir):
    """(method, seed, metric) -> value, without costs."""
    return {(r["method"], r["seed"], r["metric"]): r["value"] for r in table(
        workdir / "results.csv") if r["metric"].removesuffix("_vs_retrain") not in
        COSTS | {"wall"}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that trains M_O and M_R, and its exported models: PATH/original-SEED.safetensors."""
    path = tmp_path_factory.mktemp("outside")
    done = run("ft.py", path / "run", path / "store", *MODEL, budgets="(1,)")
    assert done.returncode == 0, done.stderr
    for method in ("original", "retrain"):
        (key,) = Store(path / "store").keys(method)
        stage = path / "store" / method / key
        for seed in (0, 1):
            for name in (f"{method}-{seed}.safetensors", f"{method}-flax-{seed}.msgpack"):
                assert export([str(stage), f"--seed={seed}", f"--to={path / name}"]) == 0
    return path


def test_exported_models_give_the_results_of_the_run_that_they_come_from(trained):
    expected = np.mean([float(v) for (method, _, metric), v in values(trained / "run").items()
                        if (method, metric) == ("original", "mae_test")])
    done = run(
        "ft.py", trained / "again", trained / "store2", *MODEL,
        f"--config.original.path={trained}/original-{{seed}}.safetensors",
        f"--config.retrain.path={trained}/retrain-flax-{{seed}}.msgpack",
        f"--config.original.expected_test={expected:.5f}",
        "--config.original.tolerance=0.001", budgets="(1,)", figures="made")
    assert done.returncode == 0, done.stderr
    assert values(trained / "again") == values(trained / "run")
    metrics = {(r["method"], r["metric"]) for r in table(trained / "again" / "results.csv")}
    assert ("ft", "images") in metrics and ("original", "images") not in metrics
    assert not [m for _, m in metrics if m.endswith("vs_retrain")]
    assert statuses(trained / "again") == {
        ("original", "", 0): "read", ("retrain", "20-28", 0): "read",
        ("ft", "20-28", 1): "computed"}
    # before anything is trained
    assert f"MAE (years) on the 20 test samples {expected:.4g}" in done.stderr.split("ft:")[0]
    text = (trained / "again" / "report.md").read_text()
    assert "M_O is the original model, read from" in text and "M_R was read from" in text


def test_one_m_o_of_two_seeds_without_m_r_and_with_a_list_of_what_it_saw(trained):
    with np.load(trained / "run" / "predictions" / "original.20-28.0.retain.npz") as file:
        kept = file["ids"].tolist()
    with np.load(trained / "run" / "predictions" / "original.20-28.0.forget.npz") as file:
        kept += file["ids"][file["member"] == 1].tolist()
        first = file["ids"][file["member"] == 1][0]
    kept.remove(first)  # M_O did not see this sample of D_f
    (trained / "seen.txt").write_text("# what it saw\n" + "\n".join(kept))
    done = run("ft.py", trained / "one", trained / "store", OFF,
               f"--config.original.path={trained / 'original-flax-1.msgpack'}",
               f"--config.original.trained_on={trained / 'seen.txt'}", budgets="(1,)",
               figures="made")
    assert done.returncode == 0, done.stderr
    assert "expected_test is not given" in done.stderr
    record = json.loads((trained / "one" / "run.json").read_text())
    assert any("M_O of all seeds is one model" in w for w in record["warnings"])
    own = values(trained / "one")
    assert own["original", "0", "mae_forget"] == own["original", "1", "mae_forget"]
    assert own["ft", "0", "mae_forget"] != own["ft", "1", "mae_forget"]
    for split, member in (("retain", {1}), ("test", {0}), ("forget", {1, 2})):
        with np.load(trained / "one" / "predictions" / f"original.20-28.0.{split}.npz") as file:
            assert set(file["member"].tolist()) == member
            seen = set(file["ids"][file["member"] == 1].tolist())
            assert seen <= set(kept) and first not in seen, split
    with open(trained / "one" / "history.csv", newline="") as file:
        assert {r["stage"] for r in csv.DictReader(file)} == {"ft"}


def test_another_test_metric_is_refused_before_any_training(trained, tmp_path):
    done = run("ft.py", tmp_path / "run", trained / "store3", OFF,
               f"--config.original.path={trained / 'original-0.safetensors'}",
               "--config.original.expected_test=1.5", budgets="(1,)")
    assert done.returncode
    said = done.stderr[done.stderr.index("M_O of config.original.path has"):].strip().splitlines()
    assert len(said) == 2 and "config.original.expected_test is 1.5" in said[0]
    assert "preprocess" in said[1] and "order of the classes" in said[1]
    assert {p.name for p in (trained / "store3").iterdir()} >= {"original"}
    assert not (trained / "store3" / "ft").exists()


@pytest.mark.parametrize("changes, key", [
    ({"original.trained_on": "seen.txt"}, "original.trained_on"),
    ({"original.expected_test": 0.9}, "original.expected_test"),
    ({"original.path": "{forget_set}.msgpack"}, "original.path"),
    ({"retrain.path": "m.msgpack", "retrain.mode": "off"}, "retrain.path"),
    ({"retrain.path": "m-{seed}.msgpack", "forget.sets": ("20-28", "30-35")}, "retrain.path"),
    ({"retrain.path": "m-{seed}.msgpack", "compare.methods": ("ft",)}, "compare.methods"),
    ({"retrain.path": "m-{seed}.msgpack", "thesis.arms": ("ft",)}, "thesis.arms"),
    ({"retrain.path": "m-{seed}.msgpack", "unlearn.method": "sisa", "unlearn.epochs": (0,)},
     "unlearn.method"),
    ({"retrain.path": "m.msgpack", "eval.audits": ("lira",)}, "eval.audits"),
    ({"retrain.path": "m.msgpack", "eval.explain_samples": 2}, "eval.explain_samples"),
])
def test_settings_that_contradict_each_other_are_refused(changes, key):
    config = default_config()
    with config.unlocked():
        for name, value in changes.items():
            section, _, last = name.partition(".")
            config[section][last] = value
    with pytest.raises(ConfigError, match=f"config.{key} is"):
        check_config(config)


def test_settings_that_fit_are_allowed():
    config = default_config()
    with config.unlocked():
        config.original.update(path="o.safetensors", expected_test=0.9, trained_on="seen.txt")
        config.retrain.path = "r-{forget_set}-{seed}.msgpack"
        config.forget.sets = ("20-28", "30-35")
        config.eval.audits = ("mia", "lira")
    check_config(config)


@pytest.mark.parametrize("changes, classes, said", [
    ({"data.image_size": 64}, ("a", "b"), "was made with data.image_size=64; here it is 32\n"
     "set config.data.image_size=64 as well"),
    ({"model.preprocess": "torch"}, ("a", "b"), "made with model.preprocess='torch'"),
    ({}, ("b", "a"), "was trained on the classes b, a, and the data have a, b\nallowed"),
    ({"model.output_scale": 7.0}, ("a", "b"), ""),  # classes have no scale
    (None, (), ""),
])
def test_what_the_export_says_of_a_model_is_compared(tmp_path, changes, classes, said):
    config = default_config()
    config.data.task = "classification"
    theirs = config.to_dict()
    for name, value in (changes or {}).items():
        section, _, last = name.partition(".")
        theirs[section][last] = value
    (tmp_path / "m.json").write_text("another program's" if changes is None else json.dumps(
        {"made_by": {"config": theirs}, "output": {"class_names": classes}}))
    if not said:
        check_record(tmp_path / "m.safetensors", "original.path", config, ("a", "b"))
        return
    with pytest.raises(InputError) as refused:
        check_record(tmp_path / "m.safetensors", "original.path", config, ("a", "b"))
    assert said in str(refused.value) and len(str(refused.value).splitlines()) == 2

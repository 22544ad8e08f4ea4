"""Running statistics of batch norms against those of the training set."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_population as tiny
from tiny_population import MEMBERS, leaves, net, one, preparation, quick, resident

from unlearn_jax.config import default_config
from unlearn_jax.engine import recalibration
from unlearn_jax.stages.graph import original_stage
from unlearn_jax.storage import checkpoints

MOMENTUM = 0.9


def test_the_statistics_of_a_batch_are_those_that_training_steps_move_to():
    model, images = net(), resident().images[:8]
    variables = one(tiny.variables(model))
    found = leaves(recalibration.batch_statistics(model, variables, images))
    _, stepped = model.apply(variables, images, train=True)
    for path, old in leaves(variables["batch_stats"]).items():
        expected = MOMENTUM * old + (1 - MOMENTUM) * found[path]
        np.testing.assert_allclose(leaves(stepped)[path], expected, rtol=1e-4, atol=1e-5,
                                   err_msg=path)


def test_frozen_norms_keep_their_own():
    model = net(frozen=("stem",))
    variables = one(tiny.variables(model))
    found = leaves(recalibration.batch_statistics(model, variables, resident().images[:8]))
    own = leaves(variables["batch_stats"])
    same = {path for path in own if np.array_equal(found[path], own[path])}
    assert same == {path for path in own if path.startswith("stem_norm")}
    with quick:
        before = preparation(model)
        after, _ = recalibration.recalibrated(before, np.array([False, False]))
    for path, x in leaves(after["batch_stats"]).items():
        unmoved = np.array_equal(x, leaves(before.variables["batch_stats"])[path])
        assert unmoved == path.startswith("stem_norm"), path


@pytest.fixture(scope="module")
def settled():
    with quick:
        before = preparation(net())
        return before, *recalibration.recalibrated(before, np.array([False, False]))


def test_each_member_has_the_mean_over_its_own_batches(settled):
    before, after, _ = settled
    data = resident()
    for m, member in enumerate(MEMBERS):
        rows = member.retain
        batches = [np.resize(rows, 8 * -(-len(rows) // 8))[i:i + 8]
                   for i in range(0, len(rows), 8)]
        weights = [min(8, len(rows) - 8 * i) for i in range(len(batches))]
        found = [leaves(recalibration.batch_statistics(before.model, one(before.variables, m),
                                               data.images[jnp.asarray(b)])) for b in batches]
        for path, x in leaves(one(after["batch_stats"], m)).items():
            mean = np.average([f[path] for f in found], axis=0, weights=weights)
            np.testing.assert_allclose(x, mean, rtol=1e-3, atol=1e-4, err_msg=path)


def test_what_it_changes_is_measured_and_weights_are_not_touched(settled):
    before, after, found = settled
    for path, x in leaves(after["params"]).items():
        np.testing.assert_array_equal(x, leaves(before.variables["params"])[path])
    data = resident()
    for m, member in enumerate(MEMBERS):
        rows = jnp.asarray(member.validation[::2])
        for name, variables in (("before", before.variables), ("after", after)):
            outputs, _ = before.model.apply(one(variables, m), data.images[rows], train=False)
            loss = jnp.abs(outputs - data.labels[rows]).mean()
            np.testing.assert_allclose(found[name][m], loss, rtol=1e-4)
    assert not np.allclose(found["before"], found["after"], rtol=1e-3)


def test_failed_members_and_those_without_validation_samples():
    unvalidated = tuple(dataclasses.replace(m, validation=m.validation[:0]) for m in MEMBERS)
    with quick:
        before = preparation(net(), members=unvalidated)
        after, found = recalibration.recalibrated(before, np.array([False, True]))
    assert np.isnan([found["before"], found["after"]]).all()
    for path, x in leaves(after["batch_stats"]).items():
        own = leaves(before.variables["batch_stats"])[path]
        assert np.array_equal(x[1], own[1]) and not np.array_equal(x[0], own[0])


@pytest.mark.parametrize("setting, epochs, variant, expected", [
    ("auto", 12, "torchvision", False), ("auto", 1, "torchvision", True),
    ("auto", 12, "keras", True), ("on", 12, "torchvision", True), ("off", 1, "keras", False)])
def test_few_steps_are_told_from_many(setting, epochs, variant, expected):
    c = default_config()
    c.train.recalibrate_norms, c.train.epochs, c.model.variant = setting, epochs, variant
    rows = 1800  # 29 steps an epoch: of the embedded default
    assert recalibration.recalibrates(c, rows) == expected
    # The figure of 24 steps at 0.99.
    c.train.epochs, c.train.batch_size, c.model.variant = 1, 64, "keras"
    assert recalibration.share_left(c, 24 * 64) == pytest.approx(0.786, abs=1e-3)


def test_the_warning_has_the_figures():
    metadata = {"before": [8.5, 8.62, np.nan], "after": [6.8, 6.82, np.nan]}
    text = recalibration.in_words(0.786, "years", metadata)
    assert "leaves 79 %" in text and "6.81 years instead of 8.56" in text
    assert "recalibrate_norms='off'" in recalibration.in_words(0.786, "years", None)


def test_recalibrated_models_have_keys_of_their_own():
    from test_stages_graph import _config, _study

    few, many = (_study(_config(train__epochs=n)) for n in (1, 12))
    assert original_stage(few).parts["norms"] == "recalibrated"
    assert "norms" not in original_stage(many).parts


@pytest.mark.slow
def test_a_run_of_few_steps_says_what_it_changes_and_stores_it(tmp_path):
    from test_explain_main import config, run_study

    said, models = {}, {}
    for setting in ("auto", "off"):
        c = config(explain_samples=0)
        with c.unlocked():
            c.train.recalibrate_norms = setting
        directory = run_study(c, tmp_path, "ft", setting)
        record = json.loads((directory / "run.json").read_text())
        said[setting] = [w for w in record["warnings"] if "running statistics" in w]
        key = next(s["key"] for s in record["stages"] if s["stage"] == "original")
        checkpoint = tmp_path / "store" / "original" / key / "checkpoint"
        models[setting] = checkpoints.restore(checkpoint)
    assert len(said["off"]) == 1 and "recalibrate_norms='off'" in said["off"][0]
    assert [w.partition(":")[0] for w in said["auto"]] == ["original", "retrain 20-28"]
    assert all("the mean loss is" in w for w in said["auto"])
    (variables, metadata), (plain, without) = models["auto"], models["off"]
    assert len(metadata["norms"]["after"]) == 2 and "norms" not in without
    for path, x in leaves(variables["params"]).items():
        np.testing.assert_array_equal(x, leaves(plain["params"])[path])
    assert all((x != leaves(plain["batch_stats"])[path]).any()
               for path, x in leaves(variables["batch_stats"]).items())
    # The same command again finds the models, and says it again.
    c = config(explain_samples=0)
    again = json.loads((run_study(c, tmp_path, "ft", "again") / "run.json").read_text())
    assert {s["status"] for s in again["stages"] if s["stage"] in ("original", "ft")} == {"reused"}
    assert [w for w in again["warnings"] if "running statistics" in w] == said["auto"]

"""Running statistics of batch norms against those of the training set."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_population as tiny
from sisa_study import forget, make_sisa, make_study
from tiny_population import MEMBERS, leaves, net, one, preparation, resident
from toy import layout, settings

from unlearn_jax.config import default_config
from unlearn_jax.data.resident import Resident
from unlearn_jax.data.synthetic import load_synthetic
from unlearn_jax.engine import recalibration
from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import Recipe, init_members
from unlearn_jax.engine.run import train_population
from unlearn_jax.members import Member
from unlearn_jax.models import build_model
from unlearn_jax.optim import make_optimizer
from unlearn_jax.stages import populations
from unlearn_jax.stages.graph import original_stage, retrain_stage
from unlearn_jax.stages.models import train_missing
from unlearn_jax.storage import checkpoints
from unlearn_jax.train import make_loss, make_train_step

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
    before = preparation(model)
    after, _ = recalibration.recalibrated(before, np.array([False, False]))
    for path, x in leaves(after["batch_stats"]).items():
        unmoved = np.array_equal(x, leaves(before.variables["batch_stats"])[path])
        assert unmoved == path.startswith("stem_norm"), path


@pytest.fixture(scope="module")
def settled():
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


def test_a_recalibrated_m_o_errs_by_years_less_after_few_steps():
    """24 steps at 0.99 leave 79 % of the first statistics."""
    faces = load_synthetic(288, 16, 0, 2.0)
    cfg = default_config().model
    with cfg.unlocked():
        cfg.update(name="resnet4", variant="keras", stem="small", width=4, output_scale=100.0,
                   output_offset=0.0)
    model, where = build_model(cfg, 16, 0), layout(count=1, per_device=1)
    rows = np.arange(288, dtype=np.int32)
    member = Member(0, "", rows[:192], rows[192:], rows[:0])
    adam = settings(name="adam", learning_rate=0.01)
    optimizer, loss = make_optimizer(adam), make_loss("mae", cfg.output_scale)
    recipe = Recipe("few", make_train_step(model, optimizer, loss), optimizer, adam, loss, epochs=4,
                    batch_size=32, eval_batch_size=32, keep="last", snapshots=(4,))
    data = Resident(jnp.asarray(faces.images), jnp.asarray(faces.labels))
    trained = train_population(recipe, model, where, data, [member],
                               init_members(model, where, [0])).snapshots[4]
    before = Preparation("few", model, where, data, [member], trained.variables, loss, 32)
    _, found = recalibration.recalibrated(before, np.array([False]))
    assert trained.steps == [24]
    # Half of the validation samples: 15.2 and 12.4 years; the best constant errs by 17.1.
    assert found["before"] > found["after"] + 1.5
    assert 9 < found["after"] < 14


def test_failed_members_and_those_without_validation_samples():
    unvalidated = tuple(dataclasses.replace(m, validation=m.validation[:0]) for m in MEMBERS)
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


def test_models_with_few_steps_behind_them_are_counted():
    c = default_config()
    assert recalibration.kept_in_words(c, np.array([44, 100])) == ""  # 0.97 % and nothing
    assert "1 of 2 models were kept after 43 steps. They predict with up to 1.1 %" \
        in recalibration.kept_in_words(c, np.array([43, 100]))
    assert "2 of 2 models were kept after 8 to 16 steps. They predict with up to 43 %" \
        in recalibration.kept_in_words(c, np.array([16, 8]))
    np.testing.assert_array_equal(recalibration.steps_of(c, [129, 64], [2, 3]), [6, 3])


def trained_study(store, monkeypatch, kept, **changes):
    """M_O and one M_R, trained in 8 steps an epoch; the best epochs of all are set to `kept`."""
    trained = populations.train_population

    def ending_early(*args, **kwargs):
        found = trained(*args, **kwargs)
        return dataclasses.replace(found, snapshots={
            n: dataclasses.replace(s, epochs=np.resize(kept, len(s.epochs)))
            for n, s in found.snapshots.items()})

    monkeypatch.setattr(populations, "train_population", ending_early)
    study = make_study(store, forget("class", np.arange(0, 60, 5)), **changes)
    original = original_stage(study)
    train_missing(study, [original, *(retrain_stage(study, original, f)
                                      for f in study.splits.forget_sets)])
    return study


@pytest.mark.parametrize("setting", ["auto", "off"])
def test_models_kept_at_an_early_epoch_are_warned_of(tmp_path, monkeypatch, setting):
    changes = dict(train__epochs=10, train__recalibrate_norms=setting)
    study = trained_study(tmp_path / "store", monkeypatch, [2, 10], **changes)
    assert not recalibration.recalibrates(study.config, len(study.splits.rows.source))
    # 63 rows with copies, and 49 without the forget set: 8 and 7 steps an epoch.
    m_o, m_r = study.run.warnings
    assert m_o.startswith("original: 1 of 2 models were kept after 16 steps. They predict with up "
                          "to 19 % of the running statistics")
    assert m_r.startswith("retrain class: 1 of 2 models were kept after 14 steps. They predict "
                          "with up to 23 %")
    # Found in the store they are the same models, and it is said again.
    again = trained_study(tmp_path / "store", monkeypatch, [2, 10], **changes)
    assert {stage[2] for stage in again.run.stages} == {"reused"}
    assert again.run.warnings == study.run.warnings


def test_models_of_all_planned_epochs_are_not(tmp_path, monkeypatch):
    study = trained_study(tmp_path / "store", monkeypatch, [10], train__epochs=10)
    assert study.run.warnings == []


def test_fewer_steps_of_m_r_than_of_m_o_are_seen(tmp_path, monkeypatch):
    """Of six epochs M_O has 48 steps, more than the 44 that leave a hundredth; M_R has 42."""
    study = trained_study(tmp_path / "store", monkeypatch, [6], train__epochs=6)
    (m_r,) = study.run.warnings
    assert m_r.startswith("retrain class: 2 of 2 models were kept after 42 steps")


def test_shards_have_fewer_steps_than_m_o(tmp_path):
    study = make_study(tmp_path / "store", train__epochs=6, train__recalibrate_norms="auto")
    sisa = make_sisa(study)
    sisa.run()
    (text,) = study.run.warnings
    assert text.startswith("sisa_original: 6 of 6 models were kept after")


@pytest.mark.slow
def test_a_run_of_few_steps_says_what_it_changes_and_stores_it(tmp_path, no_figures):
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
    with c.unlocked():
        c.train.recalibrate_norms = "auto"
    again = json.loads((run_study(c, tmp_path, "ft", "again") / "run.json").read_text())
    assert {s["status"] for s in again["stages"] if s["stage"] in ("original", "ft")} == {"reused"}
    assert [w for w in again["warnings"] if "running statistics" in w] == said["auto"]

"""Methods from outside are walked through before any training."""

import dataclasses

import pytest
from readme import method_template

from unlearn_jax.config import default_config
from unlearn_jax.data import load
from unlearn_jax.data.augment import augmentation
from unlearn_jax.data.resident import make_resident
from unlearn_jax.data.splits import make_splits
from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.outside import Found
from unlearn_jax.models import build_model
from unlearn_jax.stages.graph import RunContext
from unlearn_jax.stages.models import make_unlearning
from unlearn_jax.stages.rehearsal import rehearse
from unlearn_jax.train import make_loss

HEAD = """
import dataclasses
import sys
import jax
import jax.numpy as jnp
from unlearn_jax.methods.method import Method, Prepared
from unlearn_jax.members import Pass
from unlearn_jax.train import make_step, make_train_step, supervised


def plain(setting):
    return make_train_step(setting.model, setting.optimizer, setting.loss)


"""


def make_study(cache, task="regression"):
    c = default_config()
    with c.unlocked():
        c.data.update(size=100, image_size=8)
        c.model.update(name="resnet4", width=2, stem="small")
        c.unlearn.update(batch_size=16, epochs=(2,))
        c.seeds = (0, 1)
        if task == "classification":
            c.data.update(source="digits", task=task)
            c.train.loss, c.forget.sets = "cross_entropy", ("class:3",)
            c.unlearn.labels = "uniform"
    data = load(c.data, cache)
    splits = make_splits(data, c.data, c.forget)
    resident, index = make_resident(data, splits.rows, augmentation(c.data), 0)
    return RunContext(c, "ft", None, None, data, splits, resident, index,
                      build_model(c.model, 8, data.num_classes),
                      make_loss(c.train.loss, c.model.output_scale), None)


@pytest.fixture(scope="module", params=["regression", "classification"])
def study(request, tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("cache"), request.param)


@pytest.fixture(scope="module")
def ages(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("cache"))


def made(study, tmp_path, text, name="METHOD"):
    (tmp_path / "own.py").write_text(HEAD + text)
    config = study.config.copy_and_resolve_references()
    with config.unlocked():
        config.unlearn.method = f"{tmp_path / 'own.py'}:{name}"
    return make_unlearning(dataclasses.replace(study, config=config))


def test_what_works_passes(study, tmp_path):
    made(study, tmp_path, "", "plain")
    made(study, tmp_path, method_template())
    made(study, tmp_path, """
def count(setting, before):
    return Prepared(before.variables, {"n": before.total("forget", lambda b: b.weights.sum())})


def counted(setting):
    step = plain(setting)
    return lambda key, state, batch, rate, context: step(key, state, batch, rate / context["n"])


METHOD = Method(make_step=counted, prepare=count, passes=lambda s, e: (Pass("retain+forget"),))
""")


STEPPED = """
def make(setting):
    step = plain(setting)

    def own(key, state, batch, rate, context):
        new, loss = step(key, state, batch, rate)
        %s

    return own


METHOD = Method(make_step=make)
"""


@pytest.mark.parametrize("line, error, words", [
    ("return new, loss * batch.weights", ConfigError,
     r"its step returns the loss float32 \[16\]; allowed: one number"),
    ("return new, loss > 0", ConfigError, r"the loss bool \[\]; allowed"),
    ("return new, (loss, loss)", ConfigError, "the loss 2 parts; allowed"),
    ("return new", ConfigError, r"its step returns a TrainState; allowed: \(state, loss\)"),
    ("return new, loss, 1", ConfigError, "its step returns 3 parts; allowed"),
    ("return new.variables, loss", ConfigError, "a state of another structure"),
    ("return jax.tree.map(lambda x: x.astype(jnp.bfloat16), new), loss", ConfigError,
     r"the state's .* as bfloat16 .*; allowed: float32"),
    ("return nothing", NameError, "'nothing' is not defined"),
    ("return new, loss @ batch.images", Exception, "."),
    ("sys.exit(0)", ConfigError, r"the file calls sys.exit\(0\)"),
])
def test_a_step_that_would_fail_fails_before_training(ages, tmp_path, line, error, words):
    with pytest.raises(error, match=words) as e:
        made(ages, tmp_path, STEPPED % line)
    name = f"{tmp_path / 'own.py'}:METHOD"
    assert name in str(e.value) or f"in the method {name} (config.unlearn.method)" in (
        e.value.__notes__)


@pytest.mark.parametrize("passes, words", [
    ("[Pass('retain')]", "the passes of epoch 0 are .*; allowed: a tuple of at least one Pass"),
    ("()", r"the passes of epoch 0 are \(\); allowed"), ("'retain'", "are 'retain'; allowed"),
    ("(Pass('retain'),) if e < 1 else None", "the passes of epoch 1 are None"),
    ("(Pass('forget', kind=2), Pass('retain'))",
     r"a pass of epoch 0 has kind=2; allowed: 0 to 1, as the method has optimizers=2"),
])
def test_passes_that_cannot_be_walked_are_refused(ages, tmp_path, passes, words):
    with pytest.raises(ConfigError, match=words):
        made(ages, tmp_path, "METHOD = Method(make_step=plain, optimizers=2, "
                             f"passes=lambda s, e: {passes})\n")


def test_a_step_that_cannot_read_what_was_prepared_fails_before_training(ages, tmp_path):
    text = """
def prepare(setting, before):
    return Prepared(before.variables, before.each(lambda v: v["params"], before.variables))


def make(setting):
    def own(key, state, batch, rate, context):
        return state, jnp.sum(context["no such layer"])

    return own


METHOD = Method(make_step=make, prepare=prepare)
"""
    with pytest.raises(KeyError, match="no such layer"):
        made(ages, tmp_path, text)


def test_a_preparation_that_ones_break_is_left_to_the_data(ages, tmp_path, caplog):
    made(ages, tmp_path, """
def prepare(setting, before):
    if before.total("forget", lambda b: b.labels.sum()) < 1000:
        raise ValueError("too few")
    return Prepared(before.variables)


METHOD = Method(make_step=plain, prepare=prepare)
""")
    assert "could not be tried before training: with ones for data its prepare raises " \
        "ValueError: too few" in caplog.text


def test_a_preparation_may_name_every_option_of_a_sum(ages, tmp_path, caplog):
    made(ages, tmp_path, """
def prepare(setting, before):
    return Prepared(before.variables, before.total(
        "forget", lambda b: b.weights.sum(), batch_size=8, order="mixed"))


METHOD = Method(make_step=plain, prepare=prepare)
""")
    assert "could not be tried" not in caplog.text


@pytest.mark.parametrize("text", [
    "sys.exit(0)\n", "def METHOD(setting):\n    sys.exit(0)\n",
    "def METHOD(setting):\n    exit()\n",
    "METHOD = Method(make_step=plain, check=lambda setting: sys.exit(0))\n",
])
def test_a_file_that_calls_exit_is_an_error(ages, tmp_path, text):
    with pytest.raises(ConfigError, match=r"own.py:METHOD': the file calls sys.exit\((0|None)\); a "
                                          "method must raise an error instead"):
        made(ages, tmp_path, text)


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.make_step or m.prepare])
def test_the_methods_of_the_package_can_be_rehearsed(study, caplog, name):
    config = study.config.copy_and_resolve_references()
    with config.unlocked():
        config.unlearn.method = name
        if METHODS[name].make_step is None:
            config.unlearn.epochs = (0,)
    own = dataclasses.replace(study, config=config)
    unlearning = make_unlearning(own)
    rehearse(own, Found(name, METHODS[name], "x"), unlearning.setting, unlearning.step)
    assert "could not be tried" not in caplog.text

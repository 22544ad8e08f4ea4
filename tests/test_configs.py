"""Every config and scale of configs/ builds its model and takes one real step on synthetic data.

A ResNet50 has one block in each stage here.
"""

import dataclasses
import importlib
import pkgutil
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import readme

import configs
from configs.common import SCALES
from unlearn_jax.commandline import read_config
from unlearn_jax.config import ConfigError, check_config
from unlearn_jax.config.variants import make_trials, method_config
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.method import LabelSpace, Setting
from unlearn_jax.models import build_model
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.train import Batch, init_state, make_loss

# Configs that are of no one method, and what may stand behind their colon.
PROTOCOLS = {"challenge": ("", "16"), "compare": ("", "digits", "utkface_small"),
             "confusion": ("", "digits"), "injection": ("", "digits"),
             "thesis": ("", "small", "demo")}
NAMES = sorted(m.name for m in pkgutil.iter_modules(configs.__path__) if m.name != "common")


def load(name, scale):
    return importlib.import_module(f"configs.{name}").get_config(scale)


def one_step(c):
    """A step of the config's own model and method, narrow, of small images; see above."""
    classes = 10 if c.data.task == "classification" else 0
    size = 32 if c.model.stem == "imagenet" else 16
    with c.unlocked():
        c.model.width = 2
    model = build_model(c.model, size, classes)
    if c.model.name == "resnet50":  # a block of each stage: its 16 blocks take 7 s to compile
        model = dataclasses.replace(model, module=model.module.clone(blocks=(1, 1, 1, 1)))
    optimizer = make_optimizer(OptimizerSettings.from_config(c.unlearn))
    setting = Setting(model, optimizer, make_loss(c.train.loss, c.model.output_scale),
                      LabelSpace(c.data.label_min, c.data.label_max, classes,
                                 c.model.output_scale), c.unlearn,
                      c.unlearn.get(c.unlearn.method), c.train)
    step = METHODS[c.unlearn.method].make_step(setting)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 4) if classes else rng.uniform(20, 60, 4).astype(np.float32)
    batch = Batch(jnp.asarray(rng.integers(0, 256, (4, size, size, 3), dtype=np.uint8)),
                  jnp.asarray(labels), jnp.arange(4), jnp.array([True, True, False, False]),
                  jnp.ones(4), jnp.int32(0))

    @jax.jit
    def run(key):
        state = init_state(model, optimizer, model.init(key))
        return step(key, state, batch, 1e-3)

    return run(jax.random.key(0))


def test_there_are_configs_for_every_method():
    assert set(NAMES) == set(METHODS) | set(PROTOCOLS)


@pytest.mark.parametrize("name, scale", [(n, s) for n, scales in PROTOCOLS.items() for s in scales])
def test_every_protocol_is_allowed(name, scale):
    c = load(name, scale)
    check_config(c)
    assert c.is_locked


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_config_is_allowed(name, scale):
    c = load(name, scale)
    check_config(c)
    assert c.is_locked and c.unlearn.method == name


# One network per scale; methods on top of it are tested in test_methods.py
@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["rnd"])
def test_every_scale_takes_a_step(name, scale):
    state, loss = one_step(load(name, scale))
    assert np.isfinite(loss) and state.step == 1


@pytest.mark.filterwarnings("ignore:the load_module")  # of ml_collections
def test_the_readme_has_commands_for_images_of_ones_own():
    text = readme.section("On UTKFace").replace("\\\n", "")
    commands = [shlex.split(line, comments=True) for line in text.splitlines()
                if "--config.data.path=FOLDER" in line or "labels.csv" in line]
    classes, numbers = (read_config([w for w in words[3:] if w.startswith("--config")])
                        for words in commands)
    check_config(classes)
    check_config(numbers)
    assert classes.data.source == numbers.data.source == "folder"
    assert (classes.data.task, numbers.data.task) == ("classification", "regression")


@pytest.mark.parametrize("count", ["3", "many", "-8"])
def test_a_challenge_needs_a_number_of_models(count):
    with pytest.raises(ConfigError, match="a whole number of at least 4"):
        load("challenge", count)


@pytest.mark.parametrize("scale", SCALES)
def test_salun_draws_labels_as_published_at_every_scale(scale):
    assert METHODS["salun"].published["labels"] == "uniform"
    assert load("salun", scale).unlearn.labels == "uniform"
    assert method_config(load("compare", scale), "salun").unlearn.labels == "uniform"


# By method: what a comparison turns from weak to strong beside the learning rate, at the scale.
DIALS = [("l1_sparse", "", "alpha", 2.5e-5, 1.6e-3),
         ("ssd", "", "share", 1e-3, 0.1), ("ssd", "digits", "share", 1e-3, 0.1),
         ("kgltop1", "", "contrast_rate", 0.075, 1.2),
         *((name, scale, "strength", 1.0, 30.0) for name in ("activation", "gradmask")
           for scale in ("", "digits", "utkface_small"))]


@pytest.mark.parametrize("name, scale, option, weakest, strongest", DIALS)
def test_a_comparison_searches_how_much_a_method_changes(name, scale, option, weakest, strongest):
    trials = make_trials(load("compare", scale), name)
    assert {trial.option for trial in trials} == {option}
    assert (trials[0].strength, trials[-1].strength) == (weakest, strongest)
    for trial in trials:
        check_config(trial.config)


def test_unknown_scales_list_the_known_ones():
    with pytest.raises(ConfigError, match="'utkface', 'utkface_small'"):
        load("ft", "huge")

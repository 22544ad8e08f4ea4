"""Arms: what each is run with, its budgets, and what is refused."""

import pytest

from configs import thesis
from unlearn_jax.config import ConfigError, check_config
from unlearn_jax.config.variants import arm_config, budgets

SCALES = ("", "small", "demo")


@pytest.fixture
def config():
    return thesis.get_config("demo")


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_is_allowed(scale):
    c = thesis.get_config(scale)
    check_config(c)
    assert c.is_locked and c.thesis.arms == ("ft", "rnd", "rnd_offset", "rnd_units")
    assert c.forget.sets == thesis.SETS and len(c.seeds) == 3


def test_the_published_scale_is_that_of_the_other_configs():
    from configs import ft

    own, theirs = arm_config(thesis.get_config(""), "ft"), ft.get_config("utkface")
    for section in ("data", "model", "train", "unlearn"):
        assert own[section] == theirs[section], section


def test_an_arm_is_the_config_with_its_own_unlearning(config):
    own = arm_config(config, "rnd_units")
    assert (own.unlearn.method, own.unlearn.labels, own.unlearn.label_units) == (
        "rnd", "offset", "as_published")
    assert own.unlearn.learning_rate == config.unlearn.learning_rate
    assert own.thesis.arms == () and config.unlearn.method == "ft"


def test_budgets_are_the_experiments(config):
    assert budgets(config, "ft", ("a", "b", "c")) == {"a": (2, 4, 8, 16), "b": (8,), "c": (8,)}
    assert budgets(config, "rnd", ("a", "b")) == {"a": (2, 4, 8, 16), "b": (2,)}
    with config.unlocked():
        del config.thesis.elsewhere["rnd"]
    assert budgets(config, "rnd", ("a", "b"))["b"] == (2, 4, 8, 16)


@pytest.mark.parametrize("change, words", [
    (lambda c: c.thesis.update(arms=("ft", "ft")), "different names"),
    (lambda c: c.thesis.update(arms=("ft", "scrub")), "does not describe; described: 'ft'"),
    (lambda c: c.thesis.unlearn.ft.update(method="retrain"), "methods that unlearn M_O"),
    (lambda c: c.thesis.unlearn.ft.update(learning_rate=-1.0), "unlearn.learning_rate is -1.0"),
    (lambda c: c.thesis.elsewhere.update(ft=(2, -1)), "elsewhere.ft is"),
    (lambda c: c.compare.update(methods=("ft",)), "one of the two"),
])
def test_mistakes_are_named(config, change, words):
    with config.unlocked():
        change(config)
    with pytest.raises(ConfigError, match=words):
        check_config(config)


def test_reserved_names_are_refused(config):
    with config.unlocked():
        config.thesis.unlearn["original"] = config.thesis.unlearn.ft
        config.thesis.arms = ("original",)
    with pytest.raises(ConfigError, match="none of median, original, retrain"):
        check_config(config)


def test_an_unknown_scale_lists_the_known_ones():
    with pytest.raises(ConfigError, match="allowed: '', 'small', 'demo'"):
        thesis.get_config("huge")

import pytest

from unlearn_jax.config import default_config
from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.method import LabelSpace, Setting
from unlearn_jax.stages import SCHEMES

AGES, CLASSES = LabelSpace(20, 60, 0, 60.0), LabelSpace(0, 1, 4, 1.0)


def check(space=AGES, **options):
    c = default_config()
    with c.unlocked():
        c.unlearn.sisa.update(options)
    METHODS["sisa"].check(Setting(None, None, None, space, c.unlearn, c.unlearn.sisa, c.train))


def test_the_published_scheme_is_the_default():
    method = METHODS["sisa"]
    assert (method.options["shards"], method.options["slices"]) == (5, 4)
    assert method.scheme in SCHEMES and method.make_step is None
    check()
    check(CLASSES, aggregate="vote", slice_epochs=0.5, shards=1, slices=1)


def test_only_known_schemes_are_named():
    assert {m.scheme for m in METHODS.values()} == {"", *SCHEMES}


@pytest.mark.parametrize("space, key, value, words", [
    (AGES, "shards", 0, "at least 1"),
    (AGES, "slices", 0, "at least 1"),
    (AGES, "slice_epochs", -1.0, "a number of epochs, or 0"),
    (AGES, "slice_epochs", float("inf"), "a number of epochs, or 0"),
    (AGES, "slice_epochs", float("nan"), "a number of epochs, or 0"),
    (CLASSES, "aggregate", "median", "'mean' or 'vote'"),
    (AGES, "aggregate", "vote", "'mean' for data.task='regression'"),
])
def test_impossible_options_name_key_value_and_what_is_allowed(space, key, value, words):
    with pytest.raises(ConfigError) as e:
        check(space, **{key: value})
    assert f"config.unlearn.sisa.{key} is {value!r}; allowed: " in str(e.value)
    assert words in str(e.value)

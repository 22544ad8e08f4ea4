"""The table of the config: whole, the only source of the defaults, and true to them."""

import pytest

from unlearn_jax.config import KEYS, default_config, get
from unlearn_jax.config.records import Elements, Range
from unlearn_jax.config.values import allowed_text
from unlearn_jax.methods import METHODS
from unlearn_jax.system.nested import flat


def test_the_default_config_is_the_table_and_the_methods_options():
    c = default_config()
    options = {f"unlearn.{name}.{key}" for name, method in METHODS.items()
               for key in method.options}
    sections = {name for name, key in KEYS.items() if key.default == {}}
    assert set(flat(c.to_dict())) == (set(KEYS) - sections) | options
    for name, key in KEYS.items():
        value = get(c, name)
        assert (value.to_dict() if name in sections else value) == key.default, name


def test_open_sections_are_each_configs_own():
    c = default_config()
    with c.unlocked():
        c.compare.unlearn.ft = {"learning_rate": 1.0}
    assert default_config().compare.unlearn.to_dict() == {} == KEYS["compare.unlearn"].default


@pytest.mark.parametrize("name", KEYS)
def test_each_key_has_a_meaning_of_a_line_and_says_what_it_allows(name):
    key = KEYS[name]
    assert 4 < len(key.meaning) < 140 and "\n" not in key.meaning and key.meaning[-1] != "."
    assert allowed_text(key)
    assert isinstance(key.allowed, Elements) == isinstance(key.default, tuple)
    if isinstance(key.allowed, Range):
        assert key.allowed.low <= key.default <= key.allowed.high
    elif isinstance(key.allowed, tuple):
        assert key.default in key.allowed


@pytest.mark.parametrize("name, text", [
    ("train.optimizer", "'adam', 'sgd'"),
    ("data.fraction", "from 1e-06 to 1"),
    ("data.size", "at least 20"),
    ("data.split", "a tuple of float of length 3, each at least 0, or 'given'"),
    ("seeds", "a tuple of int, not empty, each at least 0"),
    ("unlearn.epochs", "a tuple of int, not empty, each at least 0, each at most 1000000"),
    ("data.flip", "True or False"),
    ("data.path", "text"),
    ("unlearn.from_seed", "a whole number"),
    ("model.output_offset", "a finite number"),
    ("thesis.unlearn", "a section"),
])
def test_what_is_allowed_in_words(name, text):
    assert allowed_text(KEYS[name]) == text

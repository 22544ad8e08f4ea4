import ml_collections
import pytest

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods.options import check_ranges

OPTIONS = ml_collections.ConfigDict(dict(alpha=0.5, steps=3))


@pytest.mark.parametrize("ranges", [dict(alpha=(0, 1)), dict(alpha=(0.5, 0.5), steps=(3, 3)),
                                    dict(steps=(1, float("inf"))), {}])
def test_what_lies_within_passes_with_both_ends(ranges):
    check_ranges("toy", OPTIONS, ranges)


@pytest.mark.parametrize("alpha, high, words", [
    (-0.1, 1, "config.unlearn.toy.alpha is -0.1; allowed: from 0 to 1"),
    (1.1, 1, "is 1.1; allowed: from 0 to 1"),
    (-2.0, float("inf"), "is -2.0; allowed: at least 0"),
    (float("nan"), 1, "is nan"),
    (float("inf"), float("inf"), "is inf"),
])
def test_what_does_not_is_named(alpha, high, words):
    with pytest.raises(ConfigError) as e:
        check_ranges("toy", ml_collections.ConfigDict(dict(alpha=alpha)), dict(alpha=(0, high)))
    assert words in str(e.value)

"""Functions that are made from equal parts are one function, which JAX then traces once.

JAX finds what it has traced and compiled by the identity of a function. A step that is made again
from the same network, optimiser and loss is a new function and would be traced again, which takes
seconds for each program of a population.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")
_CLEAR: list[Callable[[], None]] = []


def made_once(make: Callable[P, T]) -> Callable[P, T]:
    """Decorator of a function that makes functions: equal arguments give the same result again.

    The last 16 results, and their arguments, are kept. Arguments without a hash, such as a network
    with a list, give a new result each time.

    Args:
      make: its result depends on its arguments alone, and holds no large array.
    """
    cache = functools.lru_cache(maxsize=16, typed=True)(make)
    kept = cast(Callable[P, T], cache)
    _CLEAR.append(cache.cache_clear)

    @functools.wraps(make)
    def find(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            hash((args, *kwargs.values()))
        except TypeError:
            return make(*args, **kwargs)
        return kept(*args, **kwargs)

    return find


def clear() -> None:
    """Forgets all results: after code from outside, and in tests that change what is traced."""
    for cache_clear in _CLEAR:
        cache_clear()

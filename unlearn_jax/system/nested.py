"""Nested dicts, such as configs: their dotted keys, and the differences of two."""

from collections.abc import Iterator
from typing import Any


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict as {dotted key: value}; empty sections leave nothing."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {
            f"{prefix}{key}": value}
    return leaves


def filled(tree: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """A nested dict with the defaults of the keys that it lacks."""
    return {**tree, **{
        key: default if key not in tree else filled(tree[key], default)
        for key, default in defaults.items()
        if key not in tree or (isinstance(default, dict) and isinstance(tree[key], dict))}}


def differing(first: Any, second: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields the differences of two JSON values, as (dotted key, first value, second value).

    Lists of dicts of equal length are compared item by item, counted from 1; otherwise their
    lengths are the difference. Other lists are values. A missing value is None, and does not differ
    from None.
    """
    if first == second:
        return
    if isinstance(first, dict) and isinstance(second, dict):
        for name in dict.fromkeys([*second, *first]):
            yield from differing(first.get(name), second.get(name), f"{key}.{name}".strip("."))
    elif _of_dicts(first) and _of_dicts(second):
        if len(first) != len(second):
            yield key, len(first), len(second)
        else:
            for number, (one, other) in enumerate(zip(first, second), 1):
                yield from differing(one, other, f"{key}.{number}")
    else:
        yield key, first, second


def _of_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)

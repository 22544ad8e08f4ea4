"""Dotted keys, and in what two nested values differ."""

import pytest

from unlearn_jax.system.nested import differing, filled, flat


def test_dotted_keys():
    assert flat({"a": 1, "b": {"c": (2, 3), "d": {"e": None}, "f": {}}}) == {
        "a": 1, "b.c": (2, 3), "b.d.e": None}


@pytest.mark.parametrize("first, second, found", [
    ({"a": 1}, {"a": 1}, []),
    ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, [("a.c", 2, 3)]),
    ({"a": 1, "b": 2}, {"b": 2, "c": 3}, [("c", None, 3), ("a", 1, None)]),
    ({"a": {"b": 1}}, {"a": 4}, [("a", {"b": 1}, 4)]),
    ({"seeds": [0, 1]}, {"seeds": [0, 2, 3]}, [("seeds", [0, 1], [0, 2, 3])]),
    ({"runs": [{"n": 1}, {"n": 2}]}, {"runs": [{"n": 1}, {"n": 3}]}, [("runs.2.n", 2, 3)]),
    ({"runs": [{"n": 1}]}, {"runs": [{"n": 1}, {"n": 3}]}, [("runs", 1, 2)]),
    (1, 2, [("", 1, 2)]),
    ({"a": None}, {}, []),
])
def test_what_two_values_differ_in(first, second, found):
    assert list(differing(first, second)) == found


def test_defaults_fill_what_is_missing_and_change_nothing_else():
    defaults = {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": {"g": 4}}
    assert filled({"a": 9, "b": {"d": {}}, "f": 5, "old": 6}, defaults) == {
        "a": 9, "b": {"c": 2, "d": {"e": 3}}, "f": 5, "old": 6}

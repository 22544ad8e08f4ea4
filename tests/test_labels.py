import numpy as np
import pytest

from unlearn_jax.labels import find_class, find_integer, find_number, find_range, histogram


def test_every_sample_is_counted_once():
    labels = 30 + np.arange(60) * 1e-5
    found = histogram(labels)
    assert sum(found.values()) == 60 and len(found) > 50
    assert all(np.float32(key) in labels.astype(np.float32) for key in found)
    # the labels of the source and those of the data set have the same names
    assert histogram(labels.astype(np.float32)) == found


def test_labels_are_written_as_people_write_them():
    assert histogram(np.array([20, 20.5, 0.1, -3, 1234567, 1234568, 20])) == {
        "-3": 1, "0.1": 1, "20": 2, "20.5": 1, "1234567": 1, "1234568": 1}
    assert list(histogram(np.array([3, 10, 3], np.int32)).items()) == [("3", 2), ("10", 1)]
    assert histogram(np.zeros(0)) == {}


@pytest.mark.parametrize("given, found", [("cat", 0), ("1", 1), ("2", 2), ("0", 0), ("3", None),
                                          ("-1", None), ("hen", None), ("", None),
                                          ("\uff11", None)])
def test_a_class_by_name_or_else_by_number(given, found):
    assert find_class(given, ("cat", "dog", "cow")) == found


@pytest.mark.parametrize("names", [("1", "2", "3"), ("cat", "dog", "1"), ("-1", "1.5", "1e3")])
def test_no_number_stands_for_a_class_where_a_name_is_one(names):
    assert find_class("0", names) is None and find_class("2", names) == (
        1 if "2" in names else None)
    assert [find_class(name, names) for name in names] == [0, 1, 2]


@pytest.mark.parametrize("text, number, integer", [
    ("12", 12, 12), ("-7", -7, -7), ("+3", 3, 3), ("007", 7, 7), ("30.5", 30.5, None),
    ("-.5", -0.5, None), ("2.", 2, None), ("1e2", 100, None), ("2_0", None, None),
    ("0_1", None, None), ("\uff12\uff10", None, None), ("\u0662", None, None), ("", None, None),
    ("nan", None, None), ("inf", None, None), ("1e999", None, None), (" 1", None, None),
    ("1\n", None, None), ("0x10", None, None), ("1,5", None, None), ("9-Mar", None, None),
])
def test_a_number_is_written_in_one_way(text, number, integer):
    assert find_number(text) == number and find_integer(text) == integer


@pytest.mark.parametrize("given, found", [
    ("20-28", (20, 28)), ("1.5-2", (1.5, 2)), ("-20--10", (-20, -10)), ("20", None),
    ("20-28-36", None), ("a-b", None), ("class:20-28", None), ("\uff12-3", None)])
def test_ranges(given, found):
    assert find_range(given) == found

import numpy as np
import pytest

from unlearn_jax.labels import find_class, find_range, histogram


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


@pytest.mark.parametrize("given, found", [("cat", 0), ("1", 2), ("2", 2), ("0", 0), ("3", None),
                                          ("-1", None), ("hen", None), ("", None)])
def test_a_class_by_name_or_else_by_number(given, found):
    assert find_class(given, ("cat", "dog", "1")) == found


@pytest.mark.parametrize("given, found", [
    ("20-28", (20, 28)), ("1.5-2", (1.5, 2)), ("-20--10", (-20, -10)), ("20", None),
    ("20-28-36", None), ("a-b", None), ("class:20-28", None)])
def test_ranges(given, found):
    assert find_range(given) == found

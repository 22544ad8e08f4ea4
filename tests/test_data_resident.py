import numpy as np
import pytest

from unlearn_jax.data.augment import Augmentation, render_copies
from unlearn_jax.data.resident import Resident, Streamed, make_resident
from unlearn_jax.data.splits import Rows
from unlearn_jax.data.synthetic import load_synthetic

DATASET = load_synthetic(6, 8, 0, 0.0)
SETTINGS = Augmentation(10.0, 0.1, 0.2, True)


def rows(source, copy):
    return Rows(np.array(source, np.int32), np.array(copy, np.int32))


def test_rows_find_their_images_and_labels():
    balanced = rows([0, 1, 1, 1, 5], [0, 0, 1, 2, 3])
    resident, index = make_resident(DATASET, balanced, SETTINGS, seed=4)
    assert resident.images.shape == (6 + 3, 8, 8, 3) and resident.images.dtype == np.uint8
    found = index(balanced)
    np.testing.assert_array_equal(found, [0, 1, 6, 7, 8])
    drawn = render_copies(DATASET.images, np.array([1, 1, 5], np.int32),
                          np.array([1, 2, 3], np.int32), 4, SETTINGS)
    np.testing.assert_array_equal(resident.images[6:], drawn)
    np.testing.assert_array_equal(np.asarray(resident.labels)[found],
                                  DATASET.labels[balanced.source])


def test_a_subset_in_any_order_finds_the_same_images():
    balanced = rows([0, 2, 2, 4, 4, 4], [0, 0, 1, 0, 1, 2])
    _, index = make_resident(DATASET, balanced, SETTINGS, seed=0)
    np.testing.assert_array_equal(index(rows([4, 2, 3], [2, 1, 0])), [8, 6, 3])


def test_without_copies_the_rows_are_the_data_set():
    resident, index = make_resident(DATASET, rows(range(6), [0] * 6), SETTINGS, seed=0)
    assert len(resident.images) == 6
    np.testing.assert_array_equal(index(rows([3, 1], [0, 0])), [3, 1])


def test_what_has_no_room_stays_on_the_host_under_the_same_rows():
    balanced = rows([0, 1, 1, 5], [0, 1, 2, 3])
    size = (6 + 3) * 8 * 8 * 3
    resident, index = make_resident(DATASET, balanced, SETTINGS, 4, most_bytes=size)
    streamed, index_too = make_resident(DATASET, balanced, SETTINGS, 4, most_bytes=size - 1)
    assert isinstance(resident, Resident) and isinstance(streamed, Streamed)
    assert streamed.images is DATASET.images  # which may be mapped from a file
    np.testing.assert_array_equal(index(balanced), index_too(balanced))
    np.testing.assert_array_equal(resident.labels, streamed.labels)
    asked = np.array([[8, 0, ~6], [5, ~0, 7]], np.int32)
    expected = np.asarray(resident.images)[[[8, 0, 6], [5, 0, 7]]]
    np.testing.assert_array_equal(streamed.read(asked), expected)
    np.testing.assert_array_equal(streamed.read(np.array([3, ~3])), DATASET.images[[3, 3]])


@pytest.mark.parametrize("balanced", [rows([1], [1]), rows([0], [0])])
def test_a_copy_that_was_never_drawn_is_an_error(balanced):
    _, index = make_resident(DATASET, balanced, SETTINGS, seed=0)
    with pytest.raises(KeyError, match="copy 2 of sample 3 was never drawn"):
        index(rows([3], [2]))

"""Splits where a list says what M_O from outside was trained on."""

import types

import numpy as np
import pytest
from test_splits import AGES, dataset

from unlearn_jax.data.dataset import Dropped
from unlearn_jax.data.seen import divide_by_list
from unlearn_jax.data.splits import make_splits
from unlearn_jax.errors import InputError


def config(seed=0, split=(0.6, 0.2, 0.2)):
    return types.SimpleNamespace(seed=seed, balance=0, split=split, inject="", source="synthetic",
                                 label_unit="", label_min=20.0, label_max=60.0)


def listed(tmp_path, rows, *more):
    path = tmp_path / "seen.txt"
    path.write_text("\n".join(["# a comment", "", *(f"id-{i:03d}" for i in rows), *more]) + "\n")
    return str(path)


def divided(path, data=None, requests=("20-22",), **settings):
    return make_splits(data or dataset(AGES), config(**settings),
                       types.SimpleNamespace(sets=requests), path)


def test_the_listed_samples_are_the_training_split_and_the_others_are_drawn(tmp_path):
    found = divided(listed(tmp_path, range(60)), split=(0.5, 0.3, 0.2))
    assert found.train.tolist() == list(range(60)) and found.train.dtype == np.int32
    assert (len(found.validation), len(found.test)) == (24, 16)  # 3 to 2
    assert sorted([*found.validation, *found.test]) == list(range(60, 100))
    (forget_set,) = found.forget_sets
    assert set(forget_set.train) == {i for i in range(60) if AGES[i] <= 22}
    assert not set(forget_set.peers) & set(range(60)) and found.rows.source.max() < 60
    again, other = divided(listed(tmp_path, range(60)), split=(0.5, 0.3, 0.2)), divided(
        listed(tmp_path, range(60)), split=(0.5, 0.3, 0.2), seed=1)
    np.testing.assert_array_equal(found.test, again.test)
    assert found.test.tolist() != other.test.tolist()


def test_given_splits_keep_their_unseen_test_samples(tmp_path):
    parts = tuple(np.arange(a, b, dtype=np.int32) for a, b in ((0, 60), (60, 80), (80, 100)))
    train, validation, test = divide_by_list(
        dataset(AGES), parts, config(split=("given",)),
        listed(tmp_path, [*range(50), 60, 81]))
    assert train.tolist() == [*range(50), 60, 81]
    assert test.tolist() == [80, *range(82, 100)]
    assert validation.tolist() == [*range(50, 60), *range(61, 80)]


def test_samples_that_were_left_out_of_the_data_may_be_listed(tmp_path):
    data = dataset(AGES, dropped=(Dropped("broken", "read", "truncated"),))
    assert divided(listed(tmp_path, range(60), "broken"), data).train.tolist() == list(range(60))


@pytest.mark.parametrize("rows, more, said", [
    (range(60), ("xyz", "id-7"), "2 of 62 ids are unknown: 'xyz', 'id-7'\nids look like 'id-000'"),
    ((), (), "the file lists no sample id"),
    (range(100), (), "lists 100 of the 100 samples, which leaves no validation sample\nallowed"),
    (range(99), (), "lists 99 of the 100 samples, which leaves no validation sample\nallowed"),
])
def test_a_list_that_cannot_be_used_is_refused(tmp_path, rows, more, said):
    with pytest.raises(InputError, match="config.original.trained_on=") as refused:
        divided(listed(tmp_path, rows, *more))
    assert said in str(refused.value)


def test_a_list_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read .*give a text file"):
        divided(str(tmp_path / "none.txt"))

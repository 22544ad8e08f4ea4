"""Ids as a file of requests spells them, and the ids of the data set that they name."""

import types
import unicodedata

import numpy as np
import pytest
from test_splits import AGES, dataset, splits

from unlearn_jax.data.asked import match, unknown_in_words
from unlearn_jax.data.splits import make_splits
from unlearn_jax.errors import InputError

COMPOSED, SPLIT = (unicodedata.normalize(form, "faces/é ü.jpg") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("known, line", [(COMPOSED, SPLIT), (SPLIT, COMPOSED),
                                         (COMPOSED, COMPOSED), (SPLIT, SPLIT)])
def test_either_unicode_form_names_an_id(known, line):
    assert COMPOSED != SPLIT
    (asked,) = match([line], ["a", known])
    assert (asked.text, asked.times, asked.found) == (line, 1, (known,))


def test_two_files_of_both_forms_are_two_samples():
    """On Linux they are two files; the same bytes name one of them."""
    assert match([SPLIT], [COMPOSED, SPLIT])[0].found == (SPLIT,)
    mixed = "faces/" + unicodedata.normalize("NFC", "é") + unicodedata.normalize("NFD", " ü.jpg")
    assert match([mixed], [COMPOSED, SPLIT])[0].found == tuple(sorted([COMPOSED, SPLIT]))


def test_ids_given_twice_are_counted_in_any_form():
    asked = match([SPLIT, "a", COMPOSED, "absent", "a", "a", "absent"], ["a", "b", COMPOSED])
    assert [(a.text, a.times, a.found) for a in asked] == [
        (SPLIT, 2, (COMPOSED,)), ("a", 3, ("a",)), ("absent", 2, ())]


def test_comments_do_not_count_unless_they_are_ids():
    asked = match(["# all of them", "#1", "#" + SPLIT], ["#1", "#" + COMPOSED])
    assert [a.found for a in asked] == [("#1",), ("#" + COMPOSED,)]


def test_an_id_copied_from_a_csv_file_is_understood():
    """CSV files have an apostrophe before a text that a spreadsheet would run."""
    assert match(["'=1.jpg"], ["=1.jpg"])[0].found == ("=1.jpg",)
    assert match(["'=1.jpg"], ["=1.jpg", "'=1.jpg"])[0].found == ("'=1.jpg",)


def test_unknown_ids_are_all_in_the_message(tmp_path):
    data, unknown = dataset(AGES), [f"absent {i}" for i in range(40)]
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(["id-001", *unknown]))
    with pytest.raises(InputError) as error:
        splits(data, f"ids:{path}")
    lines = str(error.value).split("\n")
    assert len(lines) == 2 and "40 of 41 ids are unknown" in lines[0]
    assert all(repr(name) in lines[0] for name in unknown)
    assert "config.forget.unknown='skip'" in lines[1] and "unlearn-jax list ids" in lines[1]


def test_skip_goes_on_without_the_unknown_ids(tmp_path):
    data = dataset(AGES)
    train = splits(data).train
    path = tmp_path / "ids.txt"
    path.write_text(f"absent\n{data.ids[train[0]]}\nabsent too\n")
    cfg = types.SimpleNamespace(seed=0, balance=0, split=(0.6, 0.2, 0.2), inject="",
                                source="synthetic", label_unit="", label_min=20.0, label_max=60.0)
    (f,) = make_splits(data, cfg, types.SimpleNamespace(sets=(f"ids:{path}",), unknown="skip")
                       ).forget_sets
    assert f.train.tolist() == train[:1].tolist() and f.untrained == ""
    assert f.skipped == ("2 of 3 ids are unknown: 'absent', 'absent too'; they were skipped "
                         "(config.forget.unknown)")
    assert [a.found for a in f.asked] == [(), (data.ids[train[0]],), ()]
    path.write_text("absent\n")
    with pytest.raises(InputError, match="selects no training sample"):
        make_splits(data, cfg, types.SimpleNamespace(sets=(f"ids:{path}",), unknown="skip"))


def test_no_unknown_id_makes_no_note():
    assert unknown_in_words(match(["a"], ["a"])) == ""
    assert splits(dataset(AGES), "20-22").forget_sets[0].skipped == ""
    assert np.array_equal(splits(dataset(AGES), "20-22").forget_sets[0].asked, ())

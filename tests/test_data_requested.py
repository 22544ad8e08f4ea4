"""requests.csv: where the ids of a request were found, and their equal images."""

import types

import numpy as np
import pytest
from test_splits import AGES, dataset, splits

from unlearn_jax.data.dataset import Dropped
from unlearn_jax.data.requested import BETWEEN, COLUMNS, has_requests, request_rows

SETTINGS = types.SimpleNamespace(source="folder", path="images.csv")
PLAIN = splits(dataset(AGES))
IDS = dataset(AGES).ids.astype("U20")
TRAIN, VALIDATION, TEST = (IDS[rows].tolist() for rows in (PLAIN.train, PLAIN.validation,
                                                           PLAIN.test))


def rows_of(tmp_path, lines, twins=(), **changes):
    """The rows by id, for a file of these lines; `twins` are pairs of ids with equal images."""
    first = np.arange(len(AGES), dtype=np.int32)
    for one, other in twins:
        first[np.flatnonzero(IDS == other)] = np.flatnonzero(IDS == one)
    data = dataset(AGES, twins=first, **changes)
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(lines))
    rows = list(request_rows(data, splits(data, f"ids:{path}", "20-22"), SETTINGS))
    assert all(set(row) == set(COLUMNS) and row["forget_set"] == "ids-ids" for row in rows)
    return rows


def test_each_id_is_found_in_its_split(tmp_path):
    lines = [TRAIN[0], VALIDATION[0], TEST[0], "old.jpg", "dark.jpg", TRAIN[0]]
    rows = rows_of(tmp_path, lines, left_out_ids=np.array(["old.jpg"]),
                   dropped=(Dropped("dark.jpg", "quality", "too dark: 3"),))
    assert [r["asked"] for r in rows] == lines[:-1]
    assert [r["times"] for r in rows] == [2, 1, 1, 1, 1]
    assert [r["split"] for r in rows] == ["train", "validation", "test", "left out", "dropped"]
    assert [r["trained_on"] for r in rows] == ["yes", "no", "no", "no", "no"]
    assert rows[4]["why"] == "quality: too dark: 3" and "fraction" in rows[3]["why"]
    assert rows[0]["file"] == TRAIN[0] and not any(r["equal_images"] for r in rows)


def test_equal_images_that_were_not_asked_for_are_named(tmp_path):
    rows = rows_of(tmp_path, [TRAIN[0], TEST[0], TRAIN[5]],
                   twins=[(TRAIN[0], TRAIN[1]), (TRAIN[0], TEST[1]), (TEST[0], TRAIN[2])])
    by_id = {r["id"]: r for r in rows}
    assert by_id[TRAIN[0]]["equal_images"] == BETWEEN.join(sorted([TRAIN[1], TEST[1]]))
    assert by_id[TRAIN[0]]["image_retained"] == "yes"  # M_R learns TRAIN[1], the same picture
    # Of a test sample a model was trained on the picture, under another id.
    assert (by_id[TEST[0]]["trained_on"], by_id[TEST[0]]["image_trained_on"]) == ("no", "yes")
    assert by_id[TRAIN[5]]["image_retained"] == "no"
    unasked = [r for r in rows if not r["asked"]]
    assert sorted(r["id"] for r in unasked) == sorted([TRAIN[1], TEST[1], TRAIN[2]])
    assert all(r["times"] == 0 and r["equal_images"] for r in unasked)


def test_two_equal_images_that_were_both_asked_for(tmp_path):
    rows = rows_of(tmp_path, TRAIN[:2], twins=[(TRAIN[0], TRAIN[1])])
    assert [r["equal_images"] for r in rows] == [TRAIN[1], TRAIN[0]]
    assert all(r["image_retained"] == "no" and r["asked"] for r in rows)


@pytest.mark.parametrize("asked, other", [("copy.jpg", TRAIN[3]), (TRAIN[3], "copy.jpg")])
def test_a_dropped_repeat_is_an_equal_image(tmp_path, asked, other):
    """data.repeats='drop' keeps one of equal images, under which the models learned both."""
    reason = f"the same pixels as another image, under another label: {TRAIN[3]}"
    rows = rows_of(tmp_path, [asked, TRAIN[0]], dropped=(Dropped("copy.jpg", "repeats", reason),))
    by_id = {r["id"]: r for r in rows}
    assert by_id[asked]["equal_images"] == other and by_id[other]["asked"] == ""
    assert by_id["copy.jpg"]["split"] == "dropped" and by_id["copy.jpg"]["trained_on"] == "no"
    assert by_id["copy.jpg"]["image_trained_on"] == "yes"
    assert by_id[asked]["image_retained"] == ("yes" if asked == "copy.jpg" else "no")


def test_other_forget_sets_have_no_rows():
    data = dataset(AGES)
    found = splits(data, "20-22", "random:0.1")
    assert list(request_rows(data, found, SETTINGS)) == []
    assert not has_requests(found.forget_sets)

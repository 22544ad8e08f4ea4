"""Splits, balancing and forget sets, on data sets small enough to count by hand."""

import dataclasses
import types

import numpy as np
import pytest

from unlearn_jax.data.dataset import Dataset, Dropped
from unlearn_jax.data.splits import balanced_rows, judging_half, make_splits
from unlearn_jax.errors import InputError
from unlearn_jax.members import Member, Pass


def dataset(labels, task="regression", class_names=(), attributes=None, **changes):
    n = len(labels)
    return Dataset(
        name="toy", images=np.zeros((n, 4, 4, 3), np.uint8),
        labels=np.asarray(labels, np.float32 if task == "regression" else np.int32),
        ids=np.array([f"id-{i:03d}" for i in range(n)]), task=task, label_unit="years",
        num_classes=len(class_names), class_names=class_names,
        attributes={k: np.asarray(v, np.int32) for k, v in (attributes or {}).items()},
        histograms={}, fingerprint="", **{"dropped": (), **changes})


def splits(data, *requests, seed=0, balance=0, split=(0.6, 0.2, 0.2), source="synthetic",
           label_min=20.0, label_max=60.0):
    cfg = types.SimpleNamespace(seed=seed, balance=balance, split=split, inject="", source=source,
                                label_unit="", label_min=label_min, label_max=label_max)
    return make_splits(data, cfg, types.SimpleNamespace(sets=requests))


AGES = np.tile(np.arange(20, 30), 10)  # ten people of each age from 20 to 29


def test_sizes_are_the_studys():
    s = splits(dataset(np.full(5014, 30)))
    assert (len(s.train), len(s.validation), len(s.test)) == (3008, 1003, 1003)


def test_splits_are_disjoint_sorted_complete_and_seeded():
    s = splits(dataset(AGES))
    parts = (s.train, s.validation, s.test)
    assert [len(p) for p in parts] == [60, 20, 20]
    assert all(p.dtype == np.int32 and (np.diff(p) > 0).all() for p in parts)
    assert sorted(np.concatenate(parts)) == list(range(100))
    again, other = splits(dataset(AGES)), splits(dataset(AGES), seed=1)
    assert (again.train == s.train).all() and (again.test == s.test).all()
    assert (other.train != s.train).any()
    assert not (s.train == np.arange(60)).all()


def test_without_balancing_rows_are_the_training_split():
    s = splits(dataset(AGES))
    assert (s.rows.source == s.train).all() and not s.rows.copy.any()


def test_balancing_by_hand():
    # rows 0..2 are 20, rows 3..7 are 21, row 8 is 22, row 9 (not in training) is 20
    labels = np.array([20, 20, 20, 21, 21, 21, 21, 21, 22, 20])
    rows = balanced_rows(labels, np.arange(9), 4, seed=0)
    assert rows.source.dtype == rows.copy.dtype == np.int32
    # 20: one copy of one of its three; 21: above 4, untouched; 22: three copies of the one
    assert np.bincount(labels[rows.source])[20:].tolist() == [4, 5, 4]
    by_source = {s: rows.copy[rows.source == s].tolist() for s in range(9)}
    assert sorted(by_source[s] for s in range(3)) == [[0], [0], [0, 1]]
    assert all(by_source[s] == [0] for s in range(3, 8))
    assert by_source[8] == [0, 1, 2, 3]


def test_copies_spread_evenly_and_the_odd_ones_by_chance():
    counts = [np.bincount(balanced_rows(np.full(7, 30.0), np.arange(7), 24, seed).source)
              for seed in range(8)]
    # 17 copies for 7 samples: two each and three for three of them
    assert all(sorted(c) == [3, 3, 3, 3, 4, 4, 4] for c in counts)
    assert len({tuple(c) for c in counts}) > 1


def test_labels_between_integers_share_a_group():
    rows = balanced_rows(np.array([20.0, 20.5, 20.9]), np.arange(3), 6, seed=0)
    assert np.bincount(rows.source).tolist() == [2, 2, 2]


def test_range_is_inclusive_and_never_takes_test_samples():
    data = dataset(AGES, attributes={"gender": AGES % 2})
    s = splits(data, "20-22", balance=8)
    (f,) = s.forget_sets
    assert (f.name, f.request) == ("20-22", "20-22")
    wanted = {i for i in range(100) if 20 <= AGES[i] <= 22}
    assert set(f.train) == wanted & set(s.train)
    assert set(f.validation) == wanted & set(s.validation)
    assert set(s.forget(f)) == wanted - set(s.test)
    assert set(s.retain_train(f)) == set(s.train) - wanted
    assert set(s.retain_validation(f)) == set(s.validation) - wanted
    assert s.forget(f).dtype == s.retain_train(f).dtype == np.int32
    # copies go with their source; what is kept and what goes make up the whole
    keep, go = s.retain_rows(f), s.forget_rows(f)
    assert not (AGES[keep.source] <= 22).any() and (AGES[go.source] <= 22).all()
    assert go.copy.any() and keep.copy.any()
    pairs = [*zip(keep.source, keep.copy), *zip(go.source, go.copy)]
    assert sorted(pairs) == sorted(zip(s.rows.source, s.rows.copy))


def test_no_forget_set_retains_everything():
    s = splits(dataset(AGES), "20-22", balance=8)
    assert (s.retain_rows(None).source == s.rows.source).all()
    assert (s.retain_train(None) == s.train).all()
    assert (s.retain_validation(None) == s.validation).all()
    assert len(s.forget_rows(None).source) == 0


def test_range_with_decimals():
    s = splits(dataset(np.tile([20.25, 20.5, 20.75, 21], 25)), "20.5-20.75")
    assert set(np.tile([20.25, 20.5, 20.75, 21], 25)[s.forget(s.forget_sets[0])]) == {20.5, 20.75}


@pytest.mark.parametrize("request_, name, number", [
    ("class:cat", "class-cat", 0), ("class:0", "class-0", 0), ("class:big dog", "class-big-dog", 1),
    ("class:2", "class-2", 2),
])
def test_class(request_, name, number):
    labels = np.arange(90) % 3
    s = splits(dataset(labels, "classification", ("cat", "big dog", "hen")), request_)
    assert s.forget_sets[0].name == name
    assert set(s.forget(s.forget_sets[0])) == set(np.flatnonzero(labels == number)) - set(s.test)


def test_where_class_names_are_numbers_the_name_counts():
    labels, names = np.arange(240) % 12, tuple(str(n) for n in range(1, 13))
    data = dataset(labels, "classification", names)
    chosen = splits(data, "class:1", "class:12")
    assert [set(labels[chosen.forget(f)]) for f in chosen.forget_sets] == [{0}, {11}]
    with pytest.raises(InputError, match="'class:0' .* names no class; allowed: class:NAME with "
                                         "one of 1, 2, 3"):
        splits(data, "class:0")


@pytest.mark.parametrize("request_", ["random:0_1", "random:0.\uff12", "race:\uff12", "race:1_0",
                                      "2\uff10-28", "race:" + "1" * 5000])
def test_numbers_of_requests_are_plain_ones(request_):
    with pytest.raises(InputError, match="not understood|needs a share"):
        splits(dataset(AGES, attributes={"race": np.arange(100) % 12}), request_)


def test_a_name_too_long_for_files_is_refused():
    name = "c" * 200
    with pytest.raises(InputError, match="files would be called after 'class-c+'; allowed: up to"):
        splits(dataset(np.arange(60) % 2, "classification", (name, "b")), f"class:{name}")


def test_attribute():
    race = np.arange(100) % 5
    s = splits(dataset(AGES, attributes={"race": race}), "race:2")
    assert s.forget_sets[0].name == "race-2"
    assert set(s.forget(s.forget_sets[0])) == set(np.flatnonzero(race == 2)) - set(s.test)


def test_random_share_of_training_and_validation():
    data = dataset(np.tile(AGES, 10))
    s = splits(data, "random:0.02", "random:0.1")
    small, large = (s.forget(f) for f in s.forget_sets)
    assert [f.name for f in s.forget_sets] == ["random-0.02", "random-0.1"]
    assert (len(small), len(large)) == (16, 80)  # of 800
    assert set(small) < set(large) and not set(large) & set(s.test)
    again, other = splits(data, "random:0.02"), splits(data, "random:0.02", seed=1)
    assert (again.forget(again.forget_sets[0]) == small).all()
    assert set(other.forget(other.forget_sets[0])) != set(small)


def test_ids_file(tmp_path):
    data = dataset(AGES)
    s = splits(data)
    wanted = [*s.train[:3], *s.validation[:2]]
    path = tmp_path / "my requests.txt"
    path.write_text("# deletion requests\n\n" + "\n".join(f"  {data.ids[i]} " for i in wanted))
    f = splits(data, f"ids:{path}").forget_sets[0]
    assert f.name == "ids-my-requests"
    assert f.train.tolist() == s.train[:3].tolist()
    assert f.validation.tolist() == s.validation[:2].tolist()
    assert f.untrained == ""


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x0c"])
def test_only_the_ends_of_lines_end_ids(tmp_path, end):
    data = dataset(AGES)
    ids = data.ids.astype("U20")
    ids[splits(data).train[0]] = f"a{end}b.png"
    data = dataclasses.replace(data, ids=ids)
    path = tmp_path / "ids.txt"
    path.write_text(f"a{end}b.png\r\n", encoding="utf-8", newline="")
    assert data.ids[splits(data, f"ids:{path}").forget_sets[0].train].tolist() == [f"a{end}b.png"]


def test_an_id_may_look_like_a_comment(tmp_path):
    data = dataset(AGES)
    ids = data.ids.astype("U20")
    ids[splits(data).train[:2]] = "#1.png", "#2.png"
    data = dataclasses.replace(data, ids=ids)
    path = tmp_path / "ids.txt"
    path.write_text("#1.png\n# two of them:\n#2.png\n")
    assert data.ids[splits(data, f"ids:{path}").forget_sets[0].train].tolist() == [
        "#1.png", "#2.png"]
    path.write_text("# two of them:\n")
    with pytest.raises(InputError, match="lists no sample id"):
        splits(data, f"ids:{path}")


def test_ids_never_trained_on_are_counted(tmp_path):
    data = dataset(AGES, dropped=(Dropped("blurred.jpg", "quality", "blurred"),),
                   left_out_ids=np.array(["old.jpg", "young.jpg"]))
    s = splits(data)
    path = tmp_path / "ids.txt"
    path.write_text("\n".join([data.ids[s.train[0]], *data.ids[s.test[:4]], "old.jpg",
                               "blurred.jpg"]))
    f = splits(data, f"ids:{path}").forget_sets[0]
    assert f.train.tolist() == [s.train[0]] and not len(f.validation)
    assert (f.in_test, f.left_out) == (4, 2)
    assert "6 of the ids" in f.untrained and "4 are in the test split, 2 were left" in f.untrained


def test_every_name_can_begin_a_file_name():
    data = dataset(np.arange(-20, 20).repeat(5), attributes={"_x": np.arange(200) % 2})
    for request, name in (("-20--10", "labels-20--10"), ("_x:1", "labels_x-1"), ("3-7", "3-7")):
        f = splits(data, request).forget_sets[0]
        assert f.name == name and len(f.train)


@pytest.mark.parametrize("content, message", [
    ("id-001\nabsent\nabsent too\nx\ny\n",
     r"4 of 5 ids are unknown: 'absent', 'absent too', 'x', 'y'\nids look like 'id-000' "),
    ("# nothing\n\n", "lists no sample id"),
    (None, "cannot be read"),
])
def test_bad_ids_files(tmp_path, content, message):
    path = tmp_path / "ids.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        splits(dataset(AGES), f"ids:{path}")


def test_ids_of_test_samples_alone_are_an_error(tmp_path):
    data = dataset(AGES)
    (tmp_path / "ids.txt").write_text("\n".join(data.ids[splits(data).test]))
    with pytest.raises(InputError, match="selects no training sample"):
        splits(data, f"ids:{tmp_path / 'ids.txt'}")


@pytest.mark.parametrize("request_, message", [
    ("70-80", r"'70-80'.* selects no training sample .*within 20 to 29"),
    ("28-20", "'28-20'.* has its ends reversed; give 20-28"),
    ("28.5--2", "has its ends reversed; give -2-28.5"),
    ("20-29", "selects all 60 training samples, so that none is retained"),
    ("0-99", "selects all 60 training samples"),
    ("gender:7", r"selects no training sample .*gender:NUMBER with one of 0, 1"),
    ("gender:male", "'gender:male'.* is not understood; allowed: .*gender:NUMBER"),
    ("hair:1", r"'hair:1'.* is not understood; allowed: .*random:SHARE; ids:FILE"),
    ("class:3", "a regression has no classes; allowed: a range of labels within 20 to 29, "),
    ("random:2", "needs a share between 0 and 1"),
    ("random:much", "needs a share between 0 and 1"),
    ("random:nan", "needs a share between 0 and 1"),
    ("random:0.001", "selects no training sample of 60; one of the 80 .* is a share of 0.013"),
    ("random:", "is not understood"),
    ("ids:", "is not understood"),
    ("20 to 28", "is not understood"),
    ("", "is not understood"),
])
def test_impossible_requests(request_, message):
    with pytest.raises(InputError, match=message):
        splits(dataset(AGES, attributes={"gender": AGES % 2}), request_)


@pytest.mark.parametrize("request_, message", [
    ("20-28", "'20-28'.* is not understood; allowed: class:NAME with one of cat, dog"),
    ("class:bird", "names no class; allowed: class:NAME with one of cat, dog"),
    ("class:2", "names no class"),
    ("class:-1", "names no class"),
])
def test_impossible_requests_of_a_classification(request_, message):
    with pytest.raises(InputError, match=message):
        splits(dataset(np.arange(50) % 2, "classification", ("cat", "dog")), request_)


def test_no_validation_sample_retained():
    ages = np.full(20, 20)
    s = splits(dataset(ages))
    ages[s.train[:5]] = 30  # all of validation stays 20
    with pytest.raises(InputError, match="selects all 4 validation samples"):
        splits(dataset(ages), "20-20")


def test_equal_names_are_refused(tmp_path):
    data = dataset(AGES)
    trained = data.ids[splits(data).train[:2]]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ids.txt").write_text("\n".join(trained))
    with pytest.raises(InputError, match="share the name 'ids-ids'"):
        splits(data, f"ids:{tmp_path}/a/ids.txt", f"ids:{tmp_path}/b/ids.txt")


def test_one_set_under_two_spellings_is_refused():
    with pytest.raises(InputError, match="'20-28' and '20-28.0', which select the same 7. samples"):
        splits(dataset(AGES), "20-28", "random:0.1", "20-28.0")


def test_one_id_is_no_plural():
    data = dataset(AGES, left_out_ids=np.array(["old.jpg"]))
    f = dataclasses.replace(splits(data, "20-22").forget_sets[0], in_test=0, left_out=1)
    assert f.untrained == ("1 of the ids asked for was never trained on: 0 are in the test split, "
                           "1 was left out of the data set")


def test_too_few_samples():
    with pytest.raises(InputError, match=r"config.data.split .* leaves no validation sample of 2"):
        splits(dataset([20, 21]))


def test_peers_are_the_test_samples_that_a_request_describes():
    ages = splits(dataset(AGES), "20-24", "random:0.1")
    described, everybody = (f.peers for f in ages.forget_sets)
    np.testing.assert_array_equal(described, ages.test[AGES[ages.test] <= 24])
    assert 0 < len(described) < len(ages.test)
    np.testing.assert_array_equal(everybody, ages.test)


def test_a_method_trains_on_no_validation_sample_that_a_comparison_chooses_by():
    validation = np.array([1, 4, 5, 8, 9], np.int32)
    member = Member(0, "", np.zeros(1, np.int32), validation, np.zeros(0, np.int32))
    walked = Pass("validation").draw(member, np.random.default_rng(0))
    assert sorted([*walked, *judging_half(validation)]) == validation.tolist()
    assert abs(len(walked) - len(judging_half(validation))) <= 1

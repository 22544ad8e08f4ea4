import dataclasses
import zlib

import jax
import numpy as np
import pytest
from toy import LinearModel, layout, members, recipe

from unlearn_jax.engine.recipe import epoch_batches, init_members, member_keys
from unlearn_jax.members import WALKS, Pass

MODEL = LinearModel()


def test_seeds_decide_the_start_and_forget_sets_do_not():
    variables = init_members(MODEL, layout(), [0, 1, 0])
    w = variables["params"]["w"]
    np.testing.assert_array_equal(w[0], w[2])
    assert np.abs(w[0] - w[1]).max() > 0.1


def test_an_epoch_visits_every_sample_once():
    member = members()[1]
    batches, _ = epoch_batches(member, "toy", 0, 8)
    assert batches.shape == (3, 8)
    assert sorted(batches[batches >= 0]) == list(range(17))
    # the fill is of samples of the member itself
    assert set(~batches[batches < 0]) <= set(range(17))
    (again, _), (later, _) = (epoch_batches(member, "toy", e, 8) for e in (0, 1))
    np.testing.assert_array_equal(batches, again)
    assert (batches != later).any()
    assert (batches != epoch_batches(member, "other", 0, 8)[0]).any()


def test_passes_follow_each_other_with_their_kinds():
    member = members()[1]  # 17 samples to retain, 7 to forget
    passes = lambda epoch: (Pass("forget", kind=3), Pass("retain", kind=1)) if epoch == 0 \
        else (Pass("all"), Pass("validation", kind=2))
    rows, kinds = epoch_batches(member, "toy", 0, 8, passes)
    np.testing.assert_array_equal(kinds, [3, 1, 1, 1])
    assert sorted(rows[0][rows[0] >= 0]) == list(range(17, 24))
    assert sorted(rows[1:][rows[1:] >= 0]) == list(range(17))
    rows, kinds = epoch_batches(member, "toy", 1, 8, passes)
    np.testing.assert_array_equal(kinds, [0, 0, 0, 2])
    assert sorted(rows[:3][rows[:3] >= 0]) == list(range(24))
    # half of the validation samples: a comparison chooses by the other
    assert sorted(rows[3:][rows[3:] >= 0]) == list(range(30, 40, 2))


def test_paired_batches_hold_half_of_either_set():
    member = members()[1]
    rows, _ = epoch_batches(member, "toy", 0, 8, lambda e: (Pass("retain+forget"),))
    assert rows.shape == (5, 8)
    assert sorted(rows[:, :4][rows[:, :4] >= 0]) == list(range(17))
    assert (rows[:, 4:] >= 17).all()
    # D_f is gone over evenly: 20 places for 7 samples
    assert set(np.unique(rows[:, 4:], return_counts=True)[1]) <= {2, 3}
    rows, _ = epoch_batches(member, "toy", 0, 8, lambda e: (Pass("forget+retain"),))
    assert rows.shape == (2, 8)
    assert sorted(rows[:, 4:][rows[:, 4:] >= 0]) == list(range(17, 24))
    assert (rows[:, :4] < 17).all() and len(np.unique(rows[:, :4])) == 8
    with pytest.raises(ValueError, match="an even batch size, not 7"):
        epoch_batches(member, "toy", 0, 7, lambda e: (Pass("retain+forget"),))
    with pytest.raises(ValueError, match="no samples to pair"):
        epoch_batches(members()[0], "toy", 0, 8, lambda e: (Pass("retain+forget"),))


def test_a_share_is_drawn_anew_each_epoch():
    member = members()[0]
    third = lambda e: (Pass("retain", share=0.3),)
    first, second = (epoch_batches(member, "toy", e, 8, third)[0] for e in (0, 1))
    assert (first >= 0).sum() == (second >= 0).sum() == 8  # 30 % of 24, rounded up
    assert set(first.ravel()) != set(second.ravel())
    for bad in (dict(over="both"), dict(over="all", share=0.0), dict(over="all", share=1.5)):
        with pytest.raises(ValueError, match="allowed"):
            Pass(**bad)


def test_batches_filled_in_part_are_more_and_hold_copies_of_their_own_samples():
    member = members()[1]  # 17 samples to retain
    quarter = lambda e: (Pass("retain", fill=0.25),)
    rows, _ = epoch_batches(member, "toy", 0, 8, quarter)
    assert rows.shape == (9, 8) and rows.dtype == np.int32
    np.testing.assert_array_equal((rows >= 0).sum(1), [2] * 8 + [1])
    assert sorted(rows[rows >= 0]) == list(range(17))
    for own in rows:  # whatever a batch's statistics are, they are those of its two places
        seen = np.where(own < 0, ~own, own)
        np.testing.assert_array_equal(seen, np.tile(seen[:2], 4))
    small, _ = epoch_batches(member, "toy", 0, 2, lambda e: (Pass("retain"),))
    np.testing.assert_array_equal(rows[:, :2], small)
    r = recipe(passes=quarter, batch_size=8)
    assert (r.steps(member, quarter(0)), r.images(member, quarter(0))) == (9, 17)
    uneven, _ = epoch_batches(member, "toy", 0, 8, lambda e: (Pass("retain", fill=0.4),))
    assert uneven.shape == (6, 8) and (uneven >= 0).sum() == 17  # three places of eight
    for bad in (dict(over="all", fill=0.0), dict(over="all", fill=1.5),
                dict(over="retain+forget", fill=0.5)):
        with pytest.raises(ValueError, match="allowed"):
            Pass(**bad)


def test_a_mixed_walk_holds_all_of_d_f_and_a_share_of_d_r():
    member = members()[1]  # 17 samples to retain, 7 to forget
    mixed = lambda e: (Pass("mixed", share=0.3),)
    first, second = (epoch_batches(member, "toy", e, 4, mixed)[0] for e in (0, 1))
    for rows in (first, second):
        assert rows.shape == (4, 4) and len(np.unique(rows[rows >= 0])) == 13
        assert sorted(rows[rows >= 17]) == list(range(17, 24))  # and 6 of D_r
        # one walk, not one set after the other
        assert 0 < (rows[:2] >= 17).sum() < 7
    assert set(first[first >= 0]) != set(second[second >= 0])
    whole, _ = epoch_batches(member, "toy", 0, 4, lambda e: (Pass("mixed"),))
    assert sorted(whole[whole >= 0]) == list(range(24))
    assert recipe(batch_size=4).steps(member, mixed(0)) == 4


def test_where_a_mixed_walk_puts_d_f_is_chance():
    member = members()[1]
    places = np.zeros(13)
    for epoch in range(400):
        rows, _ = epoch_batches(member, "toy", epoch, 13, lambda e: (Pass("mixed", share=0.3),))
        places += rows[0] >= 17
    # expected 400 * 7 / 13 = 215, sd 10
    assert 170 < places.min() and places.max() < 260


def test_a_recipe_counts_its_steps():
    # 17 samples to retain, 7 to forget: the second epoch has D_f once and D_r beside half batches
    r = recipe(passes=lambda e: (Pass("forget"), Pass("retain+forget"))[:1 + e % 2])
    member = members()[1]
    assert [r.steps(member, r.passes(e)) for e in (0, 1)] == [1, 1 + 5]
    assert r.kinds_of_epochs == {r.passes(0): 2, r.passes(1): 1}
    assert (r.all_steps(member), r.longest_epoch(member)) == (1 + 6 + 1, 6)
    assert r.all_images(member) == 3 * 7 + 17 + 5 * 4
    never = dataclasses.replace(r, epochs=0)
    assert (never.all_steps(member), never.longest_epoch(member)) == (0, 0)


@pytest.mark.parametrize("p", [
    *map(Pass, WALKS), Pass("retain+forget", share=0.3), Pass("forget+retain", share=0.5),
    Pass("mixed", share=0.3)], ids=str)
def test_images_are_counted_as_they_are_walked_over(p):
    r, member = recipe(passes=lambda e: (p, Pass("retain"))), members()[1]
    walked = [(epoch_batches(member, "toy", e, 8, r.passes)[0] >= 0).sum() for e in range(3)]
    assert [r.images(member, r.passes(e)) for e in range(3)] == walked
    assert r.all_images(member) == sum(walked)


def test_the_union_of_a_members_sets_is_made_once(monkeypatch):
    member, made = members()[1], []
    union = np.union1d
    monkeypatch.setattr(np, "union1d", lambda *sets: made.append(sets) or union(*sets))
    for epoch in range(3):
        epoch_batches(member, "toy", epoch, 8, lambda e: (Pass("all"), Pass("mixed", share=0.3)))
    assert len(made) == 1


def test_the_keys_of_members_are_those_of_singles(monkeypatch):
    chosen = [dataclasses.replace(members()[0], seed=s) for s in (0, 1, 2**31 - 1, 2**31, 3)]
    keys = jax.random.key_data(member_keys("toyb", chosen))
    stream = zlib.crc32(b"toyb")
    assert stream >= 2**31  # no int32
    for key, member in zip(keys, chosen):
        own = jax.random.fold_in(jax.random.fold_in(jax.random.key(member.seed), 1), stream)
        np.testing.assert_array_equal(key, jax.random.key_data(own))
    monkeypatch.setattr(jax.random, "fold_in", None)  # compiled by now
    assert (member_keys("toyb", chosen) == member_keys("toyb", chosen)).all()


def test_a_million_epochs_are_counted_once(monkeypatch):
    asked = []
    monkeypatch.setattr(Pass, "count", lambda self, member: asked.append(member) or 20)
    assert recipe(epochs=10**6).all_steps(members()[0]) == 3 * 10**6
    assert len(asked) == 1

"""What every method must do, on both tasks: preparation, passes and steps as the engine runs them.

Each test runs for all of METHODS; tests/methods_case.py has the population.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from methods_case import (
    BATCH,
    DRAWS,
    MEMBERS,
    OTHER_KEY,
    Walked,
    flat,
    linear_batch,
    linear_setting,
    linear_state,
    make_setting,
    member,
    walk,
)
from toy import recipe, tree_close

from configs import common
from unlearn_jax.config import TASKS, check_config
from unlearn_jax.data.splits import trained_half
from unlearn_jax.engine.recipe import epoch_batches
from unlearn_jax.errors import InputError
from unlearn_jax.members import WALKS, Pass
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.method import Setting
from unlearn_jax.stages.models import dialled

# A scheme (SISA) trains models of its own, with tests of its own.
CASES = [(name, task) for name in METHODS for task in TASKS if not METHODS[name].scheme]
# The members of a case, two in each call of its program. The first comes again in the other place,
# beside another member.
ONE, OTHER, REKEYED, AGAIN = range(4)


@dataclasses.dataclass(frozen=True)
class Case:
    """A method that has run for an epoch on a task: two members, the first with another key, and
    the first again."""

    name: str
    task: str
    setting: Setting
    walked: Walked


@functools.cache
def refusal(name, task):
    """What the method's `check` says against the task; '' if nothing."""
    try:
        if METHODS[name].check:
            METHODS[name].check(make_setting(name, task))
    except InputError as e:
        return str(e)
    return ""


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
    name, task = request.param
    if refusal(name, task):
        pytest.skip(refusal(name, task))
    setting = make_setting(name, task)
    members = (*MEMBERS, OTHER_KEY, MEMBERS[0])
    return Case(name, task, setting, walk(setting, members, per_device=2,
                                          counted=task == TASKS[0]))


@pytest.mark.parametrize("name", METHODS)
def test_a_task_is_refused_by_its_name_and_never_both(name):
    said = [refusal(name, task) for task in TASKS]
    assert "" in said
    assert all("data.task" in words for words in said if words)


def test_an_epoch_is_finite_and_moves_every_member(case):
    snapshots, after = case.walked.trained.snapshots, case.walked.after
    assert not snapshots[max(snapshots)].failed.any()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
    start, after = flat(case.walked.start["params"]), flat(after["params"])
    for m in range(4):
        assert any((after[path][m] != start[path][m]).any() for path in start)


def test_the_same_key_gives_the_same_to_the_bit_beside_any_other_member(case):
    tree_close(member(case.walked.after, ONE), member(case.walked.after, AGAIN), rtol=0)
    tree_close(member(case.walked.prepared.context, ONE),
               member(case.walked.prepared.context, AGAIN), rtol=0)


def test_another_key_changes_what_is_drawn_and_nothing_else(case):
    one, other = (flat(member(case.walked.after, m)) for m in (ONE, REKEYED))
    # In another order the same sums round differently.
    same = all(np.allclose(one[path], other[path], rtol=1e-4, atol=1e-5) for path in one)
    assert same == (case.name not in DRAWS)


def test_frozen_parameters_stay_to_the_bit_under_weight_decay(case):
    start, after = flat(case.walked.start), flat(case.walked.after)
    trains = flat(case.setting.model.trainable(member(case.walked.start["params"], ONE)))
    frozen = [f"params/{path}" for path, free in trains.items() if not free]
    frozen += [path for path in start if path.startswith("batch_stats/stage1_block1/norm1/")]
    assert len(frozen) == 5 and case.setting.config.weight_decay > 0
    for path in frozen:
        np.testing.assert_array_equal(after[path], start[path], path)


def test_zero_epochs_change_nothing_but_what_is_prepared(case):
    untrained = case.walked.trained.snapshots[0].variables
    tree_close(untrained, case.walked.prepared.variables, rtol=0)
    if METHODS[case.name].prepare is None:
        tree_close(untrained, case.walked.start, rtol=0)
        assert case.walked.prepared.context is None


# With the plain step, random draws, gradients of single samples, and kinds of batches. That no
# member depends on another one is tested for all methods (`..._beside_any_other_member`).
@pytest.mark.parametrize("name", ["ft", "rnd", "ssd", "scrub"])
def test_a_population_of_two_equals_two_singles(name):
    setting = make_setting(name, "regression")
    both, singles = (walk(setting, MEMBERS, per_device=n).after for n in (2, 1))
    for m in (ONE, OTHER):
        tree_close(member(both, m), member(singles, m), rtol=1e-4, atol=1e-5)


def test_the_books_count_what_was_walked_over(case):
    trained, preparation = case.walked.trained, case.walked.preparation
    last = trained.snapshots[max(trained.snapshots)]
    passes = METHODS[case.name].passes(case.setting, 0) if METHODS[case.name].make_step else ()
    for m, own in enumerate((*MEMBERS, OTHER_KEY, MEMBERS[0])):
        assert last.images[m] == sum(p.images(own, BATCH) for p in passes)
        assert (last.flops[m] > 0) == bool(passes)
    if METHODS[case.name].prepare is None:
        assert not preparation.images.any()


@pytest.mark.parametrize("name", METHODS)
def test_published_values_and_options_are_allowed_by_the_config(name):
    method, c = METHODS[name], common.unlearning("utkface", name)
    check_config(c)
    for key, value in method.published.items():
        assert c.unlearn[key] == value
    assert set(method.shared_keys) <= set(c.unlearn)
    assert method.source and method.start in ("original", "initial")
    if method.options:
        assert c.unlearn[name].to_dict() == dict(method.options)
    if method.check:
        own = c.unlearn[name] if method.options else None
        method.check(dataclasses.replace(make_setting(name, "regression"), config=c.unlearn,
                                         options=own))


@pytest.mark.parametrize("name", METHODS)
def test_passes_are_legal_and_the_published_batch_can_be_halved(name):
    batch_size = METHODS[name].published.get("batch_size", 64)
    for epoch in range(12):
        passes = METHODS[name].passes(make_setting(name, "regression"), epoch)
        assert passes and all(isinstance(p, Pass) for p in passes)
        assert batch_size % 2 == 0 or not any(p.paired for p in passes)


def test_where_methods_start_and_what_they_walk_over():
    found = {n: (METHODS[n].start, *(p.over for p in METHODS[n].passes(None, 0)))
             for n in ("retrain", "ft", "rnd")}
    assert found == {"retrain": ("initial", "retain"), "ft": ("original", "retain"),
                     "rnd": ("original", "all")}


def test_ft_and_retrain_do_the_plain_step():
    args = (jax.random.key(0), linear_state(), linear_batch([False] * 8), 0.05)
    plain = recipe().step(*args)
    for name in ("ft", "retrain"):
        other = METHODS[name].make_step(linear_setting(name))(*args)
        tree_close(plain[0].variables, other[0].variables, rtol=1e-6)


@pytest.mark.parametrize("over", WALKS)
def test_a_batch_of_the_first_member_holds_whole_copies_of_what_it_walks_over(over):
    one = MEMBERS[0]
    rows, _ = epoch_batches(one, "run", 0, BATCH, lambda epoch: (Pass(over),))
    assert rows.shape == (1, BATCH)
    found, copies = np.unique(np.where(rows < 0, ~rows, rows), return_counts=True)
    both = ("retain", "forget")
    parts = {"all": both, "mixed": both}.get(over, over.split("+"))
    walked = [trained_half(one.validation) if p == "validation" else getattr(one, p) for p in parts]
    np.testing.assert_array_equal(found, np.sort(np.concatenate(walked)))
    assert len(set(copies)) == 1


@pytest.mark.parametrize("name, task", [case for case in CASES if METHODS[case[0]].make_step])
def test_the_guard_need_not_read_the_weights_of_a_methods_step_again(name, task):
    if refusal(name, task):
        pytest.skip(refusal(name, task))
    setting = make_setting(name, task)
    assert METHODS[name].make_step(setting).vouched
    assert dialled(METHODS[name].make_step, setting).vouched

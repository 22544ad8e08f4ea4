"""Trials of a comparison that differ in traced values share one population and one program."""

import jax
import numpy as np
import pytest
from sisa_study import DATA, SEEDS, forget, make_study

from unlearn_jax.config import variants
from unlearn_jax.engine.programs import Programs
from unlearn_jax.methods import find_method
from unlearn_jax.stages import compare, models, populations
from unlearn_jax.stages.graph import original_stage
from unlearn_jax.storage import checkpoints

FORGET_SETS = (forget("few", range(0, 60, 6)), forget("other", range(1, 60, 4)))


def one_by_one(wanted, original):
    for variant in wanted:
        models.unlearn_missing([variant], original)


def run_trials(store, monkeypatch, method, epochs=(1, 1), apart=False):
    """Three trials of a method: stages by forget set, variables, populations and programs."""
    study = make_study(store, *FORGET_SETS, compare__trials=3, unlearn__batch_size=8)
    study.dataset.labels = np.asarray(DATA.labels)
    original = original_stage(study)
    models.train_missing(study, [original])
    trials = variants.make_trials(study.config, method)
    sizes, compiled = [], []
    train, compile_ = populations.train_population, Programs.compile

    def counted(recipe, model, layout, resident, members, *args):
        sizes.append(len(members))
        return train(recipe, model, layout, resident, members, *args)

    def noted(self, carry, inputs):
        compiled.append(self.recipe.name)
        return compile_(self, carry, inputs)

    with monkeypatch.context() as m:
        m.setattr(populations, "train_population", counted)
        m.setattr(Programs, "compile", noted)
        if apart:
            m.setattr(compare, "unlearn_variants", one_by_one)
        found = compare._run_trials(
            study, original, compare.Contender(method, find_method(method), trials, ""),
            {f.name: variants.Budget(e) for f, e in zip(FORGET_SETS, epochs)})
    stages = [stage for by_set in found for stage in by_set.values()]
    trained = [checkpoints.restore(s.directory(study.store) / "checkpoint") for s in stages]
    return found, trained, sizes, compiled


@pytest.mark.parametrize("method, exact", [("ft", True), ("neggrad_plus", False)])
def test_trials_of_one_population_are_the_trials_alone(tmp_path, monkeypatch, method, exact):
    """To the bit; an option that the program reads at run time is rounded at another place."""
    found, trained, sizes, compiled = run_trials(tmp_path / "a", monkeypatch, method)
    assert sizes == [3 * len(SEEDS) * len(FORGET_SETS)] and compiled == [method]
    others, alone, sizes, compiled = run_trials(tmp_path / "b", monkeypatch, method, apart=True)
    assert sizes == [len(SEEDS) * len(FORGET_SETS)] * 3 and compiled == [method] * 3
    assert [list(by_set) for by_set in found] == [["few", "other"]] * 3
    assert [[s.key for s in by_set.values()] for by_set in found] == \
        [[s.key for s in by_set.values()] for by_set in others]
    for (mine, said), (theirs, said_alone) in zip(trained, alone, strict=True):
        for name in ("images", "step", "failed", "epochs_trained"):
            np.testing.assert_array_equal(said[name], said_alone[name])
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
            if exact:
                np.testing.assert_array_equal(a, b)
            else:
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    weights = [np.asarray(variables["params"]["w"]) for variables, _ in trained]
    assert len({w.tobytes() for w in weights}) == len(weights), "each trial has its own rate"


def test_forget_sets_of_other_budgets_have_a_population_each(tmp_path, monkeypatch):
    found, _, sizes, _ = run_trials(tmp_path, monkeypatch, "ft", epochs=(2, 1))
    assert sizes == [3 * len(SEEDS)] * 2
    assert [{name: s.epochs for name, s in by_set.items()} for by_set in found] == [
        {"other": 1, "few": 2}] * 3

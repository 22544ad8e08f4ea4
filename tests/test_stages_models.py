"""Who trains on what: no retrained or fine-tuned member may see a forgotten sample."""

import types

import jax
import numpy as np
import pytest

from unlearn_jax.config import default_config
from unlearn_jax.data import load
from unlearn_jax.data.augment import Augmentation
from unlearn_jax.data.resident import make_resident
from unlearn_jax.data.splits import make_splits
from unlearn_jax.methods import METHODS
from unlearn_jax.models import build_model
from unlearn_jax.stages.graph import Stage, make_member
from unlearn_jax.stages.models import _label_space, make_unlearning, train_recipe
from unlearn_jax.stages.populations import shortened, snapshot_of
from unlearn_jax.train import make_loss

FORGET_SETS = ("20-28", "gender:1")
ON_RETAIN = ["retrain", "ft", "l1_sparse"]
ON_BOTH = ["rnd", "salun", "gaussian_amnesiac"]


class Case:
    """A balanced data set whose copies are not changed, so that pixels tell whose they are."""

    def __init__(self, cache):
        c = default_config()
        with c.unlocked():
            c.data.update(size=150, image_size=12, balance=5)
            c.forget.sets = FORGET_SETS
        self.data = load(c.data, cache)
        self.splits = make_splits(self.data, c.data, c.forget)
        unchanged = Augmentation(0.0, 0.0, 0.0, False)
        self.resident, index = make_resident(self.data, self.splits.rows, unchanged, c.data.seed)
        self.study = types.SimpleNamespace(config=c, dataset=self.data, splits=self.splits,
                                           resident=self.resident, index=index)
        number = {image.tobytes(): i for i, image in enumerate(self.data.images)}
        assert len(number) == len(self.data.images)
        self.sources = np.array([number[i.tobytes()] for i in np.asarray(self.resident.images)])

    def member(self, request):
        return make_member(self.study, 0, self.forget_set(request))

    def original(self):
        return make_member(self.study, 0, None)

    def forget_set(self, request):
        return self.splits.forget_sets[FORGET_SETS.index(request)]

    def forgotten(self, request):
        """The data set rows that ask to be forgotten, read off the labels; no test sample."""
        labels, gender = self.data.labels, self.data.attributes["gender"]
        asks = {"20-28": (labels >= 20) & (labels <= 28), "gender:1": gender == 1}[request]
        return set(np.flatnonzero(asks)) - set(self.splits.test)

    def resident_rows_of(self, samples):
        """The resident rows that show training samples, copies among them."""
        return set(np.flatnonzero(np.isin(self.sources, sorted(samples & set(self.splits.train)))))


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    case = Case(tmp_path_factory.mktemp("cache"))
    assert len(case.sources) == len(case.resident.labels) > len(case.data.labels)
    labels = case.data.labels[case.sources]
    np.testing.assert_array_equal(labels, case.resident.labels)
    return case


def walked(member, method="retrain"):
    """The resident rows of an epoch, each once."""
    (only,) = METHODS[method].passes(None, 0)
    rows = only.rows(member)
    assert rows.dtype == np.int32 and len(set(rows)) == len(rows)
    return set(rows)


def test_the_original_walks_over_the_whole_balanced_training_set(case):
    member = case.original()
    assert walked(member) == case.resident_rows_of(set(case.splits.train))
    assert len(member.retain) == len(case.splits.rows.source) > len(case.splits.train)
    assert set(member.validation) == set(case.splits.validation)
    assert not len(member.forget) and member.forget_set == ""


@pytest.mark.parametrize("request_", FORGET_SETS)
@pytest.mark.parametrize("method", ON_RETAIN)
def test_methods_of_the_retain_set_walk_over_it_alone(case, method, request_):
    member, forgotten = case.member(request_), case.forgotten(request_)
    assert not set(case.sources[member.retain]) & forgotten
    assert walked(member, method) == case.resident_rows_of(set(case.splits.train) - forgotten)


@pytest.mark.parametrize("request_", FORGET_SETS)
@pytest.mark.parametrize("method", ON_BOTH)
def test_methods_that_relabel_walk_over_everything(case, method, request_):
    member, forgotten = case.member(request_), case.forgotten(request_)
    assert set(case.sources[list(walked(member, method))]) >= forgotten & set(case.splits.train)
    assert walked(member, method) == case.resident_rows_of(set(case.splits.train))


@pytest.mark.parametrize("request_", FORGET_SETS)
def test_the_flags_are_the_forget_set_with_its_copies(case, request_):
    member, forgotten = case.member(request_), case.forgotten(request_)
    assert set(member.forget) == case.resident_rows_of(forgotten)
    assert len(member.forget) > len(forgotten & set(case.splits.train))
    assert member.forget_set == case.forget_set(request_).name


@pytest.mark.parametrize("request_", FORGET_SETS)
def test_models_are_chosen_by_retained_validation_samples(case, request_):
    member, forgotten = case.member(request_), case.forgotten(request_)
    assert forgotten & set(case.splits.validation)
    assert set(case.sources[member.validation]) == set(case.splits.validation) - forgotten


@pytest.mark.parametrize("method, states", [("ft", 0), ("reset", 2), ("kgltop1", 3)])
def test_a_method_has_the_optimiser_states_that_it_asks_for(case, method, states):
    c = case.study.config.copy_and_resolve_references()
    with c.unlocked():
        c.unlearn.update(method=method, optimizer="sgd")
    study = types.SimpleNamespace(config=c, dataset=case.data, splits=case.splits,
                                  model=build_model(c.model, 12, 0), loss=make_loss("mae", 40.0))
    optimizer = make_unlearning(study).setting.optimizer
    (trace,) = jax.tree.leaves(optimizer.init({"w": np.zeros((5,))}))
    assert trace.shape == ((states, 5) if states else (5,))


def test_methods_know_the_labels_of_the_training_split_without_copies(case):
    space = make_unlearning(types.SimpleNamespace(
        config=case.study.config, dataset=case.data, splits=case.splits,
        model=build_model(case.study.config.model, 12, 0),
        loss=make_loss("mae", 40.0))).setting.labels
    labels = case.data.labels[case.splits.train]
    assert (space.low, space.high, space.num_classes, space.frequencies) == (20, 60, 0, ())
    np.testing.assert_allclose([space.mean, space.std], [labels.mean(), labels.std()])
    classes = types.SimpleNamespace(
        config=case.study.config, splits=types.SimpleNamespace(train=np.array([0, 1, 3, 5])),
        dataset=types.SimpleNamespace(labels=np.array([2, 0, 1, 2, 1, 2]), num_classes=4))
    assert _label_space(classes).frequencies == (0.25, 0.0, 0.75, 0.0)


def test_no_member_sees_the_test_split(case):
    members = [case.original()] + [case.member(f) for f in FORGET_SETS]
    for member in members:
        for rows in (member.retain, member.validation, member.forget):
            assert not set(case.sources[rows]) & set(case.splits.test)


@pytest.mark.parametrize("keep, snapshots", [("best", ()), ("last", (7,))])
def test_originals_and_retrained_models_are_taken_after_all_epochs(case, keep, snapshots):
    case.study.config.train.update(epochs=7, keep=keep)
    study = types.SimpleNamespace(**vars(case.study), loss=make_loss("mae", 40.0),
                                  model=build_model(case.study.config.model, 12, 0))
    stages = [Stage("original", None, 0, {}), Stage("retrain", case.forget_set("20-28"), 7, {})]
    recipe = shortened(train_recipe(study), stages)
    case.study.config.train.update(epochs=12, keep="best")
    assert (recipe.epochs, recipe.snapshots) == (7, snapshots)
    assert [snapshot_of(s, recipe) for s in stages] == [7, 7]

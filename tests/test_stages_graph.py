"""Keys: what a model depends on moves its key, and nothing else does."""

import dataclasses
import types

import numpy as np
import pytest

from unlearn_jax.config import check_config, default_config, get
from unlearn_jax.data.splits import ForgetSet
from unlearn_jax.errors import InputError
from unlearn_jax.methods import METHODS, find_method
from unlearn_jax.stages import graph
from unlearn_jax.stages.graph import original_stage, retrain_stage, unlearn_stages

FORGET = ForgetSet("20-28", "20-28", np.array([0, 2]), np.array([5]))
DATASET = types.SimpleNamespace(fingerprint="a" * 32, num_classes=0,
                                ids=np.array([f"id-{i}" for i in range(9)]))
EVERYTHING = {"original", "retrain", "unlearn"}

# They change what is loaded; `_study` fixes its fingerprint, through which alone they count.
THROUGH_THE_FINGERPRINT = {
    "data.source", "data.path", "data.size", "data.image_size", "data.label_noise",
    "data.fraction", "data.repeats", "data.quality", "data.quality_sharpness",
    "data.quality_contrast", "data.quality_brightness", "data.groups", "data.ids"}
# They change how often and what is written, and no model.
WITHOUT_EFFECT = {"train.checkpoint_seconds", "train.tensorboard", "train.log",
                  "model.own_preprocess",
                  "data.label_unit",
                  "data.split_shares"}  # shows in the digest of given splits
# Random labels come from the range, which the fingerprint does not show.
UNLEARNED_ONLY = {"data.label_min", "data.label_max"}
OPTIONS = {f"unlearn.{option}" for option in METHODS["rnd"].shared_keys}
# What `rnd` does not read: keys of other methods.
UNREAD = {"unlearn.spread"}

# Where the rules of `_another` give no legal value.
OTHER_VALUES = {
    "data.source": "digits", "data.path": "elsewhere", "data.ids": "original",
    "data.label_unit": "days",
    "data.task": "classification",
    "data.split": (0.5, 0.3, 0.2), "data.split_shares": (0.5, 0.3, 0.2),
    "data.label_min": 21, "data.label_max": 59,
    "data.repeats": "drop", "data.quality": "on", "model.name": "resnet18",
    "model.variant": "keras",
    "model.stem": "small", "model.output": "linear", "model.preprocess": "torch",
    "model.dtype": "bfloat16", "model.frozen": ("head",), "model.output_scale": 50.0,
    "model.output_offset": 15.0, "train.optimizer": "sgd", "train.schedule": "cosine",
    "train.loss": "mse", "train.log": "tensorboard",
    "unlearn.method": "ft", "unlearn.optimizer": "sgd",
    "unlearn.schedule": "constant", "unlearn.labels": "uniform",
    "unlearn.label_units": "as_published", "data.inject": "patch:20-30:4",
    "train.class_weights": "balanced", "train.keep": "last", "train.recalibrate_norms": "on",
    "unlearn.from_seed": 1,
    "data.groups": (20.0, 40.0),
    "eval.audits": ("lira",), "eval.explain_baseline": "black",
    "compare.methods": ("ft",), "compare.budget": "wall",
    "compare.rank_by": "F", "parallel.resident": "stream",
    "parallel.convolution": "loop"}


def _config(**changes):
    """A config in which every key counts: copies are drawn, and `rnd` reads all its options."""
    c = default_config()
    with c.unlocked():
        c.data.balance = 5
        c.model.update(head_widths=(8,), head_dropout=(0.1,), output_scale=45.0,
                       own_preprocess=True)
        c.unlearn.method = "rnd"
    c.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return c


def _leaves(sections):
    return [f"{section}.{key}" for section in sections for key, value in
            default_config()[section].items() if not hasattr(value, "items")]


def _another(key, value):
    if key == "model.pretrained":
        return "a file of weights"
    if key in OTHER_VALUES:
        return OTHER_VALUES[key]
    if isinstance(value, tuple):
        return tuple(_another(key, v) for v in value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value / 2 if value else 0.1


def _study(config, **dataset):
    return types.SimpleNamespace(config=config, seeds=config.seeds,
                                 dataset=types.SimpleNamespace(**{**vars(DATASET), **dataset}),
                                 splits=types.SimpleNamespace(rows=types.SimpleNamespace(
                                     source=np.arange(1800))))


def _keys(study, forget_set=FORGET):
    original = original_stage(study)
    unlearned = unlearn_stages(study, original, forget_set)
    return {"original": original.key, "retrain": retrain_stage(study, original, forget_set).key,
            "unlearn": [(s.method, s.key) for s in unlearned]}


def _moved(before, after):
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize("key", _leaves(("data", "model", "train", "unlearn")))
def test_a_key_moves_the_models_that_depend_on_it(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file of weights").write_bytes(b"weights")
    with_key = {"data.source": "tfds:mnist"} if key == "data.ids" else {}  # which alone has ids
    base = _config(**with_key)
    changed = _config(**with_key, **{key: _another(key, get(base, key))})
    assert get(changed, key) != get(base, key)
    # legal along with another loss, task, split or network alone, which would move the keys too
    if key not in ("data.task", "data.groups", "data.split_shares", "model.resize_positions",
                   "train.class_weights"):
        check_config(changed)
    if key in THROUGH_THE_FINGERPRINT | WITHOUT_EFFECT | UNREAD:
        expected = set()
    elif key.startswith("unlearn.") or key in UNLEARNED_ONLY:
        expected = {"unlearn"}
    else:
        expected = EVERYTHING
    assert _moved(_keys(_study(base)), _keys(_study(changed))) == expected


@pytest.mark.parametrize("key", _leaves(("eval", "parallel", "compare")))
def test_what_is_measured_and_where_it_runs_moves_nothing(key):
    changed = _config(**{key: "cpu" if key == "parallel.backend" else
                         _another(key, get(_config(), key))})
    assert get(changed, key) != get(_config(), key)
    assert not _moved(_keys(_study(_config())), _keys(_study(changed)))


def test_the_exclusions_are_keys():
    leaves = set(_leaves(("data", "model", "train", "unlearn", "eval")))
    assert THROUGH_THE_FINGERPRINT | WITHOUT_EFFECT | UNLEARNED_ONLY | OPTIONS <= leaves
    assert OTHER_VALUES.keys() <= leaves | set(_leaves(("parallel", "compare")))


@pytest.mark.parametrize("dataset", [dict(fingerprint="b" * 32), dict(num_classes=7)])
def test_what_was_loaded_moves_everything(dataset):
    base = _config()
    assert _moved(_keys(_study(base)), _keys(_study(base, **dataset))) == EVERYTHING


def test_seeds_move_everything():
    assert _moved(_keys(_study(_config())), _keys(_study(_config(seeds=(0, 1))))) == EVERYTHING


@pytest.mark.parametrize("key", ["data.rotation", "data.shift", "data.zoom", "data.flip"])
def test_without_copies_their_settings_move_nothing(key):
    base = _config(data__balance=0)
    changed = _config(data__balance=0, **{key: _another(key, get(base, key))})
    assert get(changed, key) != get(base, key)
    assert not _moved(_keys(_study(base)), _keys(_study(changed)))


@pytest.mark.parametrize("key", sorted(OPTIONS))
def test_options_of_one_method_do_not_move_another(key):
    base = _config(unlearn__method="ft")
    changed = _config(unlearn__method="ft", **{key: _another(key, get(base, key))})
    assert not _moved(_keys(_study(base)), _keys(_study(changed)))


def test_each_budget_has_its_key_and_keeps_it():
    two, three = (
        {s.epochs: s.key for s in unlearn_stages(study, original_stage(study), FORGET)}
        for study in (_study(_config(unlearn__epochs=(2, 8))),
                      _study(_config(unlearn__epochs=(4, 8, 2)))))
    assert list(two) == [2, 8] and list(three) == [2, 4, 8]
    assert len(set(three.values())) == 3
    assert {e: three[e] for e in two} == two


@pytest.mark.parametrize("other", [
    ForgetSet("20-28", "20-28", np.array([0, 3]), np.array([5])),
    ForgetSet("20-28", "20-28", np.array([0, 2]), np.array([6])),
    ForgetSet("20-29", "20-29", np.array([0, 2]), np.array([5])),
])
def test_a_forget_set_counts_by_its_name_and_by_who_is_in_it(other):
    study = _study(_config())
    assert _moved(_keys(study), _keys(study, other)) == {"retrain", "unlearn"}


def test_a_forget_set_counts_by_ids_and_not_by_where_they_stand():
    config = _config()
    backward = _study(config, ids=DATASET.ids[::-1])
    same = ForgetSet("20-28", "20-28", np.array([8, 6]), np.array([3]))
    assert not _moved(_keys(_study(config)), _keys(backward, same))


def test_pretrained_weights_count_by_their_contents(tmp_path):
    paths = [tmp_path / name for name in ("a.h5", "b.h5", "c.h5")]
    for path, content in zip(paths, (b"weights", b"weights", b"others")):
        path.write_bytes(content)
    a, b, c = (_keys(_study(_config(model__pretrained=str(path)))) for path in paths)
    assert not _moved(a, b)
    assert _moved(a, c) == EVERYTHING
    with pytest.raises(InputError, match="config.model.pretrained is 'nowhere.h5'"):
        _keys(_study(_config(model__pretrained="nowhere.h5")))


def test_where_members_started():
    for seed, positions in ((-1, [0, 1]), (8, [1, 1])):
        study = _study(_config(seeds=(7, 8), unlearn__from_seed=seed))
        original = original_stage(study)
        for stage in unlearn_stages(study, original, FORGET):
            assert stage.started(study.seeds).tolist() == positions
        for other in (original, retrain_stage(study, original, FORGET)):
            assert other.started(study.seeds).tolist() == [0, 1]


def test_an_option_that_came_later_counts_where_it_is_used():
    def key(**options):
        c = _config()
        with c.unlocked():
            c.unlearn.method = "ssd"
            c.unlearn.ssd.update(options)
        return tuple(_keys(_study(c))["unlearn"])

    found = METHODS["ssd"]
    with pytest.MonkeyPatch.context() as patch:
        kept = {k: v for k, v in found.options.items() if k not in found.later}
        patch.setitem(METHODS, "ssd", dataclasses.replace(found, options=kept, later=()))
        c = _config()
        with c.unlocked():
            c.unlearn.method = "ssd"
        before = tuple(_keys(_study(c))["unlearn"])
    assert key() == before, "models of versions without the options are found"
    assert len({key(), key(importance="batch"), key(share=0.1), key(alpha=3.0)}) == 4
    with pytest.raises(ValueError, match="later=.'beta'.: none of the method's options"):
        dataclasses.replace(found, later=("beta",))


def test_a_method_whose_numbers_changed_has_other_keys(monkeypatch):
    study = _study(_config())
    before = _keys(study)
    found = find_method("rnd")
    changed = dataclasses.replace(found, method=dataclasses.replace(found.method, version=2))
    monkeypatch.setattr(graph, "find_method", lambda request: changed)
    assert _moved(before, _keys(study)) == {"unlearn"}


@pytest.mark.parametrize("section, moved", [("train", EVERYTHING), ("unlearn", {"unlearn"})])
def test_decay_through_momentum_is_told_from_that_of_earlier_versions(section, moved, monkeypatch):
    def keys(**changes):
        return _keys(_study(_config(**{f"{section}__{k}": v for k, v in changes.items()})))

    both = dict(optimizer="sgd", weight_decay=0.1, momentum=0.9)
    others = [{**both, **change} for change in (
        dict(optimizer="adam"), dict(weight_decay=0.0), dict(momentum=0.0))]
    now, unchanged = keys(**both), [keys(**other) for other in others]
    monkeypatch.setattr(graph, "_decay", lambda section: {})
    assert _moved(keys(**both), now) == moved
    assert [keys(**other) for other in others] == unchanged

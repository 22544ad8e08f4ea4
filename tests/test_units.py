"""Label units: what is meant in years keeps its value for years, and its share of other ranges."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_case import linear_setting
from test_data_folder import load, write_image
from test_splits import AGES, dataset, splits

from unlearn_jax import audits
from unlearn_jax.config import ConfigError, check_config, completed, default_config, get
from unlearn_jax.data.inject import InjectedGroup, Injection
from unlearn_jax.labels import strata
from unlearn_jax.methods.kgltop1 import comparable
from unlearn_jax.methods.method import LabelSpace
from unlearn_jax.methods.probabilities import class_logits, divergence
from unlearn_jax.methods.rnd import draw_labels
from unlearn_jax.results import Outcome, Targets
from unlearn_jax.units import label_step

IN_UNITS = ("unlearn.offset", "unlearn.spread", "eval.alphas", "eval.alpha", "eval.within",
            "model.output_scale", "model.output_offset")


def config(low, high, source="folder", **changes):
    c = default_config()
    c.data.update(source=source, label_min=low, label_max=high)
    with c.unlocked():
        c.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return c


def test_what_is_not_set_is_a_share_of_the_label_range():
    c = config(0, 1)
    found = completed(c)
    assert {key: get(found, key) for key in IN_UNITS} == {
        "unlearn.offset": (0.075, 0.15), "unlearn.spread": 0.125,
        "eval.alphas": (0.05, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875), "eval.alpha": 0.375,
        "eval.within": (0.125,), "model.output_scale": 1.0, "model.output_offset": 0.0}
    assert c == config(0, 1) and found.is_locked and completed(found) == found
    check_config(found)


@pytest.mark.parametrize("c", [
    config(20, 60), config(20, 60, "synthetic"), config(0, 116, "utkface"),
    config(0, 100, data__label_unit="years"), config(0, 1, data__task="classification")])
def test_years_and_classes_keep_the_values_of_the_study(c):
    assert completed(c) == c and label_step(c.data) == 1 or c.data.task == "classification"
    assert get(completed(c), "eval.alpha") == 15 and get(completed(c), "unlearn.offset") == (3, 6)


def test_what_is_set_by_hand_stays():
    found = completed(config(0, 10, eval__alpha=2.0, eval__alphas=(1.0, 2.0), unlearn__spread=1.0,
                             model__output_scale=12.0, model__output_offset=-1.0))
    assert (found.eval.alpha, found.eval.alphas, found.unlearn.spread) == (2.0, (1.0, 2.0), 1.0)
    assert (found.model.output_scale, found.model.output_offset) == (12.0, -1.0)
    assert (found.unlearn.offset, found.eval.within) == ((0.75, 1.5), (1.25,))
    check_config(found)


@pytest.mark.parametrize("key, value, allowed", [
    ("eval.alphas", (0.375, 14.0), "0.0001 to 1 with labels from 0 to 1"),
    ("eval.alpha", 14.0, "0.0001 to 1"), ("eval.within", (4.0,), "0 to 1"),
    ("unlearn.spread", 4.0, "0.00625 to 1"), ("unlearn.spread", 1e-5, "tells no labels apart"),
    ("unlearn.offset", (0.5, 3), "an end of the range"),
    ("unlearn.offset", (0.03, 0.04), "a multiple of 0.025")])
def test_what_makes_no_sense_for_the_range_is_refused(key, value, allowed):
    changes = {key.replace(".", "__"): value}
    if key == "eval.alpha":
        changes["eval__alphas"] = (0.5, 14.0)
    with pytest.raises(ConfigError, match=f"config.{'eval.alpha' if 'alpha' in key else key}") as e:
        check_config(completed(config(0, 1, **changes)))
    assert allowed in str(e.value)


def test_a_range_of_labels_may_have_fractions():
    c = config(0.25, 0.75)
    check_config(completed(c))
    with pytest.raises(ConfigError, match="config.data.label_min is nan"):
        check_config(config(float("nan"), 1.0))


YEARS, SHARES = LabelSpace(20, 60, 0, 40.0), LabelSpace(0, 1, 0, 1.0, step=1 / 40)


@pytest.mark.parametrize("labels, offset", [("uniform", (3, 6)), ("offset", (3, 6))])
def test_random_labels_are_those_of_years_in_another_unit(labels, offset):
    truth, rows, key = jnp.arange(20.0, 61.0), jnp.arange(41), jax.random.key(1)

    def drawn(truth, space, offset):
        cfg = linear_setting("rnd").config.copy_and_resolve_references()
        with cfg.unlocked():
            cfg.labels, cfg.offset = labels, offset
        return np.concatenate([draw_labels(jax.random.fold_in(key, i), rows, truth, space, cfg)
                               for i in range(5)])

    years = drawn(truth, YEARS, offset)
    shares = drawn((truth - 20) / 40, SHARES, tuple(v / 40 for v in offset))
    np.testing.assert_allclose(shares, (years - 20) / 40, atol=1e-6)
    assert len(np.unique(np.round(shares, 4))) > 20


def test_class_probabilities_are_those_of_years_in_another_unit():
    years = linear_setting("rnd", space=YEARS)
    cfg = years.config.copy_and_resolve_references()
    with cfg.unlocked():
        cfg.spread /= 40
    shares = dataclasses.replace(years, labels=SHARES, config=cfg)
    outputs = jnp.array([24.0, 40.0, 56.0])
    logits, same = class_logits((outputs - 20) / 40, shares), class_logits(outputs, years)
    assert same.shape == (3, 41)
    np.testing.assert_allclose(logits, same, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(comparable(logits, shares), comparable(same, years), rtol=1e-4,
                               atol=1e-3)
    # of labels 0.1 and 0.9; with the bins 0 and 1 it was 8e-6
    assert divergence(logits[:1], logits[2:])[0] > 1


def test_strata_are_those_of_years_in_another_unit():
    ages = np.random.default_rng(0).integers(20, 61, 500).astype(np.float32)
    shares = ((ages - 20) / 40).astype(np.float32)
    np.testing.assert_array_equal(strata(shares, 0.0, 1 / 40), strata(ages) - 20)
    np.testing.assert_array_equal(strata(ages + 0.5), ages)
    data = dataset(AGES)
    own = splits(data, "20-22", balance=12).rows
    other = splits(dataclasses.replace(data, labels=((data.labels - 20) / 40).astype(np.float32)),
                   "0-0.05", balance=12, source="folder", label_min=0.0, label_max=1.0).rows
    np.testing.assert_array_equal(other.source, own.source)


def test_a_share_of_the_samples_is_stratified_in_any_unit(tmp_path):
    lines = ["path,label"]
    for i in range(40):
        write_image(tmp_path / f"{i:02d}.png", 5 * i)
        lines.append(f"{i:02d}.png,{0.2 if i < 10 else 0.8}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    for seed in range(4):
        d = load(tmp_path / "labels.csv", tmp_path, fraction=0.2, label_min=0, label_max=1,
                 seed=seed, label_unit="points")
        assert d.histograms["fraction"] == {"0.2": 2, "0.8": 6} and d.label_unit == "points"


def audit(outputs, labels, step, injection=None):
    costs = dict.fromkeys(("images", "seconds", "epochs_trained", "failed", "flops", "steps"),
                          np.ones(len(outputs)))
    of = Outcome(method="ft", forget_set="f", epochs=2, stage="k",
                 seeds=tuple(range(len(outputs))), outputs={"test": outputs, "forget": outputs},
                 **costs)
    return audits.Audit(outcome=of, reference=dataclasses.replace(of, method="retrain"),
                        targets=Targets({"test": labels, "forget": labels}, {}), members=None,
                        others=None, classification=False, config=default_config().eval,
                        injection=injection, step=step)


def test_confused_groups_are_as_wide_as_their_unit_asks():
    groups = InjectedGroup(0.0, 0.1), InjectedGroup(0.2, 0.3)
    injection = Injection("confusion", groups, np.arange(2), np.array([0.2, 0.1]))
    outputs = np.array([[0.1, 0.21, 0.15, 0.25]], np.float32)  # of the second and of neither
    labels = np.array([0.05, 0.05, 0.25, 0.25], np.float32)
    found, refused = audits.audit_rows(audit(outputs, labels, 1 / 40, injection), ("confusion",))
    assert not refused and {r["metric"]: r["value"] for r in found}["confusion_test"] == 0.25


def test_distances_between_labels_in_the_thousands_are_seen():
    labels = np.linspace(1000, 3000, 6).astype(np.float32)
    mine = labels + np.random.default_rng(0).normal(0, 9, (4, 6)).astype(np.float32)
    judged = audit(mine, labels, 50.0)
    theirs = dataclasses.replace(judged.reference, outputs={"forget": mine + 900})
    found, _ = audits.audit_rows(dataclasses.replace(judged, reference=theirs), ("distances",))
    assert {r["metric"]: r["value"] for r in found}["population:klom"] > 1

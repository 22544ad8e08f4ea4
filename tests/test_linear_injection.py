"""Linear models with an injected feature: fitted, unlearned, measured, and the command."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import warm

from unlearn_jax.config import default_config
from unlearn_jax.errors import InputError
from unlearn_jax.metrics import linear_models
from unlearn_jax.metrics.injection import inject

ROOT = Path(__file__).parent.parent
R = np.random.default_rng(0)
FEATURES = R.normal(size=(200, 4))
AGES = 30 + FEATURES @ np.array([3.0, -2, 1, 0]) + R.normal(0, 3, 200)
LABELS = {"regression": AGES, "classification": (AGES > 30).astype(float)}
FORGET = np.arange(200) < 40
TASKS = tuple(LABELS)


@pytest.fixture(scope="module")
def command():
    """The command's module, whose flags are taken back: other commands have the same ones."""
    from absl import flags
    before = set(flags.FLAGS)
    from unlearn_jax import linear_injection
    yield linear_injection
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


def injected(task):
    """M_O's parameters with the feature, and (features, labels) of D_r."""
    features = inject(FEATURES, LABELS[task], FORGET)
    original = linear_models.fit(task, features, LABELS[task], 2.0)
    return original, (features[~FORGET], LABELS[task][~FORGET])


def test_pixel_features_by_hand():
    # 12 pixels in 8 cells of one and a half; the first image is a ramp, the second is black
    images = np.zeros((3, 12, 12, 3), np.uint8)
    images[0] = np.arange(12, dtype=np.uint8)[:, None, None]
    images[2, :, :, 1] = 80
    got = linear_models.pixel_features(images, np.array([0, 1])).reshape(2, 8, 8, 3)
    np.testing.assert_allclose(got, np.array([1, -1])[:, None, None, None] * np.ones((8, 8, 3)))
    got = linear_models.pixel_features(images, np.array([0, 1, 2])).reshape(3, 8, 8, 3)
    means = np.array([(0 + 0.5 * 1) / 1.5, 0, 80])  # of the first cell of green
    np.testing.assert_allclose(got[:, 0, 0, 1], (means - means.mean()) / means.std())
    np.testing.assert_allclose(got[:, 7, 0, 2], np.array([2, -1, -1]) / np.sqrt(2))  # of blue
    assert not linear_models.pixel_features(images, np.array([1, 1])).any()
    with pytest.raises(ValueError, match="at least 8"):
        linear_models.pixel_features(images[:, :7], np.array([0]))


@pytest.mark.parametrize("task", TASKS)
def test_the_gradient_vanishes_at_the_fit_and_derives_to_the_hessian(task):
    fitted = linear_models.fit(task, FEATURES, LABELS[task], 2.0)
    at_fit = linear_models.gradient(task, fitted, FEATURES, LABELS[task], 2.0)
    np.testing.assert_allclose(at_fit, 0, atol=2e-3)
    slopes = [(linear_models.gradient(task, fitted + d, FEATURES, LABELS[task], 2.0)
               - linear_models.gradient(task, fitted - d, FEATURES, LABELS[task], 2.0)) / 2e-4
              for d in 1e-4 * np.eye(5)]
    np.testing.assert_allclose(linear_models.hessian(task, fitted, FEATURES, 2.0), slopes,
                               rtol=1e-5, atol=1e-5)


def test_newton_on_ridge_equals_retraining():
    original, retain = injected("regression")
    retrained = linear_models.fit("regression", *retain, 2.0)
    assert np.abs(original - retrained).max() > 0.1
    np.testing.assert_allclose(linear_models.newton_step("regression", original, *retain, 2.0),
                               retrained, rtol=1e-10, atol=1e-10)


def test_newton_on_logistic_takes_the_feature_and_comes_nearer_to_retraining():
    original, retain = injected("classification")
    retrained = linear_models.fit("classification", *retain, 2.0)
    got = linear_models.newton_step("classification", original, *retain, 2.0)
    assert abs(got[-1]) < 1e-12 < 0.2 < abs(original[-1])
    assert np.abs(got - retrained).max() < 0.3 * np.abs(original - retrained).max()


@pytest.mark.parametrize("task", TASKS)
def test_influence_takes_the_second_derivatives_of_all_data(task):
    original, retain = injected(task)
    everything = inject(FEATURES, LABELS[task], FORGET), LABELS[task], FORGET, 2.0
    got = linear_models.influence_step(task, original, *everything)
    # At M_O the gradient of D_f is minus that of D_r: the Newton step with other curvature.
    step = np.linalg.solve(linear_models.hessian(task, original, everything[0], 2.0),
                           linear_models.gradient(task, original, *retain, 2.0))
    np.testing.assert_allclose(got, original - step, atol=1e-3)
    retrained = linear_models.fit(task, *retain, 2.0)
    assert 0 < np.linalg.norm(got - retrained) < np.linalg.norm(original - retrained)


@pytest.mark.parametrize("forgotten", [1, 3, 40])
def test_the_residual_update_is_the_step_to_retraining_within_what_d_f_spans(forgotten):
    forget = np.arange(200) < forgotten
    for task in TASKS:
        labels = LABELS[task]
        original = linear_models.fit(task, FEATURES, labels, 2.0)
        got = linear_models.residual_update(task, original, FEATURES, labels, forget, 2.0)
        if task == "regression":
            step = linear_models.fit(task, FEATURES[~forget], labels[~forget], 2.0) - original
        else:  # one Newton step on D_r, which is that of its weighted regression
            step = linear_models.newton_step(task, original, FEATURES[~forget], labels[~forget],
                                             2.0) - original
        spanned = np.concatenate([np.ones((forgotten, 1)), FEATURES[forget]], axis=1)
        basis = np.linalg.svd(spanned, full_matrices=False)[2][:min(forgotten, 5)]
        np.testing.assert_allclose(got - original, basis.T @ (basis @ step), rtol=1e-3, atol=2e-4)
        off = np.linalg.norm(got - original - step) / np.linalg.norm(step)
        assert off < 0.01 if forgotten == 40 else off > 0.03


@pytest.mark.parametrize("task", TASKS)
def test_gradient_steps_fall_to_retraining(task):
    original, retain = injected(task)
    steps = (5000, *range(1, 30))  # in any order
    got = linear_models.gradient_steps(task, original, *retain, 2.0, steps)
    retrained = linear_models.fit(task, *retain, 2.0)
    np.testing.assert_allclose(got[0], retrained, atol=1e-3)
    distances = np.linalg.norm(np.stack([original, *got[1:]]) - retrained, axis=1)
    weights = np.abs([original[-1], *got[1:, -1]])
    assert (np.diff(distances) < 0).all() and (np.diff(weights) < 0).all()
    # 0 on all of D_r, the feature is forgotten by the penalty alone
    most = 1 if task == "regression" else 0.25
    ones = np.concatenate([np.ones((160, 1)), retain[0]], axis=1)
    curvature = np.linalg.norm(most * ones.T @ ones + 2 * np.diag([0, 1, 1, 1, 1, 1]), 2)
    np.testing.assert_allclose(got[3, -1], original[-1] * (1 - 2 / curvature) ** 3)


@pytest.mark.parametrize("task", TASKS)
def test_end_points(command, task):
    left = command.unlearn(task, FEATURES, LABELS[task], FORGET,
                           command.LinearSettings(steps=(3, 30)))
    assert list(left) == [("original", 0), ("retrain", 0), ("ft", 3), ("ft", 30), ("newton", 1),
                          ("influence", 1), ("residual", 1)]
    assert left["original", 0] == (1, 1) and left["retrain", 0] == (0, 0)
    assert 1 > left["ft", 3].remaining > left["ft", 30].remaining > 0.01
    assert 1 > left["ft", 3].distance > left["ft", 30].distance
    # D_f spans all of the few weights here, so that the residual update is the Newton step.
    exact = task == "regression"
    for model in ("newton", "residual"):
        assert left[model, 1].distance < (1e-6 if exact else 0.3)
        assert exact or left[model, 1].distance > 1e-3
    assert 0.05 < abs(left["influence", 1].remaining) < 1
    assert left["newton", 1].distance < left["influence", 1].distance < 1


@pytest.mark.parametrize("task", TASKS)
def test_a_wrong_newton_step_is_found_out_by_its_distance_alone(command, task, monkeypatch):
    """Its remaining is 0 whatever it does to the other weights."""
    def wrong(task, parameters, features, labels, ridge):
        step = np.linalg.solve(linear_models.hessian(task, parameters, features, ridge),
                               linear_models.gradient(task, parameters, features, labels, ridge))
        return parameters - step * np.append(-np.ones(len(step) - 1), 1.0)

    right = command.unlearn(task, FEATURES, LABELS[task], FORGET,
                            command.LinearSettings(steps=(3,)))
    monkeypatch.setattr(linear_models, "newton_step", wrong)
    left = command.unlearn(task, FEATURES, LABELS[task], FORGET, command.LinearSettings(steps=(3,)))
    assert abs(left["newton", 1].remaining - right["newton", 1].remaining) < 1e-12
    assert left["newton", 1].distance > 1 > 0.3 > right["newton", 1].distance


def digits_config():
    c = default_config()
    c.data.update(source="digits", task="classification", image_size=8, fraction=0.15)
    c.forget.sets = ("class:3",)
    return c


def test_a_class_is_told_from_the_rest(command, tmp_path):
    got = command.measure(digits_config(), command.LinearSettings(steps=(2,), positive="5"),
                          tmp_path)
    assert len(got) == 6 * 3 and got["remaining"].notna().all() and got["distance"].notna().all()
    ft = got[got.model == "ft"]["remaining"]
    assert ft.nunique() == 3 and ft.between(0.5, 1, inclusive="neither").all()
    text = command.table(got, "digits", "class:3")
    distance = got[got.model == "newton"]["distance"].mean()
    assert f"| newton | 1 | 0.0000 | 0.0000 to 0.0000 | 3 | {distance:.4f} |" in text
    assert 0.001 < distance < 1
    assert f"| ft | 2 | {ft.mean():.4f} |" in text


@pytest.mark.parametrize("positive, samples, words", [
    ("3", 0, "labels are all the same"),  # all forgotten
    ("4", 1, "labels are all the same"),
    ("ten", 0, "--positive=ten is no class; allowed: one of 0, 1, 2"),
    ("10", 0, "--positive=10 is no class"),
])
def test_classes_that_cannot_be_told(command, tmp_path, positive, samples, words):
    with pytest.raises(InputError, match=words):
        command.measure(digits_config(), command.LinearSettings(positive=positive, samples=samples),
                        tmp_path)


@pytest.mark.parametrize("values, words", [
    (dict(steps=()), "--steps=; allowed"),
    (dict(steps=(1, 0)), "--steps=1,0; allowed"),
    (dict(steps=(2, 2)), "--steps=2,2; allowed"),
    (dict(samples=-1), "--samples=-1; allowed: 0"),
    (dict(ridge=0.0), "--ridge=0; allowed"),
    (dict(ridge=float("nan")), "--ridge=nan; allowed"),
])
def test_wrong_settings(command, values, words):
    with pytest.raises(InputError, match=words):
        command.LinearSettings(**values)


COMMAND = [sys.executable, "-m", "unlearn_jax.linear_injection",
           f"--config={ROOT / 'configs' / 'ft.py'}", "--out=out", "--config.data.size=200",
           "--config.data.image_size=16"]


def test_the_command_writes_the_file_and_prints_the_table(tmp_path):
    done = subprocess.run([*COMMAND, "--steps=1,20", "--samples=90"], cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    got = pd.read_csv(tmp_path / "out" / "linear_injection.csv")
    assert list(got) == ["model", "steps", "seed", "remaining", "distance"] and len(got) == 7 * 3
    means = got.groupby(["model", "steps"])["remaining"].mean()
    assert means["original", 0] == 1 and means["retrain", 0] == 0
    assert 1 > means["ft", 1] > means["ft", 20] > 0.5
    assert "| retrain | 0 | 0.0000 |" in done.stdout and "Forget set: 20-28." in done.stdout


def test_a_wrong_flag_is_named(tmp_path):
    done = warm.run([*COMMAND, "--steps=1,few"], cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "--steps=1,few; allowed: whole numbers" in done.stderr
    assert not (tmp_path / "out").exists()

import dataclasses

import jax
import numpy as np
import pytest
from toy import tree_close
from toy_teachers import (
    BOTH,
    bias_moved,
    divergence_slope,
    make_batch,
    make_setting,
    one_step,
    outputs,
    softened,
    task_slope,
    variables,
    walk,
)

from unlearn_jax.config import default_config
from unlearn_jax.errors import ConfigError
from unlearn_jax.methods.reset import METHOD, TUNING, WARMUP
from unlearn_jax.models import build_model

T = 5.0


@pytest.mark.parametrize("task", BOTH)
def test_the_warm_up_descends_the_divergence_alone(task):
    setting = make_setting("reset", task)
    batch = make_batch(task, kind=WARMUP, weights=[1] * 6 + [0, 0])
    teacher = variables(setting, 2)
    new, _, start = one_step(setting, batch, teacher)
    target = softened(outputs(setting, teacher, batch, False), T)
    slope = divergence_slope(outputs(setting, start, batch, True), target, T)
    # its rate is 0.9 of the other
    np.testing.assert_allclose(bias_moved(new, start), -0.09 * slope[:6].mean(0), rtol=1e-3)


@pytest.mark.parametrize("task", BOTH)
def test_tuning_descends_the_task_and_the_divergence_twice(task):
    """The soft cross-entropy differs from KL by the teacher's entropy, which has no slope."""
    setting = make_setting("reset", task)
    batch = make_batch(task, kind=TUNING, weights=[1] * 6 + [0, 0])
    teacher = variables(setting, 2)
    new, _, start = one_step(setting, batch, teacher)
    found = outputs(setting, start, batch, True)
    target = softened(outputs(setting, teacher, batch, False), T)
    slope = task_slope(found, np.asarray(batch.labels)) + 2 * divergence_slope(found, target, T)
    np.testing.assert_allclose(bias_moved(new, start), -0.1 * slope[:6].mean(0), rtol=1e-3)


def test_labels_do_not_matter_in_the_warm_up():
    setting, teacher = make_setting("reset"), variables(make_setting("reset"), 2)
    for kind, same in ((WARMUP, True), (TUNING, False)):
        batch = make_batch("regression", kind=kind)
        turned = dataclasses.replace(batch, labels=batch.labels[::-1])
        one, other = (bias_moved(*one_step(setting, b, teacher)[::2]) for b in (batch, turned))
        assert (one == other).all() == same


def test_the_warm_up_comes_once_and_before_d_r():
    setting = make_setting("reset", warmup=2)
    found = [[(p.over, p.kind) for p in METHOD.passes(setting, e)] for e in range(2)]
    assert found == [[("validation", WARMUP)] * 2 + [("retain", TUNING)], [("retain", TUNING)]]
    walked = walk(setting, 2)
    # 17 and 9 samples of D_r, half of ten of validation
    assert [row["images"] for row in walked.trained.history] == [27, 19, 44, 28]


def test_only_the_chosen_layers_are_fresh_and_the_teacher_is_m_o():
    walked = walk(make_setting("reset", layers=("output",)), 0)
    prepared, start = walked.prepared, walked.start
    tree_close(prepared.context, start, rtol=0)
    old, new = start["params"], prepared.variables["params"]
    tree_close(new["stem_conv"], old["stem_conv"], rtol=0)
    tree_close(prepared.variables["batch_stats"], start["batch_stats"], rtol=0)
    assert (new["output"]["kernel"] != old["output"]["kernel"]).all()
    fresh = walked.before.initial("reset")["params"]["output"]
    tree_close(new["output"], fresh, rtol=0)
    assert set(prepared.touched) == {"output"}
    np.testing.assert_array_equal(prepared.touched["output"], np.ones((2, 5), bool))


def test_first_and_last_layer_by_default():
    walked = walk(make_setting("reset", "classification"), 0)
    assert {k: v.shape for k, v in walked.prepared.touched.items()} == {
        "stem_conv": (2, 48), "output": (2, 15)}
    for layer in ("stem_conv", "output"):
        old, new = (v["params"][layer]["kernel"]
                    for v in (walked.start, walked.prepared.variables))
        assert (old != new).all() and (new[0] != new[1]).all()


@pytest.mark.parametrize("task", BOTH)
def test_frozen_layers_are_not_reset(task):
    setting = make_setting("reset", task, ("stem_conv",))
    METHOD.check(setting)
    walked = walk(setting, 0)
    tree_close(walked.after["params"]["stem_conv"], walked.start["params"]["stem_conv"], rtol=0)
    assert not walked.prepared.touched["stem_conv"].any()
    assert walked.prepared.touched["output"].all()


@pytest.mark.parametrize("task", BOTH)
def test_the_teacher_stays_and_all_else_moves(task):
    walked = walk(make_setting("reset", task), 1)
    tree_close(walked.prepared.context, walked.start, rtol=0)
    for old, new in zip(jax.tree.leaves(walked.prepared.variables["params"]),
                        jax.tree.leaves(walked.after["params"])):
        assert (old != new).reshape(2, -1).any(1).all()


def test_momentum_of_the_warm_up_ends_with_it():
    setting = make_setting("reset", moves=dict(momentum=0.9))
    teacher, warm = variables(setting, 2), make_batch("regression", kind=WARMUP)
    tune = make_batch("regression", kind=TUNING)
    step = jax.jit(METHOD.make_step(setting))
    begun, _, start = one_step(setting, warm, teacher)
    again = dataclasses.replace(begun, opt_state=setting.optimizer.init(start["params"]))
    first, second = (step(jax.random.key(0), state, tune, 0.1, teacher)[0]
                     for state in (begun, again))
    tree_close(first.variables, second.variables, rtol=0)
    third = step(jax.random.key(0), begun, warm, 0.1, teacher)[0]
    fourth = step(jax.random.key(0), again, warm, 0.1, teacher)[0]
    assert np.any(bias_moved(third, start) != bias_moved(fourth, start))


def test_the_layers_of_the_real_network():
    c = default_config()
    with c.unlocked():
        c.model.update(name="resnet4", width=2, stem="small", frozen=("^stem", "^output"))
    setting = dataclasses.replace(make_setting("reset"), model=build_model(c.model, 8, 0))
    with pytest.raises(ConfigError, match="config.model.frozen holds all of .*stem_conv"):
        METHOD.check(setting)
    METHOD.check(dataclasses.replace(setting, model=dataclasses.replace(setting.model, frozen=())))
    inner = setting.options.copy_and_resolve_references()
    with inner.unlocked():
        inner.layers = ("stage1_block1/conv1",)
    METHOD.check(dataclasses.replace(setting, options=inner))


@pytest.mark.parametrize("options, words", [
    (dict(temperature=0.0), "reset.temperature is 0.0"),
    (dict(warmup=-1), "reset.warmup is -1; allowed: at least 0"),
    (dict(warmup_rate=-0.5), "reset.warmup_rate is -0.5"),
    (dict(layers=("stem_conv", "top")), r"layers is \('stem_conv', 'top'\).*: layers of the "
                                        "model, output, stem_conv"),
    (dict(layers=()), r"reset.layers is \(\)"),
])
def test_options_that_make_no_sense_are_refused(options, words):
    METHOD.check(make_setting("reset"))
    with pytest.raises(ConfigError, match=words):
        METHOD.check(make_setting("reset", **options))

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
    variables,
    walk,
)

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods.bad_teacher import METHOD

FORGET = [0, 3, 5, 7]


@pytest.mark.parametrize("task", BOTH)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_each_sample_has_its_teacher(task, temperature):
    setting = make_setting("bad_teacher", task, temperature=temperature)
    batch = make_batch(task, FORGET, weights=[1] * 6 + [0, 0])
    context = {"good": variables(setting, 2), "bad": variables(setting, 3)}
    new, _, start = one_step(setting, batch, context)
    good, bad = (softened(outputs(setting, context[name], batch, False), temperature)
                 for name in ("good", "bad"))
    target = np.where(np.isin(np.arange(8), FORGET)[:, None], bad, good)
    slope = divergence_slope(outputs(setting, start, batch, True), target, temperature)
    np.testing.assert_allclose(bias_moved(new, start), -0.1 * slope[:6].mean(0), rtol=1e-3)


@pytest.mark.parametrize("task, classes", [("classification", 3), ("regression", 41)])
def test_as_in_the_published_code_the_mean_is_over_classes_too(task, classes):
    moved = []
    for over in (False, True):
        setting = make_setting("bad_teacher", task, over_classes=over)
        context = {"good": variables(setting, 2), "bad": variables(setting, 3)}
        new, _, start = one_step(setting, make_batch(task, FORGET), context)
        moved.append(bias_moved(new, start))
    np.testing.assert_allclose(moved[1], moved[0] / classes, rtol=1e-3)


@pytest.mark.parametrize("task", BOTH)
def test_labels_do_not_matter(task):
    setting = make_setting("bad_teacher", task)
    context = {"good": variables(setting, 2), "bad": variables(setting, 3)}
    batch = make_batch(task, FORGET)
    one, loss, _ = one_step(setting, batch, context)
    turned = dataclasses.replace(batch, labels=batch.labels[::-1])
    other, another, _ = one_step(setting, turned, context)
    tree_close(one.variables, other.variables, rtol=0)
    assert loss != another  # what is reported is the task's


@pytest.mark.parametrize("task", BOTH)
def test_the_teachers_are_m_o_and_a_network_that_has_learnt_nothing(task):
    walked = walk(make_setting("bad_teacher", task), 1)
    context = walked.prepared.context
    tree_close(context["good"], walked.start, rtol=0)
    tree_close(context["bad"], walked.before.initial("bad_teacher"), rtol=0)
    kernels = [v["params"]["stem_conv"]["kernel"] for v in (context["bad"], walked.start)]
    assert (kernels[0] != kernels[1]).all() and (kernels[0][0] != kernels[0][1]).all()


def test_the_student_moves_towards_the_bad_teacher_on_the_forget_set():
    setting = make_setting("bad_teacher", retain_share=0.1)
    walked = walk(setting, 20, sizes=(17, 9))
    batch = make_batch("regression", count=24)
    for m, size in enumerate((17, 9)):
        trees = walked.start, walked.after, walked.prepared.context["bad"]
        own = [jax.tree.map(lambda x, m=m: x[m], tree) for tree in trees]
        start, after, bad = (outputs(setting, tree, batch, False)[size:] for tree in own)
        assert np.abs(after - bad).mean() < np.abs(start - bad).mean()


def test_an_epoch_is_all_of_d_f_and_a_third_of_d_r():
    (only,) = METHOD.passes(make_setting("bad_teacher"), 0)
    assert (only.over, only.share) == ("mixed", 0.3)
    walked = walk(make_setting("bad_teacher"), 1)
    # 17 and 9 samples to retain, 7 and 15 to forget
    assert [row["images"] for row in walked.trained.history] == [6 + 7, 3 + 15]


@pytest.mark.parametrize("options, words", [
    (dict(temperature=-1.0), "bad_teacher.temperature is -1.0"),
    (dict(retain_share=0.0), "bad_teacher.retain_share is 0.0; allowed: from 1e-06 to 1"),
    (dict(retain_share=1.5), "bad_teacher.retain_share is 1.5"),
])
def test_options_that_make_no_sense_are_refused(options, words):
    METHOD.check(make_setting("bad_teacher"))
    with pytest.raises(ConfigError, match=words):
        METHOD.check(make_setting("bad_teacher", **options))

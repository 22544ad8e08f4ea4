"""All members at once give what each alone gives, in batches of any size."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_population as tiny
from toy import layout

from unlearn_jax.attribution.attribution import (
    explained_value,
    grad_cam,
    midpoints,
    pixel_attributions,
    stage_activations,
)
from unlearn_jax.attribution.population import Explainer, ExplainSettings
from unlearn_jax.data.resident import Streamed
from unlearn_jax.engine.layout import Program

# The tests compile much and compute little.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0,
                                                   "xla_llvm_disable_expensive_passes": True})
SETTINGS = ExplainSettings(samples=4, steps=5, baseline="black", stage=0)
SAMPLES = np.array([2, 9, 17])
SETS = {"forget": np.arange(9, dtype=np.int32), "retain": np.arange(9, 24, dtype=np.int32)}


def on_the_host(data):
    """The same images, sent to the devices with each call."""
    images = np.asarray(data.images)
    return Streamed(images[:20], images[20:], data.labels)


@pytest.mark.parametrize("task, where, batch, put", [
    ("regression", dict(per_device=2), 2, on_the_host),
    ("classification", dict(members=2, per_device=1), 64, lambda data: data)])
def test_members_are_explained_as_each_alone(task, where, batch, put):
    model, data = tiny.net(task), tiny.resident(task)
    variables = tiny.variables(model)
    explainer = Explainer(model, layout(count=2, **where), put(data), SETTINGS, batch,
                          len(SAMPLES))
    got = explainer.explain(variables, SAMPLES, SETS, partners=True)
    (layer,) = model.stages
    zero = np.zeros((tiny.SIZE, tiny.SIZE, 3), np.float32)
    images, labels = data.images[SAMPLES], data.labels[SAMPLES]

    @jit
    def alone(one):
        places, values = grad_cam(model, one, images, labels, layer)
        black = model.apply(one, jnp.zeros(images.shape), train=False)[0]
        return (pixel_attributions(model, one, images, labels, zero, *midpoints(5)), places, values,
                values - explained_value(black, labels),
                stage_activations(model, one, data.images)[layer])

    for m in range(2):
        pixels, places, values, change, activations = map(np.asarray, alone(
            jax.tree.map(lambda x, m=m: x[m], variables)))
        np.testing.assert_allclose(got.pixels[m], pixels, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(got.places[m], places, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(got.values[m], values, rtol=1e-4)
        np.testing.assert_allclose(got.unexplained[m], change - pixels.sum((1, 2)), atol=1e-3)
        for name, rows in SETS.items():
            np.testing.assert_allclose(got.channels[name][layer][m], activations[rows].mean(0),
                                       rtol=1e-4)
            assert got.partners[name][layer][m].shape == activations.shape[1:]


def test_sets_of_any_size_are_explained_by_one_program():
    explainer = Explainer(tiny.net(), layout(count=2, per_device=2), tiny.resident(), SETTINGS, 16,
                          samples=4)
    variables = tiny.variables(tiny.net())
    found, compiled = [], []
    for count in (4, 2, 6):
        samples = np.arange(count, dtype=np.int32)
        found.append(explainer.explain(variables, samples, {"forget": samples}, partners=False))
        compiled.append(explainer.compile_seconds)
    assert compiled[0] > 0 and set(compiled) == {compiled[0]}
    for field in ("pixels", "places", "values", "unexplained"):
        whole = getattr(found[2], field)
        for part in found[:2]:
            mine = getattr(part, field)
            np.testing.assert_allclose(mine, whole[:, :mine.shape[1]], rtol=1e-3, atol=1e-4)


def test_members_that_do_not_fit_are_explained_apart(monkeypatch):
    compile_, tried = Program.compile, []

    def crowded(self, variables, *args):
        if self._compiled is None:
            tried.append(len(jax.tree.leaves(variables)[0]))
            if tried[-1] > 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")
        compile_(self, variables, *args)

    variables = tiny.variables(tiny.net())
    monkeypatch.setattr(Program, "compile", crowded)
    explainer = Explainer(tiny.net(), layout(count=2, per_device=2), tiny.resident(), SETTINGS, 16,
                          samples=3)
    first, second = (explainer.explain(variables, SAMPLES, SETS, partners=False) for _ in range(2))
    assert tried == [2, 1] * 3, "each program once, and never again what did not fit"
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert (first.pixels[0] != first.pixels[1]).any()


def test_nothing_to_explain_is_refused():
    explainer = Explainer(tiny.net(), layout(count=2), tiny.resident(), SETTINGS, 4, 4)
    for samples, sets in ((SAMPLES[:0], SETS), (SAMPLES, {**SETS, "forget": SAMPLES[:0]})):
        with pytest.raises(ValueError, match="at least one sample"):
            explainer.explain({}, samples, sets, False)


def test_grad_cam_reads_the_stage_that_is_asked_for():
    model = tiny.net()
    model = dataclasses.replace(model, module=model.module.clone(blocks=(1, 2)))
    names = [dataclasses.replace(SETTINGS, stage=s).layer(model) for s in (0, 1, 2)]
    assert names == ["stage2_block2", "stage1_block1", "stage2_block2"]

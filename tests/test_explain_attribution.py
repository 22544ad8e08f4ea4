"""Attributions of one member, held against what can be said on paper."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_population as tiny

from unlearn_jax.attribution.attribution import (
    class_activation_map,
    explained_value,
    grad_cam,
    integrated_gradients,
    midpoints,
    pixel_attributions,
    stage_activations,
)

# The tests compile much and compute little.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0,
                                                   "xla_llvm_disable_expensive_passes": True})
R = np.random.default_rng(0)
ZERO = np.zeros((8, 8, 3), np.float32)


def one(task, **changes):
    """(model, variables of one member, images, labels)."""
    model = tiny.net(task, **changes)
    variables = jax.tree.map(lambda x: jnp.asarray(x[0]), tiny.variables(model))
    data = tiny.resident(task)
    return model, variables, data.images[:3], data.labels[:3]


def test_of_a_linear_model_they_are_its_weights_times_the_way():
    x, start, w = (R.normal(size=s).astype(np.float32)
                   for s in ((2, 4, 4, 3), (4, 4, 3), (4, 4, 3)))
    got = integrated_gradients(lambda images: jnp.tensordot(images, w, 3) + 7, x, start,
                               *midpoints(3))
    np.testing.assert_allclose(got, (x - start[None]) * w[None], rtol=1e-5, atol=1e-6)
    got = integrated_gradients(lambda images: jnp.tensordot(images, w, 3), x, 0 * start,
                               *midpoints(1))
    np.testing.assert_array_equal(got, x * w[None])


def test_of_a_square_the_midpoint_rule_is_exact_and_parts_add_up():
    x = R.normal(size=(2, 2, 2, 3)).astype(np.float32)
    nodes, weights = midpoints(6)

    def part(first, last):
        return jit(integrated_gradients, static_argnums=0)(
            lambda images: jnp.sum(images**2, (1, 2, 3)), x, ZERO[:2, :2], nodes[first:last],
            weights[first:last])

    np.testing.assert_allclose(part(0, 6), x**2, rtol=1e-5)
    np.testing.assert_allclose(part(0, 4) + part(4, 6), x**2, rtol=1e-5)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_completeness(task):
    model, variables, images, labels = one(task)
    start = ZERO + 127.5

    def value(x):
        return explained_value(model.apply(variables, x, train=False)[0], labels)

    steps = jit(lambda *rule: pixel_attributions(model, variables, images, labels, start,
                                                     *rule))
    images = images.astype(jnp.float32)
    wanted = jit(lambda x, y: value(x) - value(y))(
        images, jnp.broadcast_to(start[None], images.shape))
    rough, fine = (np.abs(np.asarray(steps(*midpoints(n)).sum((1, 2)) - wanted)) for n in (1, 64))
    scale = np.abs(wanted).max()
    assert scale > 0.05
    assert fine.max() < 0.02 * scale and fine.max() < rough.max()


def test_class_activation_map_by_hand():
    activations = jnp.array([[[[1.0, 2], [0, 1]], [[3, 0], [1, 1]]]])
    gradients = jnp.array([[[[1.0, -4], [1, 0]], [[1, 0], [5, 0]]]])  # means 2 and -1
    got = class_activation_map(activations, gradients, signed=True)
    np.testing.assert_allclose(got, [[[0, -1], [6, 1]]])
    got = class_activation_map(activations, gradients, signed=False)
    np.testing.assert_allclose(got, [[[0, 0], [6, 1]]])


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_grad_cam_is_what_the_head_says_on_paper(task):
    """The head is a mean over places, a dense layer and, for a value, a sigmoid."""
    model, variables, images, labels = one(task)
    (layer,) = model.stages
    outputs, _, features = model.features(variables, images, train=False)
    a_BHWC, w_CK = np.asarray(features[layer]), np.asarray(variables["params"]["output"]["kernel"])
    places = a_BHWC.shape[1] * a_BHWC.shape[2]
    got, values = jit(lambda v, x, y: grad_cam(model, v, x, y, layer))(
        variables, images, labels)
    if task == "regression":
        s = (np.asarray(outputs) - 20) / 40
        expected = (40 * s * (1 - s))[:, None, None] * (a_BHWC @ w_CK[:, 0]) / places
    else:
        own = w_CK[:, np.asarray(labels)].T
        expected = np.maximum(np.einsum("bhwc,bc->bhw", a_BHWC, own), 0) / places
    assert np.abs(expected).max() > 1e-4
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(values, explained_value(outputs, labels), rtol=1e-5)


def test_shifts_reach_the_block_they_name_alone():
    model, variables, images, _ = one("regression")
    (layer,) = model.stages
    plain, _, before = model.features(variables, images, train=False)
    outputs, features = model.shifted(variables, images, {layer: jnp.ones(before[layer].shape)})
    np.testing.assert_allclose(features[layer], before[layer] + 1, rtol=1e-6)
    np.testing.assert_array_equal(features["stem_conv"], before["stem_conv"])
    assert (np.asarray(outputs) != np.asarray(plain)).all()


def test_activations_are_means_over_places():
    model, variables, images, _ = one("regression")
    (layer,) = model.stages
    features = model.features(variables, images, train=False)[2]
    got = stage_activations(model, variables, images)
    assert set(got) == {layer}
    np.testing.assert_allclose(got[layer], np.asarray(features[layer]).mean((1, 2)), rtol=1e-5)

import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.metrics import layers

R = np.random.default_rng(0)


def test_distances_by_hand():
    a = {"head": {"kernel": jnp.zeros((2, 2, 1)), "bias": jnp.zeros((2, 1))}, "scale": jnp.ones(2)}
    b = {"head": {"kernel": jnp.array([[[3.0], [0]], [[1], [1]]]), "bias": jnp.array([[4.0], [1]])},
         "scale": jnp.array([1.0, 3.0])}
    got = layers.layer_distances(a, b)
    assert set(got) == {"head", "scale"}
    np.testing.assert_allclose(got["head"], [5, np.sqrt(3)], rtol=1e-6)
    np.testing.assert_allclose(got["scale"], [0, 2])


def test_end_points_of_distances():
    original = {"a": {"kernel": R.normal(size=(3, 4, 5))}, "b": {"kernel": R.normal(size=(3, 5))}}
    reset = {"a": {"kernel": R.normal(size=(3, 4, 5))}, "b": original["b"]}
    same, moved = (layers.layer_distances(x, original) for x in (original, reset))
    assert all((np.asarray(v) == 0).all() for v in same.values())
    assert (np.asarray(moved["a"]) > 1).all() and (np.asarray(moved["b"]) == 0).all()


def test_distances_of_independent_models_by_hand():
    models = {"a": {"kernel": jnp.array([[[0.0, 0]], [[3, 4]], [[0, 0]]]),
                    "bias": jnp.array([[0.0], [0], [12]])}, "b": jnp.array([[1.0], [3], [1]])}
    got = layers.independent_distances(models)
    # Of "a": 5 between 0 and 1, 12 between 0 and 2, 13 between 1 and 2.
    np.testing.assert_allclose(got["a"], [8.5, 9, 12.5], rtol=1e-6)
    np.testing.assert_allclose(got["b"], [1, 2, 1], rtol=1e-6)
    alone = layers.independent_distances({"a": jnp.ones((1, 3))})
    assert np.isnan(alone["a"]).all()


def test_models_that_began_at_the_same_weights_are_told_apart():
    start = R.normal(0, 10, (64, 64))
    kernel = (start[None] + R.normal(0, 1e-4, (3, 64, 64))).astype(np.float32)
    got = layers.independent_distances({"a": {"kernel": kernel}})["a"]
    wide = kernel.astype(np.float64)
    pairs = np.sqrt(((wide[:, None] - wide[None])**2).sum((2, 3)))
    np.testing.assert_allclose(got, pairs.sum(1) / 2, rtol=1e-9)
    np.testing.assert_allclose(
        layers.layer_distances({"a": {"kernel": kernel[:1]}}, {"a": {"kernel": kernel[1:2]}})["a"],
        pairs[0, 1:2], rtol=1e-9)


def reference_cka(a, b):
    """By the definition: kernels of samples, centred, compared."""
    n = len(a)
    centre = np.eye(n) - 1 / n
    k, m = centre @ a @ a.T @ centre, centre @ b @ b.T @ centre
    return np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))


@pytest.mark.parametrize("features, others", [(5, 5), (5, 8), (60, 3), (70, 90)])
def test_cka_equals_the_definition(features, others):
    a, b = R.normal(size=(2, 40, features)) + 3, R.normal(size=(2, 40, others))
    b[:, :, :2] += a[:, :, :2]
    got = layers.linear_cka({"x": a}, {"x": b})["x"]
    np.testing.assert_allclose(got, [reference_cka(*pair) for pair in zip(a, b)], rtol=1e-4)


def test_end_points_of_cka():
    a = R.normal(size=(2, 500, 3, 2)).astype(np.float32)
    rotation, _ = np.linalg.qr(R.normal(size=(6, 6)))
    turned = 5 * a.reshape(2, 500, 6) @ rotation + 1
    tree = {"stem": {"features": a}}
    np.testing.assert_allclose(
        layers.linear_cka(tree, {"stem": {"features": turned}})["stem/features"], 1, rtol=1e-5)
    other = {"stem": {"features": R.normal(size=a.shape)}}
    assert (np.asarray(layers.linear_cka(tree, other)["stem/features"]) < 0.1).all()


@pytest.mark.parametrize("value", [1, 0.1, 1e6 + 0.3])
def test_features_that_do_not_vary_are_nan(value):
    same = np.full((1, 900, 2), value, np.float32)
    got = layers.linear_cka({"x": same}, {"x": R.normal(size=(1, 900, 2))})
    assert np.isnan(got["x"]).all()


def test_features_far_from_zero_keep_their_likeness():
    a = (R.normal(size=(1, 400, 3)) + 30_000).astype(np.float32)
    b = (a.astype(np.float64) + R.normal(size=a.shape)).astype(np.float32)
    got = layers.linear_cka({"x": a}, {"x": b})["x"]
    np.testing.assert_allclose(got, reference_cka(*(x[0].astype(np.float64) for x in (a, b))),
                               rtol=1e-9)


@pytest.mark.parametrize("fun, a, b, words", [
    (layers.layer_distances, {"x": np.ones((2, 3))}, {"x": np.ones((1, 3))}, "x has shape"),
    (layers.layer_distances, {"x": np.ones(2)}, {"y": np.ones(2)}, "structure"),
    (layers.layer_distances, {"x": np.float32(1)}, {"x": np.float32(1)}, "no member axis"),
    (lambda a, b: layers.independent_distances(a), {"x": np.float32(1)}, {}, "no member axis"),
    (layers.linear_cka, {"x": np.ones((2, 3, 1))}, {"x": np.ones((2, 4, 1))}, "samples"),
    (layers.linear_cka, {"x": np.ones(2)}, {"x": np.ones(2)}, r"\[M, N, ...\]"),
    (layers.linear_cka, {"x": np.ones((2, 3))}, {"x": {"y": np.ones((2, 3))}}, "structure"),
])
def test_what_does_not_fit_is_refused(fun, a, b, words):
    with pytest.raises(ValueError, match=words):
        fun(a, b)

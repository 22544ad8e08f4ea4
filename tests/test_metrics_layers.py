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


@pytest.mark.parametrize("fun, a, b, words", [
    (layers.layer_distances, {"x": np.ones((2, 3))}, {"x": np.ones((1, 3))}, "x has shape"),
    (layers.layer_distances, {"x": np.ones(2)}, {"y": np.ones(2)}, "structure"),
    (layers.layer_distances, {"x": np.float32(1)}, {"x": np.float32(1)}, "no member axis"),
    (lambda a, b: layers.independent_distances(a), {"x": np.float32(1)}, {}, "no member axis"),
])
def test_what_does_not_fit_is_refused(fun, a, b, words):
    with pytest.raises(ValueError, match=words):
        fun(a, b)

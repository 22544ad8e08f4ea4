"""Depthwise convolutions as sums of shifted images, against XLA's own."""


import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from unlearn_jax.networks.other_conv import any_conv

NUMBERS = ("NHWC", "HWIO", "NHWC")


def xla(x, w, strides, padding):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=NUMBERS,
                                    feature_group_count=x.shape[-1])


def ours(x, w, strides, padding):
    return any_conv(x, w, strides, padding, dimension_numbers=NUMBERS,
                    feature_group_count=x.shape[-1])


def values(kernel, size, seed=0, members=()):
    rng = np.random.default_rng(seed)
    shapes = (*members, 3, size, size + 1, 5), (*members, kernel, kernel, 1, 5)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def with_gradients(conv, strides, padding):
    def total(x, w):
        y = conv(x, w, strides, padding)
        return jnp.sum(jnp.sin(y)), y
    return jax.grad(total, argnums=(0, 1), has_aux=True)


@pytest.mark.parametrize("kernel, size, strides, padding", [
    (7, 6, (1, 1), ((3, 3), (3, 3))), (3, 7, (2, 2), "SAME"), (3, 8, (2, 1), ((0, 2), (3, 1))),
    (2, 5, (2, 2), "VALID"), (1, 4, (2, 2), "VALID")])
def test_outputs_and_gradients_are_those_of_xla(kernel, size, strides, padding):
    x, w = values(kernel, size)
    found = jax.jit(with_gradients(ours, strides, padding))(x, w)
    expected = jax.jit(with_gradients(xla, strides, padding))(x, w)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_members_and_samples_equal_singles_and_there_is_no_convolution():
    x, w = values(3, 5, members=(2,))
    one = with_gradients(ours, (1, 1), "SAME")
    each = jax.vmap(jax.vmap(lambda x, w: one(x[None], w), (0, None)))
    (dx, dw), y = jax.jit(each)(x, w)
    for m in range(2):
        for s in range(3):
            (dx1, dw1), y1 = jax.jit(one)(x[m, s:s + 1], w[m])
            for a, b in ((dx[m, s], dx1), (dw[m, s], dw1), (y[m, s], y1)):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert "conv_general_dilated" not in str(jax.make_jaxpr(each)(x, w))


def test_other_types_keep_theirs_and_other_groups_go_to_xla():
    x, w = values(3, 5)
    half = ours(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16), (1, 1), "SAME")
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), xla(x, w, (1, 1), "SAME"), atol=0.1)
    twice = jnp.concatenate([w, w], axis=-1)  # two kernels for each channel
    found = any_conv(x, twice, (1, 1), "SAME", dimension_numbers=NUMBERS, feature_group_count=5)
    np.testing.assert_allclose(found, xla(x, twice, (1, 1), "SAME"), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="no out_sharding"):
        any_conv(x, w, (1, 1), "SAME", out_sharding=1)

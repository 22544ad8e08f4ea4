import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from unlearn_jax.conv import DIMENSION_NUMBERS, member_conv

lax_conv = functools.partial(lax.conv_general_dilated, dimension_numbers=DIMENSION_NUMBERS)

# (pixels, channels, kernel, stride, padding); on a CPU few pixels take the patches formulation,
# and strides and 1x1 kernels with eight channels the products for the weight gradient
GEOMETRIES = [
    (8, 3, 3, 1, "SAME"),
    (9, 8, 3, 2, ((1, 1), (1, 1))),
    (8, 8, 1, 2, ((0, 0), (0, 0))),
    (13, 3, 7, 2, ((3, 3), (3, 3))),
    (2, 3, 3, 1, ((1, 1), (1, 1))),
    (5, 8, 3, 2, "VALID"),
    (2, 3, 1, 1, ((0, 0), (0, 0))),
    (6, 9, 1, 1, "SAME"),
    (7, 8, 5, 2, ((1, 2), (2, 1))),
]


def arrays(pixels, kernel, members=3, dtype=jnp.float32, channels=3):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (members, 2, pixels, pixels, channels), dtype)
    w = jax.random.normal(keys[1], (members, kernel, kernel, channels, 4), dtype)
    return x, w


def value_and_grads(conv, stride, padding):
    def objective(x, w):
        y = conv(x, w, (stride, stride), padding)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

    return jax.value_and_grad(objective, (0, 1), has_aux=True)


@pytest.mark.parametrize("pixels, channels, kernel, stride, padding", GEOMETRIES)
def test_equals_a_loop_of_lax_convolutions(pixels, channels, kernel, stride, padding):
    x, w = arrays(pixels, kernel, channels=channels)
    (_, y), grads = jax.jit(jax.vmap(value_and_grads(member_conv, stride, padding)))(x, w)
    for m in range(3):
        (_, y_m), grads_m = value_and_grads(lax_conv, stride, padding)(x[m], w[m])
        np.testing.assert_allclose(y[m], y_m, atol=2e-5)
        for mine, theirs in zip(grads, grads_m):
            np.testing.assert_allclose(mine[m], theirs, atol=2e-4)


def test_bfloat16_stays_close_to_float32():
    x, w = arrays(8, 3)
    exact = lax_conv(x[0], w[0], (1, 1), "SAME")
    half = member_conv(x[0].astype(jnp.bfloat16), w[0].astype(jnp.bfloat16), (1, 1), "SAME")
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=0.1)


def test_members_are_not_grouped():
    x, w = arrays(8, 3)
    step = jax.vmap(value_and_grads(member_conv, 1, "SAME"))
    text = jax.jit(step).lower(x, w).as_text()
    assert text.count("stablehlo.convolution") >= 9  # three members, three convolutions each
    assert set(re.findall(r"_group_count = (\d+)", text)) == {"1"}
    plain = jax.jit(jax.vmap(value_and_grads(lax_conv, 1, "SAME"))).lower(x, w).as_text()
    assert "3" in re.findall(r"_group_count = (\d+)", plain)


@pytest.mark.parametrize("batched", [(0, None), (None, 0)])
def test_one_side_shared(batched):
    x, w = arrays(8, 3)
    args = (x if batched[0] == 0 else x[0], w if batched[1] == 0 else w[0])
    y = jax.vmap(lambda a, b: member_conv(a, b, (1, 1), "SAME"), in_axes=batched)(*args)
    for m in range(3):
        expected = lax_conv(args[0][m] if batched[0] == 0 else args[0],
                            args[1][m] if batched[1] == 0 else args[1], (1, 1), "SAME")
        np.testing.assert_allclose(y[m], expected, atol=2e-5)


def test_under_scan_remat_and_shard_map():
    x, w = arrays(6, 3, members=4)

    def loss(w, x):
        def layer(x, _):
            return jax.checkpoint(lambda x: member_conv(x, w, (1, 1), "SAME")[..., :3])(x), None

        return jnp.sum(jax.lax.scan(layer, x, None, length=2)[0] ** 2)

    def reference(w, x):
        for _ in range(2):
            x = lax_conv(x, w, (1, 1), "SAME")[..., :3]
        return jnp.sum(x**2)

    mesh = jax.make_mesh((4,), ("member",), axis_types=(AxisType.Auto,))
    mapped = jax.jit(jax.shard_map(jax.vmap(jax.grad(loss)), mesh=mesh,
                                   in_specs=P("member"), out_specs=P("member")))
    expected = jnp.stack([jax.grad(reference)(w[m], x[m]) for m in range(4)])
    np.testing.assert_allclose(mapped(w, x), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("arguments, words", [
    ({"rhs_dilation": (2, 2)}, "dilation"),
    ({"feature_group_count": 3}, "groups"),
    ({"dimension_numbers": ("NCHW", "HWIO", "NHWC")}, "NHWC"),
    ({"precision": lax.Precision.HIGHEST}, "precision"),
])
def test_refuses_what_it_cannot_do(arguments, words):
    x, w = arrays(8, 3)
    with pytest.raises(ValueError, match=words):
        member_conv(x[0], w[0], (1, 1), "SAME", **arguments)

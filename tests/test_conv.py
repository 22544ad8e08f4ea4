import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from unlearn_jax import native
from unlearn_jax.networks import conv
from unlearn_jax.networks.conv import (
    DIMENSION_NUMBERS,
    SETTINGS,
    Convolution,
    convolutions,
    member_conv,
)
from unlearn_jax.system.target import Target, tracing_for

TWO_CORES = Target("cpu", threads=2)

needs_native = pytest.mark.skipif(bool(native.unavailable()), reason=native.unavailable())

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


def outputs_and_grads(conv, stride, padding):
    """`(x, w) -> (y, grad of x, grad of w)`; the gradient of y is a cosine."""
    def fun(x, w):
        y, pull = jax.vjp(lambda x, w: conv(x, w, (stride, stride), padding), x, w)
        return y, *pull(jnp.asarray(cosine(y.shape), y.dtype))

    return fun


def cosine(shape):
    return np.cos(np.arange(np.prod(shape))).reshape(shape)


def reference(x, w, stride, padding):
    """The same for one member, in NumPy and float64."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    pads = lax.padtype_to_pads(x.shape[1:3], w.shape[:2], (stride, stride), padding) \
        if isinstance(padding, str) else padding
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = ((padded.shape[1 + d] - w.shape[d]) // stride + 1 for d in (0, 1))
    where = {(i, j): (slice(None), slice(i, i + stride * (height - 1) + 1, stride),
                      slice(j, j + stride * (width - 1) + 1, stride))
             for i in range(w.shape[0]) for j in range(w.shape[1])}
    y = sum(padded[at] @ w[ij] for ij, at in where.items())
    g, padded_grad, w_grad = cosine(y.shape), np.zeros_like(padded), np.zeros_like(w)
    for ij, at in where.items():
        padded_grad[at] += g @ w[ij].T
        w_grad[ij] = np.einsum("bhwc,bhwo->co", padded[at], g)
    (top, _), (left, _) = pads
    return y, padded_grad[:, top:top + x.shape[1], left:left + x.shape[2]], w_grad


def check(found, expected, dtype=jnp.float32):
    for mine, theirs, atol in zip(found, expected, (2e-5, 2e-4, 2e-4)):
        assert mine.dtype == dtype
        if dtype == jnp.float32:
            np.testing.assert_allclose(mine, theirs, atol=atol)
        else:  # bfloat16 has eight bits: a rounding is up to 0.4 %
            distance = np.linalg.norm(np.asarray(mine, np.float64) - theirs)
            assert 0 < distance < 0.01 * np.linalg.norm(theirs)


def check_members(setting, pixels, channels, kernel, stride, padding, dtype=jnp.float32):
    # two members: each has convolutions of its own in the program, which takes long to compile
    x, w = arrays(pixels, kernel, members=2, channels=channels, dtype=dtype)
    with convolutions(setting), tracing_for("cpu", threads=2):
        found = jax.jit(jax.vmap(outputs_and_grads(member_conv, stride, padding)))(x, w)
    for m in range(2):
        check([a[m] for a in found], reference(x[m], w[m], stride, padding), dtype)


@pytest.mark.parametrize("setting", ["direct", "patches"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_equals_a_loop_of_lax_convolutions(geometry, setting):
    check_members(setting, *geometry)


@needs_native
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_onednn_equals_a_loop_of_lax_convolutions(geometry, dtype):
    check_members("onednn", *geometry, dtype=dtype)


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s != "auto"])
def test_every_setting_computes_the_same(setting):
    check_members(setting, *GEOMETRIES[1])


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_computes_the_same_in_bfloat16(setting):
    check_members(setting, *GEOMETRIES[1], dtype=jnp.bfloat16)


def test_the_table_goes_by_phase_and_shape():
    def chosen(phase, stride=1, kernel=3, pixels=8, channels=8):
        half = ((kernel // 2, kernel // 2),) * 2
        how = Convolution((stride, stride), half, "auto", Target("cpu"))
        return how.formulation(phase, (2, pixels * stride, pixels * stride, channels),
                               (kernel, kernel, channels, 4), jnp.float32)

    assert chosen("forward") == chosen("input_grad") == chosen("weight_grad") == "direct"
    assert chosen("forward", pixels=2) == chosen("input_grad", pixels=2) == "patches"
    assert chosen("weight_grad", stride=2) == chosen("weight_grad", kernel=1) == "products"
    assert chosen("weight_grad", stride=2, channels=3) == "direct"
    assert chosen("forward", stride=2) == chosen("forward", pixels=4) == "direct"
    assert chosen("input_grad", stride=2) == chosen("input_grad", pixels=4) == "patches"


def test_another_type_of_the_kernel_is_refused():
    x, w = arrays(6, 3)
    with pytest.raises(ValueError, match="one type, not bfloat16 and float32"):
        member_conv(x[0].astype(jnp.bfloat16), w[0], (1, 1), "SAME")


@pytest.mark.parametrize("threads", [0, 2])
def test_no_images_give_no_outputs(threads):
    x, w = arrays(6, 3)
    with tracing_for("cpu", threads):
        assert jax.jit(lambda x, w: member_conv(x, w, (1, 1), "SAME"))(x[0, :0], w[0]).shape \
            == (0, 6, 6, 4)


@needs_native
def test_the_table_prefers_onednn_but_for_the_input_gradient_of_strided_1x1():
    how = Convolution((2, 2), ((0, 0), (0, 0)), "auto", TWO_CORES)
    chosen = {phase: how.formulation(phase, (2, 8, 8, 16), (1, 1, 16, 32), jnp.float32)
              for phase in conv.PHASES}
    assert chosen == {"forward": "onednn", "input_grad": "patches", "weight_grad": "onednn"}
    assert how.formulation("input_grad", (2, 8, 8, 16), (3, 3, 16, 32), jnp.float32) == "onednn"


@needs_native
@pytest.mark.parametrize("target, dtype, formulation", [
    (TWO_CORES, jnp.float32, "onednn"), (TWO_CORES, jnp.float16, "direct"),
    (Target("cpu"), jnp.float32, "direct"), (Target("gpu", threads=2), jnp.float32, "direct"),
])
@pytest.mark.parametrize("setting", ["auto", "onednn"])
def test_onednn_is_taken_where_it_can_compute(setting, target, dtype, formulation):
    how = Convolution((1, 1), ((1, 1), (1, 1)), setting, target)
    assert how.formulation("forward", (2, 8, 8, 8), (3, 3, 8, 4), dtype) == formulation


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="auto, direct.*'fast'"), convolutions("fast"):
        pass


def test_many_members_are_worked_through_in_a_loop(monkeypatch):
    monkeypatch.setattr(conv, "MAX_UNROLLED", 2)
    x, w = arrays(6, 3, members=5)
    step = jax.jit(jax.vmap(outputs_and_grads(member_conv, 1, "SAME")))
    text = step.lower(x, w).as_text()
    # two in the loop, and the one that is left
    assert "while" in text and text.count("stablehlo.convolution") == 3 * 3
    found = step(x, w)
    for m in range(5):
        check([a[m] for a in found], reference(x[m], w[m], 1, "SAME"))


@pytest.mark.parametrize("images, geometry", [
    (1, GEOMETRIES[1]), (2, GEOMETRIES[7]), (9, GEOMETRIES[4])])
@pytest.mark.parametrize("threads", [0, 2])
def test_per_sample_gradients(images, geometry, threads):
    pixels, channels, kernel, stride, padding = geometry
    x, w = arrays(pixels, kernel, members=4, channels=channels)
    x, w = jnp.tile(x, (1, images, 1, 1, 1))[:, :images], w[0]
    with tracing_for("cpu", threads):
        found = jax.jit(jax.vmap(outputs_and_grads(member_conv, stride, padding), (0, None)))(x, w)
    for s in range(4):
        check([a[s] for a in found], reference(x[s], w, stride, padding))


@pytest.mark.parametrize("members_outside", [True, False])
def test_per_sample_gradients_of_every_member(members_outside):
    x, w = arrays(6, 3, members=6)
    x, w = x.reshape(3, 2, *x.shape[1:]), w[:3]  # three members, two samples
    one = outputs_and_grads(member_conv, 1, "SAME")
    nested = jax.vmap(jax.vmap(one, (0, None))) if members_outside else \
        jax.vmap(jax.vmap(one), (1, None), 1)
    found = jax.jit(nested)(x, w)
    for m in range(3):
        for s in range(2):
            check([a[m, s] for a in found], reference(x[m, s], w[m], 1, "SAME"))


def test_samples_of_samples():
    x, w = arrays(6, 3, members=6)
    x, w = x.reshape(3, 2, *x.shape[1:]), w[0]
    one = outputs_and_grads(member_conv, 1, "SAME")
    found = jax.jit(jax.vmap(jax.vmap(one, (0, None)), (0, None)))(x, w)
    check([a[2, 1] for a in found], reference(x[2, 1], w, 1, "SAME"))


def test_gradients_of_every_output_share_the_images():
    x, w = arrays(3, 3)
    x, w = x[0, :1], w[0]
    mine, theirs = (jax.jit(jax.jacrev(lambda w, fun=fun: fun(x, w, (1, 1), "SAME")[0, 1]))(w)
                    for fun in (member_conv, lax_conv))
    np.testing.assert_allclose(mine, theirs, atol=2e-5)


def test_samples_are_not_written_out():
    x, w = arrays(8, 3, members=16)
    one = outputs_and_grads(member_conv, 1, "SAME")
    text = jax.jit(jax.vmap(one, (0, None))).lower(x, w[0]).as_text()
    assert text.count("stablehlo.convolution") == 2  # forward and input gradient
    assert text.count("stablehlo.dot_general") == 1
    assert set(re.findall(r"_group_count = (\d+)", text)) == {"1"}


def test_members_are_not_grouped():
    x, w = arrays(8, 3)
    step = jax.vmap(outputs_and_grads(member_conv, 1, "SAME"))
    text = jax.jit(step).lower(x, w).as_text()
    assert text.count("stablehlo.convolution") == 9  # three members, three convolutions each
    assert set(re.findall(r"_group_count = (\d+)", text)) == {"1"}
    plain = jax.jit(jax.vmap(outputs_and_grads(lax_conv, 1, "SAME"))).lower(x, w).as_text()
    assert "3" in re.findall(r"_group_count = (\d+)", plain)


@pytest.mark.parametrize("batched", [(0, None), (None, 0)])
def test_one_side_shared(batched):
    x, w = arrays(8, 3)
    args = (x if batched[0] == 0 else x[0], w if batched[1] == 0 else w[0])
    y = jax.vmap(lambda a, b: member_conv(a, b, (1, 1), "SAME"), in_axes=batched)(*args)
    for m in range(3):
        expected = reference(args[0][m] if batched[0] == 0 else args[0],
                             args[1][m] if batched[1] == 0 else args[1], 1, "SAME")
        check([y[m]], expected[:1])


@pytest.mark.parametrize("setting", ["auto", "onednn", "products", "loop"])
def test_under_scan_remat_and_shard_map(setting):
    x, w = arrays(6, 3, members=4)

    def loss(w, x):
        def layer(x, _):
            return jax.checkpoint(lambda x: member_conv(x, w, (1, 1), "SAME")[..., :3])(x), None

        return jnp.sum(jax.lax.scan(layer, x, None, length=2)[0] ** 2)

    def plain(w, x):
        for _ in range(2):
            x = lax_conv(x, w, (1, 1), "SAME")[..., :3]
        return jnp.sum(x**2)

    mesh = jax.make_mesh((4,), ("member",), axis_types=(AxisType.Auto,))
    mapped = jax.jit(jax.shard_map(jax.vmap(jax.grad(loss)), mesh=mesh,
                                   in_specs=P("member"), out_specs=P("member")))
    expected = jax.jit(lambda w, x: [jax.grad(plain)(w[m], x[m]) for m in range(4)])(w, x)
    with convolutions(setting), tracing_for("cpu", threads=2):
        np.testing.assert_allclose(mapped(w, x), np.stack(expected), rtol=1e-4, atol=1e-2)


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

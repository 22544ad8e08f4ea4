"""Networks as a user writes them: plain Flax, without code of this package."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

CALLS = []


class Cnn(nn.Module):
    """Plain, depthwise, dilated and grouped convolutions; batch norm, group norm, dropout."""

    num_outputs: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(8, (3, 3), use_bias=False, name="first")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        x = nn.Conv(8, (3, 3), strides=(2, 2), feature_group_count=8)(x)
        x = nn.relu(nn.GroupNorm(num_groups=2)(x))
        x = nn.Conv(8, (3, 3), feature_group_count=2, kernel_dilation=2)(x)
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(self.num_outputs, name="last")(x.mean((1, 2)))


class Block(nn.Module):
    """A block of a transformer."""

    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(y, y)
        y = nn.Dense(2 * x.shape[-1])(nn.LayerNorm()(x))
        return x + nn.Dense(x.shape[-1])(nn.gelu(y))


class Tokens(nn.Module):
    """A vision transformer; no batch statistics."""

    num_outputs: int
    class_token: bool = True

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(8, (4, 4), strides=(4, 4))(x)
        x = x.reshape(len(x), -1, x.shape[-1])
        if self.class_token:
            token = self.param("token", nn.initializers.zeros, (1, 1, x.shape[-1]))
            x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)
        x = x + self.param("position", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for _ in range(2):
            x = Block()(x)
        x = nn.LayerNorm()(x)
        return nn.Dense(self.num_outputs)(x[:, 0] if self.class_token else x.mean(1))


def mean_tokens(num_outputs):
    """A function that makes a module."""
    return Tokens(num_outputs, class_token=False)


class Dense(nn.Module):
    """A network without feature maps."""

    num_outputs: int

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_outputs)(nn.relu(nn.Dense(4)(x.reshape(len(x), -1))))


class Wrong(nn.Module):
    """Has one of many faults."""

    num_outputs: int
    way: str = ""
    held: Any = ()

    @nn.compact
    def __call__(self, x, train):
        if self.way == "cache":
            self.variable("cache", "seen", jnp.zeros, ()).value += 1
        if self.way == "python":
            CALLS.append(0)
            x = x * len(CALLS)
        if self.way == "attribute":
            self.seen = x
        width = self.num_outputs + (self.way == "shape")
        dtype = jnp.bfloat16 if self.way == "half" else jnp.float32
        z = nn.Dense(width, param_dtype=dtype)(x.reshape(len(x), -1))
        if self.way == "statistics":
            kept = self.variable("batch_stats", "kept", jnp.zeros, ())
            if train:
                kept.value = z
        return (z, z) if self.way == "pair" else z


class NoTrain(nn.Module):
    """Has no argument `train`."""

    num_outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_outputs)(x.reshape(len(x), -1))


def no_module(num_outputs):
    """Returns something else."""
    return [num_outputs]


def no_argument():
    """Takes no number of outputs."""
    return Cnn(1)


def wrong(way):
    """A callable that makes `Wrong`."""
    return lambda num_outputs: Wrong(num_outputs, way)


cache, python, attribute, shape, half, statistics, pair = map(wrong, (
    "cache", "python", "attribute", "shape", "half", "statistics", "pair"))
listed = lambda num_outputs: Wrong(num_outputs, held={1, 2})  # noqa: E731
NUMBER = 3

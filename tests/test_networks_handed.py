"""Networks that a Python program hands over: what identifies them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from unlearn_jax.config import default_config
from unlearn_jax.errors import ConfigError
from unlearn_jax.models import build_model, network_parts
from unlearn_jax.networks.handed import hand_over


def network(scale=1.0, table=(1.0, 2.0), name="Net", rate=0.0, start=nn.initializers.zeros):
    """A class of a network, made anew at each call, with a helper and a constant outside of it."""

    def helper(x):
        return x * scale + np.asarray(table, np.float32).sum()

    class Net(nn.Module):
        num_outputs: int

        @nn.compact
        def __call__(self, x, train):
            x = nn.Dropout(rate, deterministic=not train)(helper(x.mean((1, 2))))
            return nn.Dense(self.num_outputs, bias_init=start)(x)

    Net.__name__ = name
    return Net


def test_equal_computations_are_one_network_and_others_are_not():
    first = hand_over(network(), 3, 8)
    assert first == hand_over(network(), 3, 8)
    assert first.startswith("python:Net-")
    others = [network(scale=2.0), network(table=(1.0, 3.0)), network(rate=0.5),
              network(name="Other"), network(start=nn.initializers.ones)]
    assert len({first, *(hand_over(other, 3, 8) for other in others)}) == len(others) + 1


def test_a_rule_for_the_gradient_is_part_of_it():
    def with_gradient(factor):
        @jax.custom_vjp
        def f(x):
            return x

        f.defvjp(lambda x: (x, None), lambda _, g: (factor * g,))

        class Net(nn.Module):
            num_outputs: int

            @nn.compact
            def __call__(self, x, train):
                return f(nn.Dense(self.num_outputs)(x.mean((1, 2))))

        return hand_over(Net, 2, 8)

    assert with_gradient(1.0) == with_gradient(1.0) != with_gradient(2.0)


def test_it_is_a_network_of_the_config():
    name = hand_over(network(), 3, 8)
    assert network_parts(name) == {"name": "Net", "code": name.rpartition("-")[2]}
    c = default_config()
    with c.unlocked():
        c.model.name = name
    model = build_model(c.model, 8, 3)
    variables = model.init(jax.random.key(0))
    assert variables["params"]["Dense_0"]["kernel"].shape == (3, 3)
    made = hand_over(network()(num_outputs=3), 3, 8)  # a module rather than its class
    assert made == name


def test_what_is_refused():
    class Calls(nn.Module):
        num_outputs: int

        @nn.compact
        def __call__(self, x, train):
            x = nn.Dense(self.num_outputs)(x.mean((1, 2)))
            return x + jax.lax.stop_gradient(jax.pure_callback(
                lambda v: v, jax.ShapeDtypeStruct(x.shape, x.dtype), jax.lax.stop_gradient(x)))

    with pytest.raises(ConfigError, match="calls back into Python .*allowed: .*FILE|file"):
        hand_over(Calls, 3, 8)
    with pytest.raises(ConfigError, match="its trace raises TypeError"):
        hand_over(lambda n: nn.Dense(n), 3, 8)
    with pytest.raises(ConfigError, match="returns Array"):
        hand_over(lambda n: jnp.zeros(n), 3, 8)
    with pytest.raises(ConfigError, match="a network that a Python program handed to"):
        network_parts("python:Net-0123456789abcdef")

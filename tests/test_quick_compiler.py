"""The settings that make tests quick are in force."""

import jax
import jax.numpy as jnp


def test_programs_are_lowered_in_one_context():
    one, other = (jax.jit(f).lower(1.0).compiler_ir("stablehlo") for f in (jnp.sin, jnp.cos))
    assert one.context is other.context

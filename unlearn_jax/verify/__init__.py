"""Reads a store or work directories back: `python -m unlearn_jax.verify DIR`."""

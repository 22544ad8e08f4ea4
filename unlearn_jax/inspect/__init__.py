"""Looks into checkpoints: `python -m unlearn_jax.inspect PATH`. No JAX."""

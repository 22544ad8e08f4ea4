"""Shows the content of checkpoints: `python -m unlearn_jax.inspect PATH`. No JAX."""

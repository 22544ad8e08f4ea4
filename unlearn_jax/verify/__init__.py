"""Checks the files of a store or of work directories: `python -m unlearn_jax.verify DIR`."""

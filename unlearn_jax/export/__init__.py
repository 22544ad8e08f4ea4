"""Models out of the store, for other programs: `python -m unlearn_jax.export STAGE --to=FILE`."""

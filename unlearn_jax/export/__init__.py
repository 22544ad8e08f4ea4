"""Exports models from the store to other programs: `python -m unlearn_jax.export STAGE --to=FILE`.
"""

"""Explanations of a finished run: `python -m unlearn_jax.explain WORKDIR`.

In a run, `eval.explain_samples` turns explanations on. `attribution/` computes them,
`stages/explain.py` writes the results, `report/sections/explained.py` draws and describes them.
"""

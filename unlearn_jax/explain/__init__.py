"""Explanations: which image regions and which channels carry what is to be forgotten.

The command is `python -m unlearn_jax.explain WORKDIR`; in a run, `eval.explain_samples` turns
explanations on.

    attribution.py   one member: integrated gradients, Grad-CAM, mean activations of channels
    population.py    the same for all members of a stage
    likeness.py      how alike the maps of two models are, and the models of different seeds
    channels.py      which channels changed by more than the seeds differ
    __main__.py      the command

`stages/explain.py` writes the results, `report/sections/explained.py` draws and tells them.
"""

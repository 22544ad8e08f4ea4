"""Image regions and channels that carry an output, for one member and for all members.

    attribution.py   one member: integrated gradients, Grad-CAM, mean activations of channels
    population.py    the same for all members of a stage
    likeness.py      likeness of the maps of two models, and of models of different seeds
    channels.py      channels that changed by more than the seeds differ
"""

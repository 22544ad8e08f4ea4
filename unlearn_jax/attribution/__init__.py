"""Which image regions and which channels carry an output: of one member, and of all members.

    attribution.py   one member: integrated gradients, Grad-CAM, mean activations of channels
    population.py    the same for all members of a stage
    likeness.py      how alike the maps of two models are, and the models of different seeds
    channels.py      which channels changed by more than the seeds differ
"""

"""Population training: what members share, the compiled programs, and the host's part.

    recipe.py         what all members share, and the results of training
    run.py            trains a population, epoch by epoch
    programs.py       the compiled programs of a population
    batches.py        index arrays, and images that are read ahead
    groups.py         which members share a call
    history.py        the host's record of each epoch
    layout.py         devices, and how arrays lie on them
    memory.py         how many members fit into a call
    preparation.py    what a method may compute before its first step
    predict.py        outputs of all members on samples
    recalibration.py  running statistics of batch norms over the training set
    flops.py          floating-point operations of a program
"""

from unlearn_jax.moved import names_from

__getattr__ = names_from(__name__, "run")

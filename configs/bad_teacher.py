"""Bad teacher: a student of M_O learns from a random network on the forget set, else from M_O.

    python -m unlearn_jax.main --config=configs/bad_teacher.py

The scales are those of configs/ft.py, with which it shares M_O and M_R through the store.

                       published         default scale
    optimiser          adam              adam
    learning rate      1e-4, constant    4e-3, cosine
    batch              256               64
    epochs             1                 2, 7
    share of D_r       0.3               0.5
    T                  1                 1

The study's scale takes the published values. Those of the default scale were chosen on the
retained validation samples alone. With a share of 0.3 and eight epochs no rate of 1e-3, 2e-3 and
4e-3 kept the error there within 5 % of M_O's (5.70, 5.60 and 5.55 years against 5.25); with 0.5 and
seven epochs, which take no more images than ft's eight, 2e-3 and 4e-3 did (5.43 and 5.42).
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.unlearning(scale, "bad_teacher")
    if not scale:
        c.unlearn.epochs = (2, 7)
        c.unlearn.learning_rate = 4e-3
        c.unlearn.bad_teacher.retain_share = 0.5
    return c

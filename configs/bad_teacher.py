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
retained validation samples alone, of rates from 5e-4 to 4e-3 and shares of 0.3 and 0.5: with 0.3
no rate kept the error there within 5 % of M_O's (5.55 to 7.37 years against 5.25), with 0.5 both
rates tried did (5.43 at 2e-3, 5.42 at 4e-3). Seven epochs take no more images than ft's eight.
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

"""The feature injection test: a patch is put on some images of one group, then forgotten.

    python -m unlearn_jax.main --config=configs/injection.py            old synthetic faces
    python -m unlearn_jax.main --config=configs/injection.py:digits     zeros
    python -m unlearn_jax.main --config=configs/injection.py --config.unlearn.method=scrub

The metric `injection_effect` is how much a model's outputs on test images change when the patch is
stamped on them: large for M_O, near 0 for M_R. Source: Izzo et al. 2021.
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.unlearning(scale, "ft")
    c.data.inject = "patch:0:80" if scale == "digits" else "patch:50-60:160"
    c.forget.sets = ("injected",)
    c.eval.audits = ("injection", "mia")
    return c

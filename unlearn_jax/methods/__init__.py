"""The unlearning methods, one file each; a new one needs a file, a line here and a test."""

from unlearn_jax.methods import (
    activation,
    bad_teacher,
    blindspot,
    fisher,
    ft,
    gaussian_amnesiac,
    gradmask,
    kgltop1,
    l1_sparse,
    neggrad,
    neggrad_plus,
    reset,
    retrain,
    rnd,
    salun,
    scrub,
    sisa,
    ssd,
)
from unlearn_jax.methods.method import Method
from unlearn_jax.methods.outside import Found, load

METHODS: dict[str, Method] = {
    "retrain": retrain.METHOD,
    "ft": ft.METHOD,
    "rnd": rnd.METHOD,
    "activation": activation.METHOD,
    "bad_teacher": bad_teacher.METHOD,
    "blindspot": blindspot.METHOD,
    "fisher": fisher.METHOD,
    "gaussian_amnesiac": gaussian_amnesiac.METHOD,
    "gradmask": gradmask.METHOD,
    "kgltop1": kgltop1.METHOD,
    "l1_sparse": l1_sparse.METHOD,
    "neggrad": neggrad.METHOD,
    "neggrad_plus": neggrad_plus.METHOD,
    "reset": reset.METHOD,
    "salun": salun.METHOD,
    "scrub": scrub.METHOD,
    "sisa": sisa.METHOD,
    "ssd": ssd.METHOD,
}


def find_method(request: str) -> Found:
    """A method by its name, or a user's own method by `path/to/file.py:NAME`.

    Raises:
      ConfigError: there is no such method; lists those that exist.
    """
    if request in METHODS:
        return Found(request, METHODS[request], "")
    return load(request, tuple(METHODS))

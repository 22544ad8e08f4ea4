"""The unlearning methods, one file each; adding one is a file, a line here and a test."""

from unlearn_jax.methods import activation, blindspot, fisher, ft, gradmask, retrain, rnd, ssd
from unlearn_jax.methods.method import Method
from unlearn_jax.methods.outside import Found, load

METHODS: dict[str, Method] = {
    "retrain": retrain.METHOD,
    "ft": ft.METHOD,
    "rnd": rnd.METHOD,
    "activation": activation.METHOD,
    "blindspot": blindspot.METHOD,
    "fisher": fisher.METHOD,
    "gradmask": gradmask.METHOD,
    "ssd": ssd.METHOD,
}


def find_method(request: str) -> Found:
    """A method by its name, or one's own by `path/to/file.py:NAME`.

    Raises:
      ConfigError: there is no such method; lists those that exist.
    """
    if request in METHODS:
        return Found(request, METHODS[request], "")
    return load(request, tuple(METHODS))

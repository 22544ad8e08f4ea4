"""The unlearning methods, one file each; adding one is a file, a line here and a test."""

from unlearn_jax.methods import bad_teacher, ft, kgltop1, reset, retrain, rnd, scrub, sisa
from unlearn_jax.methods.method import Method
from unlearn_jax.methods.outside import Found, load

METHODS: dict[str, Method] = {
    "retrain": retrain.METHOD,
    "ft": ft.METHOD,
    "rnd": rnd.METHOD,
    "bad_teacher": bad_teacher.METHOD,
    "kgltop1": kgltop1.METHOD,
    "reset": reset.METHOD,
    "scrub": scrub.METHOD,
    "sisa": sisa.METHOD,
}


def find_method(request: str) -> Found:
    """A method by its name, or one's own by `path/to/file.py:NAME`.

    Raises:
      ConfigError: there is no such method; lists those that exist.
    """
    if request in METHODS:
        return Found(request, METHODS[request], "")
    return load(request, tuple(METHODS))

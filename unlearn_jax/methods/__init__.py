"""The unlearning methods, one file each; adding one is a file, a line here and a test."""

from unlearn_jax.methods import ft, retrain, rnd
from unlearn_jax.methods.method import Method

METHODS: dict[str, Method] = {
    "retrain": retrain.METHOD,
    "ft": ft.METHOD,
    "rnd": rnd.METHOD,
}

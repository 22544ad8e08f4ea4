"""Machine unlearning on image models: train, unlearn and audit whole populations."""

from unlearn_jax import moved

moved.install()

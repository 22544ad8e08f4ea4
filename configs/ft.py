"""Basic fine-tuning."""
from unlearn_jax.config import default_config
def get_config(scale=""):
    return default_config()

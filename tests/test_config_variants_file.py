"""Reading the config of a method beside the config of a comparison."""

import pytest

from unlearn_jax.config import variants
from unlearn_jax.errors import InputError


def test_a_config_that_is_no_python_file_is_refused_by_name(tmp_path):
    file = tmp_path / "scrub.txt"
    file.write_text("learning_rate = 0.1")
    with pytest.raises(InputError, match=r"scrub\.txt.*\.py"):
        variants.load_config(str(file))

"""Mistakes in arguments."""

import pytest

from unlearn_jax.errors import InputError
from unlearn_jax.system.arguments import Parser


def test_a_mistake_is_a_message_with_the_usage():
    parser = Parser("unlearn_jax.some", "DIR [--all]", "What it does.")
    parser.add_argument("path")
    with pytest.raises(InputError) as caught:
        parser.parse_args([])
    first, second = str(caught.value).split("\n")
    assert "path" in first and second == "usage: python -m unlearn_jax.some DIR [--all]"
    assert "What it does." in parser.format_help()

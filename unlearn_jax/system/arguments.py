"""Arguments of small programs: a mistake becomes a message of two lines."""

import argparse
from typing import NoReturn

from unlearn_jax.errors import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `InputError` where argparse would end the program.

    Args:
      module: the module that `python -m` runs.
      arguments: the text after the module in the usage line.
      description: the text of `--help`, unchanged.
    """

    def __init__(self, module: str, arguments: str, description: str | None):
        super().__init__(prog=f"python -m {module}", description=description,
                         formatter_class=argparse.RawDescriptionHelpFormatter)
        self._short = f"usage: {self.prog} {arguments}"

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}\n{self._short}")

"""A sweep's work directory, taken by a JSON file that says what the sweep is."""

import json
import os
from pathlib import Path
from typing import Any

from unlearn_jax.errors import InputError


def take(directory: Path, name: str, content: Any) -> None:
    """Writes the file, or finds it as it is to be.

    Args:
      directory: created if it is missing.
      name: of the file.
      content: as JSON gives it back.

    Raises:
      InputError: the directory holds another sweep or something else, or cannot be used.
    """
    path = directory / name
    try:
        if path.exists():
            _require_same(directory, path, content)
            return
        if directory.exists() and any(directory.iterdir()):
            raise InputError(f"--workdir={directory} is not empty and holds no sweep ({name}). "
                             "Give a new or an empty directory.")
        (directory / "logs").mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{name}.{os.getpid()}")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(temporary, path)
    except OSError as e:
        raise InputError(f"--workdir={directory} cannot be used: {e.strerror}") from e


def _require_same(directory: Path, path: Path, content: Any) -> None:
    try:
        there = json.loads(path.read_text())
    except ValueError as e:
        raise InputError(f"{path} is no plan of a sweep; give another --workdir") from e
    if there != content:
        raise InputError(
            f"--workdir={directory} holds another sweep ({_difference('plan', there, content)}). "
            "Give another --workdir; what both have in common is reused from the store.")


def _difference(where: str, there: Any, here: Any) -> str:
    """Where two JSON values differ first."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*here, *there]):
            if there.get(key) != here.get(key):
                return _difference(f"{where}, {key}", there.get(key), here.get(key))
    if isinstance(there, list) and isinstance(here, list):
        if len(there) != len(here):
            return f"{where}: {len(there)} there, {len(here)} here"
        for i, (a, b) in enumerate(zip(there, here), 1):
            if a != b:
                return _difference(f"{where} {i}", a, b)
    return f"{where}: {json.dumps(there)} there, {json.dumps(here)} here"

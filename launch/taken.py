"""A sweep's work directory, taken by a JSON file that says what the sweep is."""

import json
import os
from pathlib import Path
from typing import Any

from unlearn_jax.errors import InputError
from unlearn_jax.nested import differing


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
    if found := next(differing(there, content), None):
        key, before, now = found
        raise InputError(
            f"--workdir={directory} holds another sweep ({key}: {json.dumps(before)} there, "
            f"{json.dumps(now)} here). Give another --workdir; what both have in common is reused "
            "from the store.")

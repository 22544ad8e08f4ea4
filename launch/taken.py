"""Claims a sweep's work directory by a JSON file that describes the sweep."""

import json
import re
from pathlib import Path
from typing import Any

from absl import logging

from unlearn_jax.errors import InputError
from unlearn_jax.system import disk
from unlearn_jax.system.nested import differing

_LOGS = "logs"
_EARLIER_TEMP = re.compile(r"\.[a-z]+\.json\.[0-9]+")


def take(directory: Path, name: str, content: Any) -> None:
    """Writes the file, or checks that it already has this content.

    Args:
      directory: the directory; created if it is missing.
      name: name of the file.
      content: the content as it is read back from JSON.

    Raises:
      InputError: the directory holds another sweep or something else, or cannot be used.
    """
    path, text = directory / name, json.dumps(content, indent=1) + "\n"
    try:
        if path.exists():
            if not _is_cut(path, text):
                _require_same(directory, path, content)
                return
        elif directory.exists():
            disk.remove_stale(directory)
            if not all(map(_is_left, directory.iterdir())):
                raise InputError(f"--workdir={directory} is not empty and holds no sweep ({name}). "
                                 "Give a new or an empty directory.")
        (directory / _LOGS).mkdir(parents=True, exist_ok=True)
        disk.write_file(path, text)
    except OSError as e:
        raise InputError(f"--workdir={directory} cannot be used: {e.strerror}") from e


def _is_left(path: Path) -> bool:
    """Returns True if it may be left from a kill during writing; earlier versions: `.NAME.PID`.

    A file that is still locked belongs to a process that claims the same directory now.
    """
    if path.name == _LOGS:
        return path.is_dir() and not any(path.iterdir())
    return path.name.startswith(disk.TEMP) or bool(_EARLIER_TEMP.fullmatch(path.name))


def _is_cut(path: Path, text: str) -> bool:
    """Returns True if a file is empty or only the text's beginning, as after a power cut."""
    there = path.read_bytes().rstrip(b"\0")
    if there == text.encode() or not text.encode().startswith(there):
        return False
    logging.warning("%s was cut off; it is written again", path)
    return True


def _require_same(directory: Path, path: Path, content: Any) -> None:
    try:
        there = json.loads(path.read_text())
    except ValueError as e:
        raise InputError(f"{path} is no plan of a sweep; give another --workdir") from e
    if not isinstance(there, dict):
        raise InputError(f"{path} is no plan of a sweep; give another --workdir")
    if found := next(differing(there, content), None):
        key, before, now = found
        raise InputError(
            f"--workdir={directory} holds another sweep ({key}: {json.dumps(before)} there, "
            f"{json.dumps(now)} here). Give another --workdir; what both have in common is reused "
            "from the store.")

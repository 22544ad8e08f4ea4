"""The list of files that a run wrote to its work directory: `manifest.json`, with their digests.

A run removes the manifest when it begins and writes it when its results are complete; a report adds
its own files. So every file that a manifest names is whole, and a report or a merge refuses a file
that differs. Work directories of earlier versions have no manifest and are read without one.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unlearn_jax.errors import InputError
from unlearn_jax.system import disk

FILE = "manifest.json"
# Folders of a work directory, with all that is below; `explain` is a separate work directory.
FOLDERS = ("predictions", "explanations", "tensorboard", "figures", "tables", "receipt")
# The files that reports write, from the other files.
REPORTS = ("summary.csv", "verdict.csv", "leaderboard.csv", "leaderboard.tex", "report.md",
           "report.html", "explain.md", "explain.html", "figures/", "tables/", "receipt/")
_TABLES = (".csv", ".json")
_FORMAT = 1


class ManifestError(InputError):
    """A work directory's manifest is damaged, or a file differs from its entry."""


def write(directory: Path, names: Iterable[str] | None = None) -> None:
    """Writes the manifest of a run's own files, without those of a report.

    Args:
      directory: the work directory.
      names: relative names of the files; None: all that are there.
    """
    if names is None:
        names = [name for name in files(directory) if not is_of_report(name)]
    _write(directory, {name: disk.digest(directory / name) for name in names})


def remove(directory: Path) -> None:
    """Removes the manifest; to be called before files that it names change."""
    (directory / FILE).unlink(missing_ok=True)


def remove_debris(directory: Path) -> None:
    """Removes temporary files that killed processes left in a work directory."""
    for folder in (directory, *(directory / name for name in FOLDERS)):
        disk.remove_stale(folder)


def begin_report(directory: Path) -> None:
    """Removes what killed reports left, and takes the report's files out of the manifest.

    To be called before a report writes its files.
    """
    remove_debris(directory)
    if (directory / FILE).exists():
        _write(directory, {n: d for n, d in read(directory).items() if not is_of_report(n)})


def end_report(directory: Path) -> None:
    """Adds the report's files, which are whole now, to the manifest, if there is one."""
    if (directory / FILE).exists():
        _write(directory, read(directory) | {name: disk.digest(directory / name)
                                             for name in files(directory) if is_of_report(name)})


def is_reported(directory: Path) -> bool:
    """Whether a work directory has a whole report; earlier versions have no manifest to check.

    Raises:
      ManifestError: the manifest is damaged.
    """
    try:
        return any(map(is_of_report, read(directory)))
    except FileNotFoundError:
        return (directory / "report.html").exists()


def read(directory: Path) -> dict[str, str]:
    """{relative path: digest} of the files that the manifest names.

    Raises:
      ManifestError: it is damaged, or a later version wrote it.
      FileNotFoundError: there is none.
    """
    path = directory / FILE
    status = path.stat()
    return dict(_read(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
                      status.st_ino))


@functools.lru_cache(maxsize=8)  # a report checks each file that it reads
def _read(path: Path, *_: int) -> dict[str, str]:
    try:
        content = json.loads(path.read_bytes())
        found = {str(name): str(digest) for name, digest in content["files"].items()}
        whole = content["digest"] == _digest(content)
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ManifestError(f"{path} is damaged; run the command of {path.parent} again, which "
                            "makes it and all other files there anew from the store")
    if content["format"] != _FORMAT:
        raise ManifestError(f"{path} has format {content['format']!r}; this version reads "
                            f"{_FORMAT}")
    return found


def check(directory: Path, name: str) -> None:
    """Refuses a file that differs from its entry; accepts a file without an entry.

    Raises:
      ManifestError: the file was changed, or the manifest is damaged.
    """
    try:
        expected = read(directory).get(name)
        if expected is None or disk.digest(directory / name) == expected:
            return
    except FileNotFoundError:
        return
    raise ManifestError(f"{directory / name} is not the file that the run wrote: it does not match "
                        f"its digest in {FILE}; restore a copy, or remove {directory} and run its "
                        "command again, which takes the models from the store")


def files(directory: Path) -> list[str]:
    """Lists the files in a work directory that a run or its report writes.

    Returns:
      Sorted paths relative to `directory`. Files with other names are left out.
    """
    found = [p.name for p in directory.iterdir() if p.is_file()
             and (p.suffix in _TABLES or p.name in REPORTS)]
    found += [str(p.relative_to(directory)) for folder in FOLDERS
              for p in (directory / folder).rglob("*") if p.is_file()]
    return sorted(n for n in found if n != FILE and not _is_hidden(n))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split(os.sep))


def is_of_report(name: str) -> bool:
    """Whether a report writes the file of that relative path."""
    return name in REPORTS or name.startswith(tuple(r for r in REPORTS if r.endswith("/")))


def _write(directory: Path, digests: dict[str, str]) -> None:
    content: dict[str, Any] = {"format": _FORMAT, "files": dict(sorted(digests.items()))}
    content["digest"] = _digest(content)
    disk.write_file(directory / FILE, json.dumps(content, indent=1) + "\n")


def _digest(content: dict[str, Any]) -> str:
    """The digest of a manifest, without the digest that it holds."""
    text = json.dumps([content["format"], content["files"]], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

"""What a run has written to its work directory: `manifest.json`, with a digest of each file.

A run removes the manifest when it begins and writes it when its results stand; a report adds its
own files. So where there is one, every file that it names is whole, and a report or a merger that
reads another one refuses it. Work directories of earlier versions have none, and are read without.
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
# In a work directory, with all that is below; `explain` is a work directory of its own.
FOLDERS = ("predictions", "explanations", "tensorboard", "figures", "tables")
# What reports write; they are made of the rest.
REPORTS = ("summary.csv", "verdict.csv", "leaderboard.csv", "leaderboard.tex", "report.md",
           "report.html", "explain.md", "explain.html", "figures/", "tables/")
_TABLES = (".csv", ".json")
_FORMAT = 1


class ManifestError(InputError):
    """A work directory's manifest is damaged, or a file is not the one that it names."""


def write(directory: Path, names: Iterable[str] | None = None) -> None:
    """Writes the manifest of a run's own files, without those of a report.

    Args:
      directory: the work directory.
      names: of the files, relative; None: all that are there.
    """
    if names is None:
        names = [name for name in files(directory) if not is_of_report(name)]
    _write(directory, {name: disk.digest(directory / name) for name in names})


def remove(directory: Path) -> None:
    """To be called before files change that the manifest names."""
    (directory / FILE).unlink(missing_ok=True)


def remove_debris(directory: Path) -> None:
    """Removes what killed processes left in a work directory while they wrote to it."""
    for folder in (directory, *(directory / name for name in FOLDERS)):
        disk.remove_stale(folder)


def begin_report(directory: Path) -> None:
    """Removes what killed reports left, and takes the report's files out of the manifest.

    To be called before they are written.
    """
    remove_debris(directory)
    if (directory / FILE).exists():
        _write(directory, {n: d for n, d in read(directory).items() if not is_of_report(n)})


def end_report(directory: Path) -> None:
    """Takes the report's files, which are whole now, into the manifest, if there is one."""
    if (directory / FILE).exists():
        _write(directory, read(directory) | {name: disk.digest(directory / name)
                                             for name in files(directory) if is_of_report(name)})


def is_reported(directory: Path) -> bool:
    """Whether a work directory has a whole report; earlier versions have no manifest to say so.

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


@functools.lru_cache(maxsize=8)  # of each file that is read a report asks
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
    """Refuses a file that is not the one that the manifest names; accepts one that it does not.

    Raises:
      ManifestError: it was changed, or the manifest is damaged.
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
    """Relative paths of what a run and its report may have written, sorted."""
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
    """Of a manifest, but for the digest that it holds."""
    text = json.dumps([content["format"], content["files"]], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

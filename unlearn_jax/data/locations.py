"""Where the file of a sample lies, from its id and the config."""

from pathlib import Path
from typing import Any

from unlearn_jax.data.files import ARCHIVES


def location(settings: Any, own: str) -> str:
    """The path of a sample's file, or in words where it is; '' where it has no file.

    Args:
      settings: the section `data` of the config: source, path.
      own: the sample's id.
    """
    kind, _, name = settings.source.partition(":")
    if kind == "synthetic":
        return ""
    if kind == "digits":
        return "part of the package scikit-learn"
    if kind == "arrays":
        return f"{own} in {settings.path}"
    if kind == "tfds":
        return f"tfds:{name} below {settings.path or '~/tensorflow_datasets'}"
    path = Path(settings.path).expanduser()
    if path.suffix.lower() == ".csv":
        path = path.parent
    if path.is_dir():
        archives = sorted(p for p in path.iterdir() if p.name.lower().endswith(ARCHIVES))
        if (path / own).exists() or not archives:
            # An id of UTKFace is a file name, and its file may lie deeper.
            deeper = () if (path / own).exists() or "/" in own else tuple(path.rglob(_literal(own)))
            return str(deeper[0] if deeper else path / own)
        path = archives[0]
    return f"{own} in {path}"


def _literal(name: str) -> str:
    """A pattern that matches this name alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)

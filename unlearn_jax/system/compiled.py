"""JAX's cache of compiled programs, with a digest after each.

JAX writes an entry in place and never again. If a kill cut it off or a disk damaged it, JAX warns
and compiles at every later run. If zstandard compressed it, without a checksum, JAX may also load
a wrong program. Here an entry appears whole, and one that does not match its digest is removed,
compiled again and stored. JAX has no public name for the class that this replaces.
"""

import hashlib
from pathlib import Path

import jax
from absl import logging
from jax._src import compilation_cache

from unlearn_jax.system import disk

FOLDER = "compiled"  # of the store
SUFFIX = "-cache"  # JAX ends the name of an entry so
_MARK = b"unlearn_jax"
_DIGEST = 16  # bytes
_TAIL = len(_MARK) + _DIGEST


def keep_in(directory: Path) -> None:
    """Makes JAX keep compiled programs in a directory, for the rest of this process."""
    jax.config.update("jax_compilation_cache_dir", str(directory.absolute()))
    compilation_cache.reset_cache()
    compilation_cache._initialize_cache()
    cache = compilation_cache._cache
    # JAX's own cache is used if the user's environment switches it off, limits or checks it.
    if type(cache) is compilation_cache.LRUCache and not cache.eviction_enabled:
        compilation_cache._cache = _Checked(directory.absolute())


class _Checked(compilation_cache.CacheInterface):
    """Replaces JAX's own cache."""

    def __init__(self, directory: Path):
        self._path = directory  # JAX reads it for its log

    def get(self, key: str) -> bytes | None:
        """The entry of a key; None if there is none, or a damaged one, which is removed."""
        path = self._path / f"{key}{SUFFIX}"
        try:
            value = content(path.read_bytes())
        except FileNotFoundError:
            return None
        if value is None:
            logging.warning("%s is damaged; the program is compiled again", path)
            path.unlink(missing_ok=True)
        return value

    def put(self, key: str, value: bytes) -> None:
        """Stores an entry, unless the key has one."""
        path = self._path / f"{key}{SUFFIX}"
        if not path.exists():
            disk.write_file(path, value + _MARK + _hash(value))


def content(stored: bytes) -> bytes | None:
    """The content that JAX stored; None if it is damaged.

    Entries of earlier versions have no digest. Those compressed by zlib, which JAX uses without
    zstandard, have a checksum.
    """
    value, tail = stored[:-_TAIL], stored[-_TAIL:]
    if tail == _MARK + _hash(value):
        return value
    if _MARK in tail:  # the digest, or the content before it, was changed
        return None
    try:
        compilation_cache.decompress_executable(stored)
    except Exception:  # errors of zlib or of zstandard
        return None
    return stored


def _hash(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=_DIGEST).digest()

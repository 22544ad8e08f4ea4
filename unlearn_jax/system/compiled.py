"""JAX's cache of compiled programs, with a digest behind each.

JAX writes an entry in place and never again: one that a kill cut off, or that a disk damaged, makes
it warn and compile at each run for ever, or load another program where zstandard, which has no
checksum there, compressed it. Here an entry appears whole, and one that does not match its digest
is removed, compiled again and stored. JAX has no public name for what this takes the place of.
"""

import hashlib
from pathlib import Path

import jax
from absl import logging
from jax._src import compilation_cache

from unlearn_jax.system import disk

FOLDER = "compiled"  # of the store
SUFFIX = "-cache"  # ends the name of an entry, as JAX has it
_MARK = b"unlearn_jax"
_DIGEST = 16  # bytes
_TAIL = len(_MARK) + _DIGEST


def keep_in(directory: Path) -> None:
    """Makes JAX keep compiled programs in a directory, from now on in this process."""
    jax.config.update("jax_compilation_cache_dir", str(directory.absolute()))
    compilation_cache.reset_cache()
    compilation_cache._initialize_cache()
    cache = compilation_cache._cache
    # JAX's own where the user's environment switches it off, limits its size, or has it checked.
    if type(cache) is compilation_cache.LRUCache and not cache.eviction_enabled:
        compilation_cache._cache = _Checked(directory.absolute())


class _Checked(compilation_cache.CacheInterface):
    """In the place of JAX's own cache."""

    def __init__(self, directory: Path):
        self._path = directory  # JAX reads it for its log

    def get(self, key: str) -> bytes | None:
        """The entry of a key, None where there is none or a damaged one, which is removed."""
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
        """Stores an entry, unless there is one."""
        path = self._path / f"{key}{SUFFIX}"
        if not path.exists():
            disk.write_file(path, value + _MARK + _hash(value))


def content(stored: bytes) -> bytes | None:
    """What JAX gave to be stored, None where that is damaged.

    Entries of earlier versions have no digest; zlib, which compressed them where zstandard is not
    installed, has a checksum.
    """
    value, tail = stored[:-_TAIL], stored[-_TAIL:]
    if tail == _MARK + _hash(value):
        return value
    if _MARK in tail:  # its digest, or what is before it, was changed
        return None
    try:
        compilation_cache.decompress_executable(stored)
    except Exception:  # that of zlib or of zstandard
        return None
    return stored


def _hash(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=_DIGEST).digest()

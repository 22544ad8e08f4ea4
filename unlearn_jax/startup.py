"""The start of every program that runs studies, and its end after a user's mistake."""

import errno
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from unlearn_jax.errors import InputError
from unlearn_jax.storage.store import Store
from unlearn_jax.system import compiled, disk, interrupt, log_lines
from unlearn_jax.system.cpu import divide_cores, keep_freed_memory

# Errors from files or names of the user that are in the way of what a program reads or writes.
_IN_THE_WAY = (errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG,
               errno.ENOTDIR, errno.EPERM, errno.EROFS)


def set_up(config: ml_collections.ConfigDict, store: Store) -> None:
    """Makes this process ready for a study: its signals, its devices, its store.

    Args:
      config: the checked config.
      store: the store; created if it does not exist.

    Raises:
      StoreError: the store cannot be created or written to.
    """
    use_devices(config)
    use_store(store)


def use_devices(config: ml_collections.ConfigDict) -> None:
    """Listens to signals and sets up devices; to be called before jax looks for any."""
    interrupt.listen()
    log_lines.install()
    set_up_devices(config)


def set_up_devices(config: ml_collections.ConfigDict) -> None:
    """Divides the cores of a CPU into devices.

    Raises:
      RuntimeError: jax has its devices already; they stay as they are.
    """
    for name in ("xla_bridge", "compilation_cache"):  # a missing TPU, a new cache: no news
        logging.getLogger(f"jax._src.{name}").setLevel(logging.WARNING)
    keep_freed_memory()
    divide_cores(config.parallel.cpu_devices)
    if config.parallel.backend == "cpu":
        jax.config.update("jax_platforms", "cpu")  # all of jax: nothing goes over a GPU


def use_store(store: Store) -> None:
    """Creates the store and keeps compiled programs there, unless JAX has another folder for them.

    Raises:
      StoreError: the store cannot be created or written to.
    """
    store.create()
    keep_compiled(store)


def keep_compiled(store: Store) -> None:
    """Keeps compiled programs in the store, or in the folder JAX_COMPILATION_CACHE_DIR."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        compiled.keep_in(store.root / compiled.FOLDER)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def run(program: Callable[[], Any]) -> Any:
    """Runs a program and returns its result; errors that a user can fix end it with a message."""
    try:
        return program()
    except InputError as e:
        sys.exit(f"unlearn_jax: {': '.join([*getattr(e, '__notes__', ()), str(e)])}")
    except KeyboardInterrupt:
        print("unlearn_jax: interrupted; finished stages and checkpoints are kept, and the same "
              "command goes on", file=sys.stderr)
        sys.exit(interrupt.CTRL_C)
    except MemoryError as e:
        sys.exit(f"unlearn_jax: not enough memory ({e}); ask for fewer or smaller images, smaller "
                 "batches or a smaller model. Finished stages are kept.")
    except OSError as e:
        if disk.is_full(e):
            where = e.filename or "this run's work directory, its store or temporary files"
            sys.exit(f"unlearn_jax: no room left on the disk for {where}.\nFree some space and run "
                     "the same command again; finished stages are kept.")
        if e.errno not in _IN_THE_WAY or e.filename is None:
            raise
        sys.exit(f"unlearn_jax: {e.filename} cannot be used: {e.strerror}. Remove what is in the "
                 "way, or give another place.")

"""Runs a study from Python, by the same stages as the command line."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from flax import linen as nn

from unlearn_jax import startup
from unlearn_jax.api.arrays import Data
from unlearn_jax.api.finished import CompletedStudy, open_study
from unlearn_jax.api.settings import study_config
from unlearn_jax.config import check_config
from unlearn_jax.data.arrays import write_arrays
from unlearn_jax.networks.conv import convolutions
from unlearn_jax.networks.handed import hand_over
from unlearn_jax.stages import run_study
from unlearn_jax.storage.store import Store
from unlearn_jax.system import interrupt
from unlearn_jax.system.bars import work_bar


def study(data: Data, *, network: str | nn.Module | Callable[[int], nn.Module] = "resnet10",
          methods: Sequence[str] = ("ft",), seeds: int | Sequence[int] = 3,
          epochs: int | None = None, unlearn_epochs: int | Sequence[int] | None = None,
          workdir: str | os.PathLike[str] = "runs/study",
          store: str | os.PathLike[str] = "runs/store",
          config: Mapping[str, Any] | None = None, progress: bool = True) -> CompletedStudy:
    """Trains M_O and M_R, unlearns, measures and writes the report, as `unlearn-jax run` does.

    What the store has already is not computed again. A call that was interrupted goes on where it
    stopped when it is repeated.

    Args:
      data: images, labels and forget sets. They are written into the store.
      network: a name (`unlearn-jax list networks`), `path/to/file.py:NAME`, or a Flax network: a
        callable `(num_outputs) -> flax.linen.Module`, or a module with a field `num_outputs`. Its
        `__call__(x, train)` maps images `[B, H, W, 3]` to `[B, num_outputs]`.
      methods: names (`unlearn-jax list methods`), or `path/to/file.py:NAME`. Each runs with the
        values of its own file in `configs/`.
      seeds: number of seeds, counted from 0, or the seeds. Each is a member of the population.
      epochs: of M_O and M_R; `train.epochs`.
      unlearn_epochs: budgets of the methods that take steps; `unlearn.epochs`.
      workdir: where the results go. It must be new, or hold a run of the same config.
      store: where data, models and predictions are kept. Runs share it.
      config: values of further keys (`unlearn-jax list keys`), such as
        `{"train.learning_rate": 0.1}`.
      progress: whether to show the plan of several methods, and progress bars.

    Raises:
      InputError: an argument cannot be used; the message says what is allowed. Nothing has been
        trained then.
      KeyboardInterrupt: after Ctrl-C; what is finished or saved stays.
    """
    root, directory = Path(store).absolute(), Path(workdir)
    changes = {
        "seeds": tuple(range(seeds)) if isinstance(seeds, int) else tuple(map(int, seeds)),
        **({} if epochs is None else {"train.epochs": epochs}),
        **({} if unlearn_epochs is None else {"unlearn.epochs": (unlearn_epochs,) if isinstance(
            unlearn_epochs, int) else tuple(map(int, unlearn_epochs))}),
        **(config or {})}
    size = (config or {}).get("data.image_size", max(8, data.image_size))
    name = network if isinstance(network, str) else hand_over(
        network, data.num_classes or 1, size)
    path = write_arrays(root / "data", data.arrays())
    settings = study_config(data, path, name, methods, changes)
    check_config(settings)
    command = (f"unlearn_jax.study(data, network={name!r}, methods={tuple(methods)!r}, "
               f"workdir={str(directory)!r}, store={str(root)!r}, config={changes!r})")
    with _process(settings, Store(root)):
        run_study(settings, "study", directory, Store(root), command,
                  work_bar() if progress else None)
    return open_study(directory)


@contextlib.contextmanager
def _process(config: ml_collections.ConfigDict, store: Store) -> Iterator[None]:
    """Makes this process ready for a study, and undoes what other code might notice."""
    try:
        with interrupt.listening(), convolutions(config.parallel.convolution):
            with contextlib.suppress(RuntimeError):  # JAX runs here already, on its devices
                startup.set_up_devices(config)
            startup.use_store(store)
            yield
    except interrupt.Interrupted as e:
        if e.code == interrupt.CTRL_C:  # a program of its own would end with this code
            raise KeyboardInterrupt from e
        raise

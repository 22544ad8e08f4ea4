"""The splits where a list says which samples an M_O from outside was trained on.

The listed samples are the training split, wherever the draw had put them. The others were not
seen, so none of them is a member: they are validation and test samples.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from unlearn_jax.data.dataset import Dataset
from unlearn_jax.errors import InputError

_KEY = "config.original.trained_on"
_UNSEEN = 8  # the data seed's stream; splits.py lists the others


def divide_by_list(dataset: Dataset, parts: tuple[np.ndarray, ...], data_cfg, path: str,
                   known: Collection[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test rows, int32, sorted.

    Samples that M_O did not see are drawn into validation and test by the shares of `data.split`.
    Where the splits come with the data, the test split keeps its unseen samples, and all other
    unseen samples are validation samples.

    Args:
      dataset: N samples.
      parts: rows of the three splits without the list.
      data_cfg: the config's `data` section: split, seed.
      path: the list, one id a line; empty lines do not count, nor do lines that begin with # and
        are no id.
      known: ids of the data set, and of the samples left out of it.

    Raises:
      InputError: the list cannot be read, names unknown ids or no sample of the data, or leaves
        nothing for the validation or the test split.
    """
    seen = np.isin(dataset.ids, list(_listed(path, known, str(dataset.ids[0]))))
    train, unseen = np.flatnonzero(seen), np.flatnonzero(~seen)
    if len(data_cfg.split) == 3:
        share = data_cfg.split[1] / (data_cfg.split[1] + data_cfg.split[2])
        order = np.random.default_rng([data_cfg.seed, _UNSEEN]).permutation(unseen)
        validation, test = np.split(order, [round(share * len(unseen))])
    else:
        test = parts[2][~seen[parts[2]]]
        validation = np.setdiff1d(unseen, test)
    for name, rows in (("training", train), ("validation", validation), ("test", test)):
        if not len(rows):
            raise InputError(f"{_KEY}={path!r} lists {len(train)} of the {len(seen)} samples, "
                             f"which leaves no {name} sample\nallowed: a list that leaves unseen "
                             "samples for validation and test; add some that M_O did not see")
    first, second, third = (np.sort(rows).astype(np.int32) for rows in (train, validation, test))
    return first, second, third


def _listed(path: str, known: Collection[str], example: str) -> set[str]:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{_KEY}={path!r} cannot be read ({e})\nallowed: a text file with one "
                         "sample id a line") from e
    known = frozenset(known)
    # not `splitlines`, which also splits a file name at a form feed or U+2028
    lines = {line for line in map(str.strip, text.split("\n")) if line}
    wanted = {line for line in lines if line in known or not line.startswith("#")}
    if unknown := sorted(wanted - known):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise InputError(f"{_KEY}={path!r}: {len(unknown)} of {len(wanted)} ids are unknown: "
                         f"{', '.join(map(repr, unknown[:3]))}{more}\nids look like {example!r}; "
                         "labels.csv and predictions/*.npz of a run hold those of its data")
    return wanted

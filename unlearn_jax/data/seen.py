"""The splits where a list says which samples an M_O from outside was trained on.

The listed samples are the training split, wherever the draw had put them. The others were not
seen, so none of them is a member: they are validation and test samples.
"""

import numpy as np

from unlearn_jax.data import given
from unlearn_jax.data.asked import read_ids, unknown_in_words
from unlearn_jax.data.dataset import Dataset
from unlearn_jax.errors import InputError

_KEY = "config.original.trained_on"
_UNSEEN = 8  # the data seed's stream; splits.py lists the others


def divide_by_list(dataset: Dataset, parts: tuple[np.ndarray, ...], data_cfg,
                   path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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

    Raises:
      InputError: the list cannot be read, names unknown ids or no sample of the data, or leaves
        nothing for the validation or the test split.
    """
    wish = f"{_KEY}={path!r}"
    listed = read_ids(path, wish, dataset)
    if unknown := unknown_in_words(listed):
        raise InputError(f"{wish}: {unknown}\nids look like {str(dataset.ids[0])!r} "
                         "(unlearn-jax list ids writes them all)")
    seen = np.isin(dataset.ids, [own for asked in listed for own in asked.found])
    train, unseen = np.flatnonzero(seen), np.flatnonzero(~seen)
    if not given.is_given(data_cfg):
        share = data_cfg.split[1] / (data_cfg.split[1] + data_cfg.split[2])
        order = np.random.default_rng([data_cfg.seed, _UNSEEN]).permutation(unseen)
        validation, test = np.split(order, [round(share * len(unseen))])
    else:
        test = parts[2][~seen[parts[2]]]
        validation = np.setdiff1d(unseen, test)
    for name, rows in (("training", train), ("validation", validation), ("test", test)):
        if not len(rows):
            raise InputError(f"{wish} lists {len(train)} of the {len(seen)} samples, "
                             f"which leaves no {name} sample\nallowed: a list that leaves unseen "
                             "samples for validation and test; add some that M_O did not see")
    first, second, third = (np.sort(rows).astype(np.int32) for rows in (train, validation, test))
    return first, second, third


"""The rows of requests.csv: where each id of a deletion request was found, and its equal images."""

from collections.abc import Iterator
from typing import Any

from unlearn_jax.data.dataset import Dataset
from unlearn_jax.data.locations import location
from unlearn_jax.data.splits import ForgetSet, Splits

COLUMNS = ("forget_set", "asked", "times", "id", "split", "why", "file", "trained_on",
           "equal_images", "image_trained_on", "image_retained")
BETWEEN = " | "  # between several ids in a cell
UNKNOWN, LEFT_OUT, DROPPED = "unknown", "left out", "dropped"
_YES, _NO = "yes", "no"


def request_rows(dataset: Dataset, splits: Splits, settings: Any) -> Iterator[dict[str, Any]]:
    """Rows for all forget sets that are files of ids.

    First the ids that were asked for, in the order of the file, then the images with the same
    pixels that were not asked for; these have no `asked`. Images that are outside the configured
    share or range were not decoded, so they are compared with none.

    Columns: `asked` as in the file, `times` how often; `id` and `split` in the data set, with the
    reason `why` it was left out; `file`; `trained_on`, whether M_O was trained on this id;
    `equal_images`, all other ids of the same pixels; `image_trained_on`, whether M_O was trained on
    it or one of them; `image_retained`, whether M_R was.

    Args:
      dataset: as loaded.
      splits: of the data set.
      settings: the section `data` of the config.
    """
    if not any(f.asked for f in splits.forget_sets):
        return
    where = _places(dataset, splits)
    equal = _equal_images(dataset)
    train = set(dataset.ids[splits.train].tolist())
    for f in splits.forget_sets:
        retained = train - set(dataset.ids[f.train].tolist())
        named = [(a.text, a.times, own) for a in f.asked for own in a.found or ("",)]
        asked = {own for *_, own in named}
        unasked = sorted({other for own in asked for other in equal.get(own, ())} - asked)
        for text, times, own in [*named, *(("", 0, own) for own in unasked)]:
            split, why = where.get(own, (UNKNOWN, "the data have no such id"))
            same = equal.get(own, ())
            images = {own, *same}
            yield {"forget_set": f.name, "asked": text, "times": times, "id": own, "split": split,
                   "why": why, "file": location(settings, own) if own else "",
                   "trained_on": _word(own in train), "equal_images": BETWEEN.join(same),
                   "image_trained_on": _word(images & train),
                   "image_retained": _word(images & retained)}


def has_requests(forget_sets: tuple[ForgetSet, ...]) -> bool:
    """Whether one of the forget sets is a file of ids."""
    return any(f.asked for f in forget_sets)


def _word(truth: Any) -> str:
    return _YES if truth else _NO


def _places(dataset: Dataset, splits: Splits) -> dict[str, tuple[str, str]]:
    """By id: its split, or why it has none."""
    found = {str(own): (LEFT_OUT, "outside data.fraction, label_min or label_max")
             for own in dataset.left_out_ids}
    found |= {d.id: (DROPPED, f"{d.step}: {d.reason}") for d in dataset.dropped}
    for name in ("train", "validation", "test"):
        found |= {own: (name, "") for own in dataset.ids[getattr(splits, name)].tolist()}
    return found


def _equal_images(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """By id, the other ids with the same pixels; without those that have none.

    Of equal images that `data.repeats='drop'` drops, the reason names the one that was kept.
    """
    groups: dict[str, list[str]] = {}
    for own, first in zip(dataset.ids.tolist(), dataset.ids[dataset.twins].tolist(), strict=True):
        groups.setdefault(first, []).append(own)
    for d in dataset.dropped:
        if d.step == "repeats":
            groups.setdefault(d.reason.partition(": ")[2], []).append(d.id)
    return {own: tuple(sorted(set(group) - {own})) for group in groups.values() if len(group) > 1
            for own in group}

"""UTKFace: over 20,000 aligned face crops of 200 x 200 pixels, ages 0 to 116.

Source: Z. Zhang, Y. Song and H. Qi, "Age Progression/Regression by Conditional Adversarial
Autoencoder", CVPR 2017; https://susanqq.github.io/UTKFace. For research only: the images may not
be passed on. The label is the file's name, `[age]_[gender]_[race]_[date&time].jpg`, in the
aligned set followed by `.chip.jpg`. Malformed names are reported and skipped. If photographs in the
wild lie beside their aligned crops, only the crops count.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from unlearn_jax.data.cache import Sample, cached_samples
from unlearn_jax.data.dataset import Dropped
from unlearn_jax.data.decode import has_image_name
from unlearn_jax.data.files import SourceFile, locate, signature, walk
from unlearn_jax.data.source import Source
from unlearn_jax.errors import InputError

ATTRIBUTES = ("gender", "race")
GENDERS = ("male", "female")
RACES = ("White", "Black", "Asian", "Indian", "Others")
MAX_AGE = 116  # years: the oldest that the data set states

# A blank before .jpg, as in one name of the set, does not make the fields ambiguous.
_NAME = re.compile(r"(?P<face>([0-9]{1,3})_([01])_([0-4])_[0-9]+ ?)\.[A-Za-z0-9]+"
                   r"(?P<crop>\.chip\.[A-Za-z0-9]+)?")
_PATTERN = "[age]_[gender]_[race]_[date&time].jpg"


@dataclasses.dataclass(frozen=True)
class Label:
    """The label in a file name: age in years, gender 0..1, race 0..4 (see GENDERS and RACES)."""

    age: int
    gender: int
    race: int


def parse_name(name: str) -> Label | None:
    """The label in a file name without folders, or None if the name does not follow the rule.

    The image may have another format, such as .png or .jpeg. Nothing is guessed: a missing field or
    dot, or an age above MAX_AGE, gives None.
    """
    found = _parse(name)
    return found and found[1]


def _parse(name: str) -> tuple[re.Match[str], Label] | None:
    match = _NAME.fullmatch(name)
    if not match or int(match[2]) > MAX_AGE:
        return None
    return match, Label(int(match[2]), int(match[3]), int(match[4]))


def faces(source: Path) -> Iterator[tuple[SourceFile, Label] | Dropped]:
    """Yields the readable files with a label, and the reason why each other file is left out.

    Downloads of the set may hold an image in several folders; the first file of a name counts. If
    there are several versions of a face, an aligned crop has precedence over its photograph, and
    then the first name.

    Raises:
      InputError: no file name of UTKFace at all, or an archive that cannot be read.
    """
    best: dict[str, tuple[bool, str]] = {}  # by face: (whether it is no crop, name)
    for file in walk(source):
        name = PurePosixPath(file.path).name
        if not file.problem and (found := _parse(name)):
            match, _ = found
            version = not match["crop"], name
            best[match["face"]] = min(best.get(match["face"], version), version)
    seen: set[str] = set()
    others: list[str] = []
    for file in walk(source):
        name = PurePosixPath(file.path).name
        if file.hidden or file.path.endswith("/"):
            yield Dropped(file.path, "read", file.problem)
        elif file.problem:
            yield Dropped(name, "read", file.problem)
        elif (found := _parse(name)) is None:
            others.append(file.path)
            if has_image_name(name):
                yield Dropped(name, "read", f"malformed name: not {_PATTERN}")
            else:
                yield Dropped(file.path, "read", "not an image, by its name")
        elif (used := best[found[0]["face"]][1]) != name:
            yield Dropped(file.path, "read", f"another version: {used} is used")
        elif name in seen:
            yield Dropped(file.path, "read", "repeated: another folder has a file of this name")
        else:
            seen.add(name)
            yield file, found[1]
    if not seen:
        held = f"it holds {', '.join(map(repr, others[:3]))}" if others else "it is empty"
        raise InputError(f"{str(source)!r} has no usable file of UTKFace, named {_PATTERN}; {held}"
                         + (f" and {len(others) - 3} more" if len(others) > 3 else ""))


def load_utkface(settings, cache: Path) -> Source:
    """All usable faces, with labels in years; see `Source` and data/__init__.py."""
    source = locate(settings.path, "UTKFace's images")
    samples = cached_samples(cache, "utkface", {"files": signature(source)}, settings.image_size,
                             lambda: _samples(source), ATTRIBUTES)
    return Source("utkface", "regression", "years", (), samples)


def _samples(source: Path) -> Iterator[Sample | Dropped]:
    for face in faces(source):
        if isinstance(face, Dropped):
            yield face
        else:
            file, label = face
            yield Sample(PurePosixPath(file.path).name, file.read, label.age,
                         (label.gender, label.race))

"""The content of a checkpoint: its members, its tree with norms, and differences of two."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_jax.errors import InputError
from unlearn_jax.storage import metadata, store

# Arrays are read in groups of about this size, for few calls and little memory.
_GROUP_BYTES = 256e6


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's description.

    Attributes:
      path: its directory.
      content: the result of `metadata.read`.
      members: one dict (index, seed, forget_set) per member; () if its metadata has no seeds.
      specs: {leaf path: (shape, dtype)}.
    """

    path: Path
    content: dict[str, Any]
    members: tuple[dict[str, Any], ...]
    specs: dict[str, tuple[tuple[int, ...], np.dtype]]

    def has_members(self, leaf: str) -> bool:
        """Returns True if the leaf has the member axis (otherwise all members share it)."""
        return self.members != () and self.specs[leaf][0][:1] == (len(self.members),)

    def per_member(self, leaf: str) -> int:
        """Count of numbers per member in the leaf; a leaf without member axis belongs to each."""
        shape = self.specs[leaf][0]
        return math.prod(shape[1:] if self.has_members(leaf) else shape)

    def parameters(self) -> dict[str, int]:
        """Count of numbers per member below each name at the top of the tree."""
        counts: dict[str, int] = {}
        for leaf in self.specs:
            counts[_top(leaf)] = counts.get(_top(leaf), 0) + self.per_member(leaf)
        return counts

    def bytes(self, leaf: str | None = None) -> int:
        """Size in memory of a leaf, or of all leaves."""
        leaves = self.specs if leaf is None else [leaf]
        return sum(math.prod(self.specs[n][0]) * self.specs[n][1].itemsize for n in leaves)


def find_checkpoint(path: Path) -> Path | None:
    """The checkpoint at `path` or in the stage at `path`; None: the directory is neither.

    Raises:
      InputError: there is no such directory.
    """
    if not path.is_dir():
        raise InputError(f"{path} is no directory" if path.exists() else f"{path} does not exist")
    for candidate in (path, path / "checkpoint"):
        if (candidate / metadata.FILE).is_file() or (candidate / metadata.ARRAYS).is_dir():
            return candidate
    return None


def open_checkpoint(path: Path) -> Checkpoint:
    """Reads the metadata, not the arrays, of a checkpoint or of a stage's checkpoint.

    Raises:
      CheckpointError: it is damaged, or its seeds do not fit its arrays.
      InputError: `path` holds no checkpoint, or several.
    """
    found = find_checkpoint(path)
    if found is None:
        raise InputError(f"{path} is not a checkpoint; without other flags, those below it are "
                         "listed")
    path, content = found, metadata.read(found)
    user = content["metadata"]
    seeds = user.get("seeds") or []
    sets = user.get("forget_set", "")
    sets = list(sets) if isinstance(sets, list) else [sets] * len(seeds)
    if len(sets) != len(seeds):
        raise metadata.CheckpointError(f"{path} names {len(seeds)} seeds, {len(sets)} forget sets")
    members = tuple({"index": i, "seed": seed, "forget_set": name}
                    for i, (seed, name) in enumerate(zip(seeds, sets, strict=True)))
    checkpoint = Checkpoint(path, content, members, metadata.specs(content))
    if members and checkpoint.specs and not any(map(checkpoint.has_members, checkpoint.specs)):
        raise metadata.CheckpointError(f"{path} names {len(members)} seeds, but no leaf has a "
                                       f"first axis of {len(members)}")
    return checkpoint


def describe(c: Checkpoint, members: tuple[int, ...] | None = None, depth: int | None = None,
             norms: bool = True) -> dict[str, Any]:
    """Metadata, tree, sizes, and the L2 norm of each row per member.

    Args:
      c: the checkpoint.
      members: indices on the member axis; None: all.
      depth: sum up leaves that share this many first parts of the path; None: one row per leaf.
      norms: read the arrays and compute norms.
    """
    chosen = _choose(c, members)
    rows: dict[str, dict[str, Any]] = {}
    for name, (shape, dtype) in c.specs.items():
        row = rows.setdefault(_prefix(name, depth), {"leaves": 0, "parameters": 0, "bytes": 0})
        row["leaves"] += 1
        row["shape"], row["dtype"] = list(shape), dtype.name
        row["parameters"] += c.per_member(name)
        row["bytes"] += c.bytes(name)
    for row in rows.values():
        if row["leaves"] > 1:
            del row["shape"], row["dtype"]
    report = {
        "kind": "checkpoint", "path": str(c.path), "time": c.content["time"],
        "stage": _marker(c.path), "metadata": c.content["metadata"],
        "members": [c.members[i] for i in chosen] if c.members else [],
        "all_members": len(c.members), "parameters": c.parameters(), "bytes": c.bytes(),
    }
    if norms:
        squares = _Sums()
        for name, array in _arrays(c, c.specs):
            values = [_square(a) for a in _select(c, name, array, chosen)]
            squares.add(_prefix(name, depth), values)
            squares.add("/" + _top(name), values)
        for name, row in rows.items():
            row["norm"] = squares.roots(name)
        report["norm"] = {top: squares.roots("/" + top) for top in report["parameters"]}
    return report | {"rows": [{"path": name} | row for name, row in rows.items()]}


def diff(a: Checkpoint, b: Checkpoint, members: tuple[int, ...] | None = None,
         depth: int | None = None) -> dict[str, Any]:
    """The L2 distance |b - a| of each layer, and |b - a| / |a|, per pair of members.

    The leaves of a layer share their path except for its last part, such as kernel and bias.
    Members are matched by seed, and also by forget set where a seed appears more than once.

    Args:
      a: the reference.
      b: the checkpoint that is compared with it.
      members: indices on a's member axis; None: all that have a partner in b.
      depth: sum up leaves that share this many first parts of the path; None: by layer.

    Raises:
      InputError: the trees differ, or no members match.
    """
    _check_same_tree(a, b)
    pairs = _match(a, b)
    matched = [{i for i, _ in pairs}, {j for _, j in pairs}]
    chosen = _choose(a, members)
    pairs = [(i, j) for i, j in pairs if i in chosen]
    if not pairs:
        one, two = (", ".join(str(m["seed"]) for m in c.members) for c in (a, b))
        raise InputError(f"no members match: seeds {one} in {a.path}, {two} in {b.path}")
    firsts, seconds = [i for i, _ in pairs], [j for _, j in pairs]
    distance, norm = _Sums(), _Sums()
    for (name, x), (_, y) in zip(_arrays(a, a.specs), _arrays(b, a.specs), strict=True):
        xs, ys = _select(a, name, x, firsts), _select(b, name, y, seconds)
        with np.errstate(invalid="ignore"):  # inf - inf of a failed member is nan
            distances = [_square(_wide(v) - _wide(u)) for u, v in zip(xs, ys, strict=True)]
        for key in (_layer(name, depth), "/" + _top(name)):
            distance.add(key, distances)
            norm.add(key, [_square(u) for u in xs])
    names = list(dict.fromkeys(_layer(name, depth) for name in a.specs))

    def row(key: str) -> dict[str, list[float]]:
        distances, norms = distance.roots(key), norm.roots(key)
        return {"distance": distances,
                "relative": [_ratio(d, n) for d, n in zip(distances, norms, strict=True)]}

    return {
        "kind": "diff", "path": str(a.path), "other": str(b.path),
        "members": [a.members[i] | {"other_index": j,
                                    "other_forget_set": b.members[j]["forget_set"]}
                    for i, j in pairs] if a.members else [],
        "unmatched": [m | {"path": str(c.path)} for c, used in zip((a, b), matched, strict=True)
                      for m in c.members if m["index"] not in used],
        "total": {top: row("/" + top) for top in a.parameters()},
        "rows": [{"path": name} | row(name) for name in names],
    }


def _check_same_tree(a: Checkpoint, b: Checkpoint) -> None:
    differences = [f"{name} is only in {c.path}"
                   for c, d in ((a, b), (b, a)) for name in c.specs if name not in d.specs]
    for name, (shape, _) in a.specs.items():
        if name in b.specs:
            one, two = (s.specs[name][0][s.has_members(name):] for s in (a, b))
            if one != two or a.has_members(name) != b.has_members(name):
                differences.append(f"{name} is {list(shape)} against {list(b.specs[name][0])}")
    if differences:
        more = f"; {len(differences) - 3} more" if len(differences) > 3 else ""
        raise InputError(f"the trees of {a.path} and {b.path} differ:\n"
                         + "; ".join(differences[:3]) + more)


def _match(a: Checkpoint, b: Checkpoint) -> list[tuple[int, int]]:
    """Pairs of member indices."""
    if not a.members:
        return [(0, 0)]
    pairs = []
    for member in a.members:
        partners = [m for m in b.members if m["seed"] == member["seed"]]
        if len(partners) > 1:
            same = [m for m in partners if m["forget_set"] == member["forget_set"]]
            # An original model has no forget set: it is compared with each.
            partners = same or (partners if member["forget_set"] == "" else [])
        pairs += [(member["index"], m["index"]) for m in partners]
    return pairs


def _choose(c: Checkpoint, members: tuple[int, ...] | None) -> list[int]:
    last = max(len(c.members), 1) - 1
    for i in members or ():
        if not 0 <= i <= last:
            raise InputError(f"--members: {c.path} has no member {i}; allowed: 0 to {last}")
    return list(range(last + 1) if members is None else dict.fromkeys(members))


def _arrays(c: Checkpoint, order: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Each leaf, read in groups."""
    from unlearn_jax.storage import checkpoints  # imports JAX, which metadata does not need

    group: list[str] = []
    size = 0.0
    for name in order:
        group.append(name)
        size += c.bytes(name)
        if size >= _GROUP_BYTES:
            yield from checkpoints.restore_leaves(c.path, group).items()
            group, size = [], 0.0
    yield from checkpoints.restore_leaves(c.path, group).items()


def _select(c: Checkpoint, name: str, array: np.ndarray, chosen: list[int]) -> list[np.ndarray]:
    return [array[i] if c.has_members(name) else array for i in chosen]


class _Sums:
    """Sums of squares per row and member."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, row: str, squares: list[float]) -> None:
        old = self._sums.get(row, [0.0] * len(squares))
        self._sums[row] = [x + y for x, y in zip(old, squares, strict=True)]

    def roots(self, row: str) -> list[float]:
        return [math.sqrt(x) for x in self._sums[row]]


def _wide(a: np.ndarray) -> np.ndarray:
    return a.astype(np.complex128 if np.iscomplexobj(a) else np.float64)


def _square(a: np.ndarray) -> float:
    return float(np.sum(np.abs(_wide(a)) ** 2))


def _ratio(distance: float, norm: float) -> float:
    if norm == 0 and not math.isnan(distance):
        return math.inf if distance else 0.0
    return distance / norm if norm else math.nan


def _prefix(name: str, depth: int | None) -> str:
    return name if depth is None else "/".join(name.split("/")[:depth])


def _layer(name: str, depth: int | None) -> str:
    parts = name.split("/")
    return _prefix(name, depth) if depth or len(parts) < 3 else "/".join(parts[:-1])


def _top(leaf: str) -> str:
    return leaf.split("/")[0]


def _marker(path: Path) -> dict[str, Any] | None:
    """Name, key and time of the stage that holds the checkpoint; None: it is in no stage."""
    if not (path.parent / store.MARKER).exists():
        return None
    marker = store.read_marker(path.parent)
    return {key: marker[key] for key in ("stage", "key", "time", "seconds")}

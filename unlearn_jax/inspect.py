"""Look into checkpoints:  python -m unlearn_jax.inspect PATH [--diff OTHER] [--json]

PATH is a checkpoint, a stage of the store that holds one, or any directory with checkpoints
below it, which are then listed. Without norms and differences no array is read.
"""

import argparse
import dataclasses
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_jax import metadata, store
from unlearn_jax.errors import InputError
from unlearn_jax.inspect_text import json_of, text_of

# Arrays are read in groups of about this size: few calls, little memory.
_GROUP_BYTES = 256e6


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's description.

    Attributes:
      path: its directory.
      content: what `metadata.read` returns.
      members: one dict (index, seed, forget_set) per member; () if its metadata has no seeds.
      specs: {leaf path: (shape, dtype)}.
    """

    path: Path
    content: dict[str, Any]
    members: tuple[dict[str, Any], ...]
    specs: dict[str, tuple[tuple[int, ...], np.dtype]]

    def has_members(self, leaf: str) -> bool:
        """Whether the leaf has the member axis (otherwise all members share it)."""
        return self.members != () and self.specs[leaf][0][:1] == (len(self.members),)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status: 0, or 2 after a line on stderr."""
    try:
        args = _parser().parse_args(argv)
        report = _report(args)
        print(json_of(report) if args.json else text_of(report, config=args.config))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (InputError, PermissionError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise InputError(f"{message}\nusage: python -m unlearn_jax.inspect PATH [--diff OTHER] "
                         "[--json] [--help]")


def _parser() -> argparse.ArgumentParser:
    p = _Parser(prog="python -m unlearn_jax.inspect", description=__doc__,
                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("path", type=Path, metavar="PATH", help="checkpoint, stage, or directory")
    p.add_argument("--diff", type=Path, metavar="OTHER",
                   help="distance of OTHER from PATH per layer; members are matched by seed")
    p.add_argument("--json", action="store_true", help="JSON; not finite numbers are strings")
    p.add_argument("--members", type=_indices, metavar="0,2", help="indices on PATH's member axis")
    p.add_argument("--depth", type=int, metavar="N", help="sum up below N parts of the path")
    p.add_argument("--sort", default="tree", help="bytes, norm; with --diff: distance, relative")
    p.add_argument("--no-norms", action="store_true", help="read no arrays")
    p.add_argument("--config", action="store_true", help="print the whole config")
    return p


def _indices(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 0,2") from None


def _report(args: argparse.Namespace) -> dict[str, Any]:
    sorts = ("tree", "bytes", "norm") if args.diff is None else ("tree", "distance", "relative")
    if args.sort not in sorts:
        raise InputError(f"--sort is {args.sort!r}; allowed here: {', '.join(sorts)}")
    if args.no_norms and (args.diff is not None or args.sort == "norm"):
        raise InputError("--no-norms reads no arrays; leave it out for norms and differences")
    if args.depth is not None and args.depth < 1:
        raise InputError(f"--depth is {args.depth}; allowed: at least 1")
    if args.diff is None and args.members is None and find_checkpoint(args.path) is None:
        return list_checkpoints(args.path)
    one = open_checkpoint(args.path)
    if args.diff is None:
        report = describe(one, args.members, args.depth, not args.no_norms)
    else:
        report = diff(one, open_checkpoint(args.diff), args.members, args.depth)
    if args.sort != "tree":
        report["rows"].sort(key=lambda row: _largest(row[args.sort]), reverse=True)
    return report


def find_checkpoint(path: Path) -> Path | None:
    """The checkpoint at `path` or in the stage at `path`; None: a directory of something else.

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
    """Read the metadata, not the arrays, of a checkpoint or of the one in a stage.

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


def list_checkpoints(root: Path) -> dict[str, Any]:
    """All checkpoints below a directory, from their metadata alone.

    Raises:
      InputError: there are none.
    """
    found = []
    for path in _walk(root):
        entry: dict[str, Any] = {"path": str(path.relative_to(root))}
        try:
            c = open_checkpoint(path)
            entry |= {"metadata": c.content["metadata"], "time": c.content["time"],
                      "bytes": sum(_bytes(*spec) for spec in c.specs.values()),
                      "parameters": _parameters(c)}
        except InputError as e:
            entry["error"] = str(e)
        found.append(entry)
    if not found:
        raise InputError(f"no checkpoint in {root}; checkpoints are in the store, in "
                         "STAGE/KEY/checkpoint")
    return {"kind": "list", "path": str(root), "checkpoints": found}


def _walk(root: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(root):
        names[:] = sorted(n for n in names if not n.startswith("."))
        if metadata.FILE in files or metadata.ARRAYS in names:
            names.clear()
            yield Path(directory)


def describe(c: Checkpoint, members: tuple[int, ...] | None = None, depth: int | None = None,
             norms: bool = True) -> dict[str, Any]:
    """Metadata, tree, sizes, and the L2 norm of each row per member.

    Args:
      c: the checkpoint.
      members: indices on the member axis; None: all.
      depth: sum up below so many parts of the path; None: one row per leaf.
      norms: read the arrays.
    """
    chosen = _choose(c, members)
    rows: dict[str, dict[str, Any]] = {}
    for name, (shape, dtype) in c.specs.items():
        row = rows.setdefault(_prefix(name, depth), {"leaves": 0, "parameters": 0, "bytes": 0})
        row["leaves"] += 1
        row["shape"], row["dtype"] = list(shape), dtype.name
        row["parameters"] += _per_member(c, name)
        row["bytes"] += _bytes(shape, dtype)
    for row in rows.values():
        if row["leaves"] > 1:
            del row["shape"], row["dtype"]
    report = {
        "kind": "checkpoint", "path": str(c.path), "time": c.content["time"],
        "stage": _marker(c.path), "metadata": c.content["metadata"],
        "members": [c.members[i] for i in chosen] if c.members else [],
        "all_members": len(c.members), "parameters": _parameters(c),
        "bytes": sum(_bytes(*spec) for spec in c.specs.values()),
    }
    if norms:
        squares = _Sums()
        for name, array in _arrays(c, c.specs):
            values = [_square(a) for a in _select(c, name, array, chosen)]
            squares.add(_prefix(name, depth), values)
            squares.add("/" + name.split("/")[0], values)
        for name, row in rows.items():
            row["norm"] = squares.roots(name)
        report["norm"] = {top: squares.roots("/" + top) for top in report["parameters"]}
    return report | {"rows": [{"path": name} | row for name, row in rows.items()]}


def diff(a: Checkpoint, b: Checkpoint, members: tuple[int, ...] | None = None,
         depth: int | None = None) -> dict[str, Any]:
    """The L2 distance |b - a| of each layer, and |b - a| / |a|, per pair of members.

    A layer is what shares a path but for its last part, such as kernel and bias. Members are
    matched by seed, and by forget set where a seed appears more than once.

    Args:
      a: the reference.
      b: what is compared to it.
      members: indices on a's member axis; None: all that have a partner in b.
      depth: sum up below so many parts of the path; None: by layer.

    Raises:
      InputError: the trees differ, or no members match.
    """
    _check_same_tree(a, b)
    pairs, unmatched = _match(a, b, _choose(a, members))
    distance, norm = _Sums(), _Sums()
    firsts, seconds = [i for i, _ in pairs], [j for _, j in pairs]
    for (name, x), (_, y) in zip(_arrays(a, a.specs), _arrays(b, a.specs), strict=True):
        xs, ys = _select(a, name, x, firsts), _select(b, name, y, seconds)
        for row in (_layer(name, depth), "/" + name.split("/")[0]):
            distance.add(row, [_square(_wide(v) - _wide(u)) for u, v in zip(xs, ys, strict=True)])
            norm.add(row, [_square(u) for u in xs])
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
        "unmatched": unmatched,
        "total": {top: row("/" + top) for top in _parameters(a)},
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


def _match(a: Checkpoint, b: Checkpoint,
           chosen: list[int]) -> tuple[list[tuple[int, int]], list[dict[str, Any]]]:
    """(pairs of member indices, members of a without a partner)."""
    if not a.members:
        return [(0, 0)], []
    pairs, unmatched = [], []
    for member in (a.members[i] for i in chosen):
        partners = [m for m in b.members if m["seed"] == member["seed"]]
        if len(partners) > 1:
            same = [m for m in partners if m["forget_set"] == member["forget_set"]]
            # An original model has no forget set: it is compared to each.
            partners = same or (partners if member["forget_set"] == "" else [])
        pairs += [(member["index"], m["index"]) for m in partners]
        if not partners:
            unmatched.append(member)
    if not pairs:
        one, two = (", ".join(str(m["seed"]) for m in c.members) for c in (a, b))
        raise InputError(f"no members match: seeds {one} in {a.path}, {two} in {b.path}")
    return pairs, unmatched


def _choose(c: Checkpoint, members: tuple[int, ...] | None) -> list[int]:
    last = max(len(c.members), 1) - 1
    for i in members or ():
        if not 0 <= i <= last:
            raise InputError(f"--members: {c.path} has no member {i}; allowed: 0 to {last}")
    return list(range(last + 1) if members is None else dict.fromkeys(members))


def _arrays(c: Checkpoint, order: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Each leaf, a group at a time."""
    from unlearn_jax import checkpoints  # brings JAX, which metadata does not need

    group: list[str] = []
    size = 0.0
    for name in order:
        group.append(name)
        size += _bytes(*c.specs[name])
        if size >= _GROUP_BYTES:
            yield from checkpoints.restore_leaves(c.path, group).items()
            group, size = [], 0.0
    yield from checkpoints.restore_leaves(c.path, group).items()


def _select(c: Checkpoint, name: str, array: np.ndarray, chosen: list[int]) -> list[np.ndarray]:
    return [array[i] if c.has_members(name) else array for i in chosen]


class _Sums:
    """Sums of squares per row and member."""

    def __init__(self):
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


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


def _per_member(c: Checkpoint, name: str) -> int:
    """Numbers of one member in a leaf; a leaf without the member axis belongs to each."""
    shape = c.specs[name][0]
    return math.prod(shape[1:] if c.has_members(name) else shape)


def _parameters(c: Checkpoint) -> dict[str, int]:
    """Numbers per member below each name at the top of the tree."""
    counts: dict[str, int] = {}
    for name in c.specs:
        top = name.split("/")[0]
        counts[top] = counts.get(top, 0) + _per_member(c, name)
    return counts


def _marker(path: Path) -> dict[str, Any] | None:
    """Name, key and time of the stage that holds the checkpoint; None: it is in no stage."""
    if not (path.parent / store.MARKER).exists():
        return None
    marker = store.read_marker(path.parent)
    return {key: marker[key] for key in ("stage", "key", "time", "seconds")}


def _largest(values: list[float] | int) -> float:
    values = values if isinstance(values, list) else [values]
    return max((math.inf if math.isnan(v) else v for v in values), default=0.0)


if __name__ == "__main__":
    # Looking at a checkpoint must not take the GPU away from a job that runs there.
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.exit(main())

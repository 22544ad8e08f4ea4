"""From points to processes: points that can share a population do; the rest becomes jobs.

A *run* is one work directory: a product of seeds, forget sets, budgets and alphas, which are
members and snapshots of one population. A *job* is one process with one or several runs that
share the data, M_O and the M_Rs. Runs that differ in the learning rate or in fractional options
of the method are members of one program in it (`unlearn_jax/stages/variants.py`).
"""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections

from launch.names import shortened, word
from launch.points import CONFIG, Point
from launch.taken import take
from unlearn_jax.config import check_config, get
from unlearn_jax.config.variants import arm_config
from unlearn_jax.errors import InputError
from unlearn_jax.methods import find_method
from unlearn_jax.storage import manifest
from unlearn_jax.storage.store import canonical_json
from unlearn_jax.system.nested import flat

PLAN = "plan.json"
SEEDS, SETS, EPOCHS, ALPHAS = "seeds", "forget.sets", "unlearn.epochs", "eval.alphas"
AXES = (SEEDS, EPOCHS, SETS, ALPHAS)  # axes of a population, merged in this order
# Keys of `eval` that change M_R's own rows; a table has one row of each kind.
_OF_RETRAINED = ("relearn_epochs", "relearn_rate", "challenge_bins", "challenge_narrow")


@dataclasses.dataclass(frozen=True)
class Run:
    """One work directory of a sweep.

    Attributes:
      name: name of its directory, below the sweep's directory.
      label: appended to the names of its methods in the merged table; '' if runs differ only in
        the axes of a population.
      file: FILE:SCALE of its config.
      config: the whole config.
      flags: `--config…` flags that give this config.
      points: numbers of the points that it covers.
      keys: values of the swept keys that are not axes of a population.
    """

    name: str
    label: str
    file: str
    config: ml_collections.ConfigDict
    flags: tuple[str, ...]
    points: tuple[int, ...]
    keys: dict[str, Any]

    @property
    def config_name(self) -> str:
        """As in run.json: `ft` or `ft:utkface`."""
        file, colon, scale = self.file.partition(":")
        return f"{Path(file).stem}{colon}{scale}"

    @property
    def members(self) -> int:
        """Number of unlearned models: seeds times forget sets times budgets."""
        c = self.config
        return len(c.seeds) * len(c.forget.sets) * len(c.unlearn.epochs)


@dataclasses.dataclass(frozen=True)
class Job:
    """One process.

    Attributes:
      name: name of its log.
      runs: its runs, at least one.
    """

    name: str
    runs: tuple[Run, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep, ready to be run.

    Attributes:
      directory: its work directory.
      store: shared by all its processes.
      points: in the order given.
      jobs: in the order in which they are started.
    """

    directory: Path
    store: Path
    points: tuple[Point, ...]
    jobs: tuple[Job, ...]

    @property
    def runs(self) -> list[Run]:
        """The runs of all jobs."""
        return [run for job in self.jobs for run in job.runs]

    @property
    def other_headlines(self) -> list[int]:
        """Numbers of the points with another eval.alpha than the headline of their runs."""
        alphas = {n: run.config.eval.alpha for run in self.runs for n in run.points}
        return [p.number for p in self.points if p.config.eval.alpha != alphas[p.number]]

    def workdir(self, run: Run) -> Path:
        """The directory of a run's results."""
        return self.directory / "runs" / run.name

    def log(self, job: Job) -> Path:
        """The file of a job's output."""
        return self.directory / "logs" / f"{job.name}.log"

    def exit_file(self, job: Job) -> Path:
        """The file with the exit code of a job's last process."""
        return self.directory / "logs" / f"{job.name}.exit"

    def command(self, run: Run) -> list[str]:
        """The arguments of `python -m` that repeat a run alone."""
        return ["unlearn_jax.main", *run.flags, f"--workdir={self.workdir(run)}",
                f"--store={self.store}"]

    def finished(self, run: Run) -> bool:
        """Returns True if the run's work directory is complete and has this config."""
        directory = self.workdir(run)
        try:
            record = json.loads((directory / "run.json").read_bytes())
            return (bool(record["finished"]) and record["config"] == _plain(run.config)
                    and manifest.is_reported(directory))
        except (OSError, ValueError, LookupError, TypeError):  # such as from a damaged manifest
            return False

    def unfinished(self) -> list[Job]:
        """The jobs with unfinished runs, with these runs only."""
        left = [dataclasses.replace(job, runs=tuple(r for r in job.runs if not self.finished(r)))
                for job in self.jobs]
        return [job for job in left if job.runs]

    def write(self) -> None:
        """Claims the sweep's directory by writing plan.json.

        Raises:
          InputError: it holds another sweep, or something else.
        """
        content = json.loads(json.dumps({
            "store": str(self.store),
            "points": [{"number": p.number, "config": p.file, **p.values} for p in self.points],
            "jobs": [{"name": job.name, "runs": [
                {"name": r.name, "label": r.label, "points": r.points, "code": _code(r.config),
                 "command": shlex.join(["python", "-m", *self.command(r)])} for r in job.runs]}
                for job in self.jobs]}))
        take(self.directory, PLAN, content)


def _code(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Digests of the methods that a run uses, so that results of changed code are not mixed."""
    methods = config.compare.methods or config.thesis.arms or (config.unlearn.method,)
    found = [find_method(arm_config(config, m).unlearn.method if config.thesis.arms else m)
             for m in methods]
    return {f.name: f.code for f in found}


def make_plan(points: Sequence[Point], overrides: Sequence[str], directory: Path, store: Path,
              jobs: int = 1) -> Plan:
    """The plan of a sweep; every config in it has been checked.

    Args:
      points: from `make_points`.
      overrides: `--config.KEY=VALUE` for all points.
      directory, store: directory and store of the sweep.
      jobs: least number of jobs, if the sweep can be divided: by forget sets, then by runs.

    Raises:
      InputError: with the config's own message.
    """
    for point in points:
        _checked(_with_headline(point), f"point {point.number}")
    # Runs of one table share their headline alpha; a comparison ranks and tests by its own alpha.
    headlines: dict[str, float] = {}
    for p in points:
        headlines.setdefault(_table(p.config), p.config.eval.alpha)
    boxes = _merged([_box(p, p.config.eval.alpha if p.config.compare.methods
                          else headlines[_table(p.config)]) for p in points])
    groups: dict[str, list[_Box]] = {}
    for i, box in enumerate(boxes):
        # A comparison, the arms of a study and a training scheme have stages of their own.
        alone = (box.config.compare.methods or box.config.thesis.arms
                 or find_method(box.config.unlearn.method).method.scheme)
        groups.setdefault(f"{i}" if alone else _trained(_config(box), seeds=True), []).append(box)
    parts = _divided(list(groups.values()), jobs)
    vary = _varying(points)
    names: dict[str, int] = {}
    labels: dict[tuple, list[str]] = {}
    made = []
    for part in parts:
        runs = tuple(_run(box, vary, overrides, names, labels) for box in part)
        for run in runs:
            _checked(run.config, f"points {', '.join(map(str, run.points))}")
        made.append(Job(f"{len(made) + 1:03d}-{runs[0].name}", runs))
    return Plan(Path(directory), Path(store).absolute(), tuple(points), tuple(made))


def family(run: Run) -> str:
    """A text that is equal for runs with results that fit into one table, with one M_O, one
    headline and the same evaluation: the config without seeds, forget sets, `unlearn`, and keys of
    `eval` that change no row of M_R."""
    return canonical_json([_table(run.config), run.config.eval.alpha])


@dataclasses.dataclass(frozen=True)
class _Box:
    """A product of the axes of a population that points cover exactly."""

    file: str
    config: ml_collections.ConfigDict
    axes: dict[str, tuple]
    rest: str
    points: tuple[Point, ...]


def _box(point: Point, headline: float) -> _Box:
    """A point as a box, with the headline alpha of its table."""
    axes = {key: get(point.config, key) for key in AXES}
    axes[ALPHAS] = tuple(sorted({*axes[ALPHAS], point.config.eval.alpha, headline}))
    config = point.config.copy_and_resolve_references()
    with config.unlocked():
        config.eval.alpha = headline
    rest = {k: v for k, v in flat(config.to_dict()).items() if k not in AXES}
    return _Box(point.file, config, axes, canonical_json({"file": point.file, **rest}), (point,))


def _axes(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The axes along which the runs of two points become one run with the values of both."""
    if config.thesis.arms:  # its first forget set has other budgets than the rest
        return tuple(axis for axis in AXES if axis != SETS)
    if config.compare.methods:  # a comparison chooses trials by the mean over seeds, and budgets
        return (SETS, ALPHAS)
    return AXES


def _merged(boxes: list[_Box]) -> list[_Box]:
    """Joins boxes that differ in one axis only, until there are none left."""
    while True:
        count = len(boxes)
        for axis in AXES:
            found: dict[str, list[_Box]] = {}
            for box in boxes:
                others = {k: v for k, v in box.axes.items()
                          if k != axis or axis not in _axes(box.config)}
                found.setdefault(canonical_json({"rest": box.rest, **others}), []).append(box)
            boxes = [_union(axis, own) for own in found.values()]
        if len(boxes) == count:
            return boxes


def _union(axis: str, boxes: list[_Box]) -> _Box:
    values = tuple(dict.fromkeys(v for box in boxes for v in box.axes[axis]))
    if axis in (EPOCHS, ALPHAS):
        values = tuple(sorted(values))
    points = tuple(sorted((p for box in boxes for p in box.points), key=lambda p: p.number))
    return dataclasses.replace(boxes[0], axes={**boxes[0].axes, axis: values}, points=points)


def _table(config: ml_collections.ConfigDict) -> str:
    """Equal for points with runs that fit into one table, given one headline; see `family`."""
    return canonical_json([_trained(config, seeds=False),
                           *(config.eval[key] for key in _OF_RETRAINED)])


def _trained(config: ml_collections.ConfigDict, seeds: bool) -> str:
    """Equal if M_O and the M_Rs are; if not `seeds`, seeds and forget sets may differ."""
    sections = config.to_dict()
    for name in ("unlearn", "eval", "compare"):
        del sections[name]
    if not seeds:
        del sections["seeds"], sections["forget"]
    return canonical_json(sections)


def _divided(groups: list[list[_Box]], jobs: int) -> list[list[_Box]]:
    """At least `jobs` groups, if they can be divided; the group with most members comes first."""
    def size(group: list[_Box]) -> int:
        return sum(len(b.axes[SEEDS]) * len(b.axes[SETS]) * len(b.axes[EPOCHS]) for b in group)

    # Boxes of one group have the same seeds and forget sets.
    groups = [*groups]
    while len(groups) < jobs:
        whole = [g for g in groups if len(g) > 1 or len(_divisible(g[0])) > 1]
        if not whole:
            break
        largest = max(whole, key=size)
        sets = _divisible(largest[0])
        if len(sets) > 1:
            half = -(-len(sets) // 2)
            parts = [[_cut(box, own) for box in largest] for own in (sets[:half], sets[half:])]
        else:
            half = -(-len(largest) // 2)
            parts = [largest[:half], largest[half:]]
        at = groups.index(largest)
        groups[at:at + 1] = parts
    return groups


def _divisible(box: _Box) -> tuple[str, ...]:
    """The box's forget sets, if each could be a run of its own."""
    return box.axes[SETS] if SETS in _axes(box.config) else ()


def _cut(box: _Box, sets: tuple[str, ...]) -> _Box:
    points = tuple(p for p in box.points if set(p.config.forget.sets) & set(sets))
    return dataclasses.replace(box, axes={**box.axes, SETS: sets}, points=points)


def _config(box: _Box) -> ml_collections.ConfigDict:
    config = box.config.copy_and_resolve_references()
    with config.unlocked():
        for key, value in box.axes.items():
            section, _, last = key.rpartition(".")
            (get(config, section) if section else config)[last] = value
    return config


def _run(box: _Box, vary: dict[str, str], overrides: Sequence[str], names: dict[str, int],
         labels: dict[tuple, list[str]]) -> Run:
    config = _config(box)
    keys = {key: box.file if key == CONFIG else _value(config, key) for key in vary}
    method = find_method(config.unlearn.method).name
    parts = {key: f"{short}-{word(keys[key])}" for key, short in vary.items()}
    # A table shows the method's name anyway.
    label = "_".join(part for key, part in parts.items() if key != "unlearn.method"
                     and not (key == CONFIG and Path(box.file.partition(":")[0]).stem == method))
    # Runs with the same words in one table are numbered.
    alike = labels.setdefault((_table(config), config.eval.alpha, method, label), [])
    if box.rest not in alike:
        alike.append(box.rest)
    if number := alike.index(box.rest):
        label = f"{label}-{number + 1}".strip("-")
    label, name = shortened(label), shortened("_".join(parts.values()) or "all")
    names[name] = names.get(name, 0) + 1
    if names[name] > 1:
        name = f"{name}.{names[name]}"
    swept = {key for p in box.points for key in p.values} | set(AXES) | {"eval.alpha"}
    given = [o for o in overrides if o.removeprefix("--config.").partition("=")[0] not in swept]
    flags = (f"--config={box.file}", *given,
             *(f"--config.{key}={get(config, key)!r}" if not isinstance(get(config, key), str)
               else f"--config.{key}={get(config, key)}" for key in sorted(swept)))
    return Run(name, label, box.file, config, flags, tuple(p.number for p in box.points), keys)


def _varying(points: Sequence[Point]) -> dict[str, str]:
    """Swept keys that have several values and are not axes, with a short name for each."""
    keys = list(dict.fromkeys(key for p in points for key in p.values))
    compared = any(p.config.compare.methods for p in points)
    found = [key for key in keys if key not in AXES and (compared or key != "eval.alpha")
             and len({repr(_value(p.config, key)) for p in points}) > 1]
    last = [key.rpartition(".")[2] for key in found]
    names = {key: short if last.count(short) == 1 else key.replace(".", "_")
             for key, short in zip(found, last)}
    if len({p.file for p in points}) > 1:
        names = {CONFIG: CONFIG, **names}
    return names


def _value(config: ml_collections.ConfigDict, key: str) -> Any:
    """The value at a dotted key; '' if this config file lacks a key that another file has."""
    return flat(config.to_dict()).get(key, "")


def _with_headline(point: Point) -> ml_collections.ConfigDict:
    """The point's config; swept alphas include the headline alpha, as in the config of its run."""
    config = point.config.copy_and_resolve_references()
    if ALPHAS in point.values:
        with config.unlocked():
            config.eval.alphas = tuple(sorted({*config.eval.alphas, config.eval.alpha}))
    return config


def _checked(config: ml_collections.ConfigDict, name: str) -> None:
    try:
        check_config(config)
    except InputError as e:
        raise InputError(f"{name} of the sweep: {e}") from e


def _plain(config: ml_collections.ConfigDict) -> Any:
    return json.loads(json.dumps(config.to_dict()))

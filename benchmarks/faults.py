"""Kills and changed bytes at random:  python -m benchmarks.faults [--kills=200] [--changes=200]

A kill: a command is killed at a random moment, or at a random file operation, and repeated. It must
then end with exactly the results of an undisturbed run, and leave nothing that `unlearn_jax.verify`
lists. Commands: studies of one method (with relearning), of SISA, a comparison, a report, a merger,
a sweep.

A changed byte: one random byte of a random file in the store or in a work directory is changed. A
study from the store or a report that reads the file must then give exactly the same results, or
refuse with a message.

It prints the number of each outcome. The exit code is 1 if any of these occurred:

    silent    it ended as if successful, with other results
    raw       it ended with a traceback, or by a signal of its own
    stuck     the same command could not continue after a kill
    left      after a kill and the repeated command, `unlearn_jax.verify` lists something

Runs are forks of one process that has done the slow imports, on networks of a few weights.
"""

import argparse
import collections
import csv
import dataclasses
import gc
import io
import json
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

TINY = ("--config.data.size=120", "--config.data.image_size=8", "--config.model.width=2",
        "--config.model.name=resnet4", "--config.model.stem=small", "--config.train.epochs=2",
        "--config.train.batch_size=32", "--config.unlearn.batch_size=32", "--config.seeds=(0,1)",
        "--config.eval.batch_size=64", "--config.forget.sets=('20-28',)",
        "--config.eval.audits=()", "--config.train.checkpoint_seconds=0.0",
        "--config.train.recalibrate_norms=off")
FT = ("--config.unlearn.epochs=(1,)", "--config.eval.relearn_epochs=1")
STUDIES = {
    "ft": ("configs/ft.py", *TINY, *FT),
    "rnd": ("configs/rnd.py", *TINY, "--config.unlearn.epochs=(1,)"),
    "compare": ("configs/compare.py", *TINY, "--config.compare.methods=('ft','neggrad')",
                "--config.compare.trials=2"),
    "sisa": ("configs/sisa.py", *TINY, "--config.unlearn.sisa.shards=2",
             "--config.unlearn.sisa.slices=2"),
}
SWEEP = ("--config=configs/ft.py", "--sweep=unlearn.learning_rate=0.001,0.002", *TINY,
         "--config.unlearn.epochs=(1,)")
_SECONDS = 300  # time limit of a command
_AT_LEAST = 2  # trials, even if the references have taken long
# Exit codes of a process that ends with a message, as `unlearn_jax` does.
_REFUSALS = (1, 2)


@dataclasses.dataclass(frozen=True)
class Kill:
    """The moment of a kill: before a file operation, counted from 1, or after some seconds."""

    operation: int = 0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Done:
    """The end of a command: exit code (-9: killed), output, seconds, file operations."""

    code: int
    said: str
    seconds: float
    operations: int

    @property
    def raw(self) -> bool:
        """Returns True if it ended with a traceback, or by a signal."""
        return self.code not in (0, *_REFUSALS) or "Traceback (most recent call last)" in self.said


def study(name: str, workdir: Path, store: Path) -> list[str]:
    """The module and flags of a study."""
    config, *flags = STUDIES[name]
    return ["unlearn_jax.main", f"--config={config}", *flags, f"--workdir={workdir}",
            f"--store={store}"]


def run(arguments: Sequence[str], base: Path, kill: Kill | None = None,
        cache: Path | None = None) -> Done:
    """A module as a program, in a fork.

    Args:
      arguments: the module, and its flags.
      base: file operations below this directory are counted.
      kill: moment of the kill; None: no kill.
      cache: cache of compiled programs; None: the store's.
    """
    log, counter = base / "log", base / "operations"
    began = time.monotonic()
    child = os.fork()
    if not child:
        _become(arguments, base, log, counter, kill, cache)
    code = None
    while code is None:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
        elif time.monotonic() - began > (kill.seconds if kill and kill.seconds else _SECONDS):
            os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        else:
            time.sleep(0.01)
    _wait_for_children(base)
    operations = counter.stat().st_size if counter.exists() else 0
    return Done(code, log.read_text(errors="replace"), time.monotonic() - began, operations)


def _become(arguments: Sequence[str], base: Path, log: Path, counter: Path, kill: Kill | None,
            cache: Path | None) -> None:
    """Turns a fork into the program; does not return."""
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        if cache:
            os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        tally = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        sys.addaudithook(_hook(str(base), tally, kill.operation if kill else 0))
        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _hook(base: str, tally: int, last: int):
    count, inside = 0, False
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def hook(event: str, args: tuple) -> None:
        nonlocal count, inside
        if inside or not event.startswith(("open", "os.", "shutil.")) or not args:
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & writes):
            return
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate",
                         "shutil.rmtree", "shutil.copyfile"):
            return
        if not isinstance(args[0], str | os.PathLike) or not str(args[0]).startswith(base):
            return
        inside = True
        count += 1
        os.write(tally, b".")
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        inside = False

    return hook


def _wait_for_children(base: Path) -> None:
    """Waits until the processes of a killed sweep have ended, as they were signalled to."""
    for _ in range(600):
        alive = []
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                said = line.read_bytes()
                alive += [line] * (int(line.parent.name) != os.getpid()
                                   and str(base).encode() in said
                                   and any(m in said for m in (b"launch.job", b"unlearn_jax.main")))
            except OSError:
                continue
        if not alive:
            return
        time.sleep(0.1)


def results(workdir: Path) -> dict[str, object]:
    """The results that must be equal to the bit, by file; times are left out."""
    found: dict[str, object] = {}
    for path in sorted(workdir.rglob("*")):
        name = str(path.relative_to(workdir))
        if any(p.startswith(".") for p in path.relative_to(workdir).parts):
            continue
        if path.name in ("results.csv", "summary.csv"):
            rows = csv.reader(io.StringIO(path.read_text()))
            found[name] = [row for row in rows if not any("wall" in cell for cell in row)]
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found[name] = {k: a.tobytes() for k, a in arrays.items()}
        elif path.name in ("history.csv", "data.json", "labels.csv", "dropped.csv"):
            found[name] = path.read_bytes()
    return found


class Trials:
    """References of all commands, and the counts of the trials' outcomes."""

    def __init__(self, base: Path, names: Sequence[str], seed: int):
        self.base, self.random = base, random.Random(seed)
        self.counts: dict[str, collections.Counter] = {}
        self.faults: list[str] = []
        self.store = base / "store"
        self.cache = self.store / "compiled"
        self.works = {n: base / n for n in names}
        self.reference, self.took = {}, {}
        for name in names:
            self._must(study(name, self.works[name], self.store), base)
            self.reference[name] = results(self.works[name])
            # From scratch, except for compiled programs, as in the trials with a kill.
            again = base / "again"
            self.took[name] = self._must(study(name, again / "w", again / "store"), base,
                                         self.cache)
            if results(again / "w") != self.reference[name]:
                raise RuntimeError(f"{name} gives other results when it is run again")
            shutil.rmtree(again)

    def _must(self, arguments: Sequence[str], base: Path, cache: Path | None = None) -> Done:
        done = run(arguments, base, cache=cache)
        if done.code:
            raise RuntimeError(f"{' '.join(arguments)} ended with {done.code}:\n"
                               f"{done.said[-3000:]}")
        return done

    def note(self, kind: str, outcome: str, what: str, said: str = "") -> None:
        """Counts a trial."""
        self.counts.setdefault(kind, collections.Counter())[outcome] += 1
        told = f"{outcome}: {what}"
        if outcome in FAULTS:
            told += f"\n{said[-1500:]}"
            self.faults.append(told)
        print(told, flush=True)

    def kill(self, kind: str) -> None:
        """Kills a command once or twice, repeats it, and compares."""
        with tempfile.TemporaryDirectory(prefix="faults-", dir=self.base) as name:
            here = Path(name)
            arguments, reference, look = self._command(kind, here)
            whole = self.took.get(kind)
            if whole is None:  # in a copy that is deleted afterwards
                with tempfile.TemporaryDirectory(prefix="faults-", dir=self.base) as other:
                    first, _, _ = self._command(kind, Path(other))
                    whole = self.took[kind] = self._must(first, Path(other), self.cache)
            times, said = [], ""
            for _ in range(self.random.choice((1, 1, 2))):
                by_time = self.random.random() < 0.4
                kill = Kill(seconds=self.random.uniform(0.05, whole.seconds)) if by_time else Kill(
                    operation=self.random.randint(1, max(1, whole.operations)))
                done = run(arguments, here, kill, self.cache)
                times.append(kill)
                said += done.said
                if done.code != -signal.SIGKILL:
                    break
            if done.code == -signal.SIGKILL:
                done = run(arguments, here, cache=self.cache)
                said += done.said
            what = f"{kind} killed at {times}, then given again: code {done.code}"
            if "Traceback" in said and done.code not in (0, *_REFUSALS):
                return self.note(kind, "raw", what, said)
            # A merger that was complete before the kill is not repeated.
            if done.code and not (kind == "merge" and "is not empty" in done.said):
                return self.note(kind, "raw" if done.raw else "stuck", what, done.said)
            if look() != reference:
                return self.note(kind, "silent", what, done.said)
            listed = [run(["unlearn_jax.verify", str(path)], here)
                      for path in (here / "store", here / "w") if path.exists()]
            if any(d.code for d in listed):
                return self.note(kind, "left", what, "\n".join(d.said for d in listed))
            self.note(kind, "equal", what)

    def _command(self, kind: str, here: Path):
        """(arguments, expected results, a function that reads the results)."""
        if kind in STUDIES:
            return (study(kind, here / "w", here / "store"), self.reference[kind],
                    lambda: results(here / "w"))
        one = self.works["ft"]
        if kind == "report":
            shutil.copytree(one, here / "w")
            return (["unlearn_jax.report", str(here / "w")], _report(one),
                    lambda: _report(here / "w"))
        if kind == "merge":
            sources = [str(one), f"{self.works['rnd']}=other"]
            made = self.base / "merged"
            if not made.exists():
                self._must(["unlearn_jax.report", *sources, f"--out={made}"], self.base, self.cache)
            return (["unlearn_jax.report", *sources, f"--out={here / 'w'}"], results(made),
                    lambda: results(here / "w"))
        made = self.base / "swept"
        arguments = ["launch.sweep", *SWEEP]
        if not made.exists():
            self._must([*arguments, f"--workdir={made}", f"--store={self.base / 'swept-store'}"],
                       self.base, self.cache)
        return ([*arguments, f"--workdir={here / 'w'}", f"--store={here / 'store'}"],
                results(made), lambda: results(here / "w"))

    def change(self) -> None:
        """Changes one byte, and runs the readers."""
        files = [p for root in (self.store, *self.works.values()) for p in root.rglob("*")
                 if p.is_file() and p.stat().st_size and not p.name.endswith(".lock")]
        # Few files are models; many are pictures or programs.
        folders = sorted({p.relative_to(self.base).parts[:2] for p in files})
        folder = self.random.choice(folders)
        path = self.random.choice(sorted(
            p for p in files if p.relative_to(self.base).parts[:2] == folder))
        content = bytearray(path.read_bytes())
        place = self.random.randrange(len(content))
        content[place] ^= self.random.randint(1, 255)
        name = path.relative_to(self.base)
        with tempfile.TemporaryDirectory(prefix="faults-", dir=self.base) as temp:
            here = Path(temp)
            if self.store in path.parents:
                shutil.copytree(self.store, here / "store")
                trials = [(study(n, here / n, here / "store"), self.reference[n],
                           lambda n=n: results(here / n)) for n in self._readers(path)]
            else:
                n = name.parts[0]
                shutil.copytree(self.works[n], here / n)
                trials = [(["unlearn_jax.report", str(here / n)], _report(self.works[n]),
                           lambda: _report(here / n))]
            (here / name).write_bytes(content)
            outcomes = []
            for arguments, reference, look in trials:
                done = run(arguments, here)
                what = f"byte {place} of {name} changed, then {arguments[0]} {arguments[1]}: " \
                       f"code {done.code}"
                if done.raw:
                    return self.note("change", "raw", what, done.said)
                if done.code == 0 and look() != reference:
                    return self.note("change", "silent", what, done.said)
                outcomes.append("refused" if done.code else "equal")
            self.note("change", max(outcomes), what)

    def _readers(self, path: Path) -> list[str]:
        """The studies that may read a file of the store."""
        folder = path.relative_to(self.store).parts[0]
        if folder in ("validation", "neggrad"):
            return ["compare"]
        if folder.startswith("sisa"):
            return ["sisa"]
        if folder in ("relearn", "ft", "compiled"):
            return ["ft"]
        return [n for n in self.works]


def _report(workdir: Path) -> dict[str, bytes]:
    """The files of a report."""
    return {name: (workdir / name).read_bytes() for name in ("report.md", "report.html",
                                                             "summary.csv")}


FAULTS = ("silent", "raw", "stuck", "left")


def main(argv: list[str]) -> int:
    """Runs the trials; returns the exit status: 0 all passed, 1 some did not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--of", default="ft,compare,sisa,report,merge,sweep",
                        help="the commands that are killed in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9,
                        help="begin no trial after so long, but for the first two")
    args = parser.parse_args(argv)
    began, kinds = time.monotonic(), args.of.split(",")
    import_what_takes_long()
    with tempfile.TemporaryDirectory(prefix="unlearn_jax-faults-") as base:
        names = ["ft", *(["rnd"] if "merge" in kinds else []),
                 *(n for n in ("compare", "sisa") if n in kinds)]
        trials = Trials(Path(base).resolve(), names, args.seed)
        for number, trial in enumerate(_alternately(args.kills, args.changes)):
            if number >= _AT_LEAST and time.monotonic() - began > args.seconds:
                break
            if trial is None:
                trials.change()
            else:
                trials.kill(kinds[trial % len(kinds)])
        print(json.dumps(trials.counts, indent=1, sort_keys=True))
        total = collections.Counter()
        for counter in trials.counts.values():
            total += counter
        print(", ".join(f"{total[name]} {name}" for name in ("equal", "refused", *FAULTS)))
    return int(bool(trials.faults))


def _alternately(kills: int, changes: int) -> Iterator[int | None]:
    """The number of a kill, or None for a changed byte, mixed as evenly as possible."""
    done = 0
    for n in range(kills + changes):
        if done * (kills + changes) < kills * (n + 1) and done < kills:
            yield done
            done += 1
        else:
            yield None


def import_what_takes_long() -> None:
    """Does the slow imports once, for all forks."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    import unlearn_jax.audits
    import unlearn_jax.report.receipt
    import unlearn_jax.report.sections.page
    import unlearn_jax.report.tables.merge
    import unlearn_jax.stages  # noqa: F401

    gc.collect()
    gc.freeze()  # tracing makes much garbage: collections are rarer, without imported objects
    gc.set_threshold(50_000, 20, 20)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

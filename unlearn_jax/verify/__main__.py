"""Checks the files of a store or of work directories:  python -m unlearn_jax.verify DIR [--prune]

DIR is a store, a work directory, or the directory of a sweep. Every file is read and compared with
its digest. Each damaged, missing or orphaned file is listed on a line; the exit code is then 1.
Images that models were trained on are decoded anew, if they are still there, and compared too.

    damaged    the file differs from what was written, or cannot be read
    missing    the file is gone
    orphaned   nothing reads the file: leftovers of killed processes, files that no marker names,
               and predictions and other results of models that are missing
    left over  checkpoints of half-finished models that are finished by now, or of no known model
    changed    the source files of the data differ from those that were trained on

`--prune` removes orphaned and left-over files. It may run beside other processes: files that they
are writing stay. To make damaged or missing files again, remove their directory and repeat the
command of the run.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax

from unlearn_jax.errors import InputError, ReportError
from unlearn_jax.stages.workdir import ASIDE, RUN
from unlearn_jax.storage import manifest
from unlearn_jax.system import disk
from unlearn_jax.system.arguments import Parser
from unlearn_jax.verify.store import (
    CHANGED,
    DAMAGED,
    KINDS,
    MISSING,
    ORPHANED,
    PRUNED,
    Finding,
    is_store,
    verify_store,
)

_PLAN = "plan.json"  # in a sweep's directory


def main(argv: list[str] | None = None) -> int:
    """Verifies files. Exit status: 0 all are right, 1 some are not, 2 wrong arguments."""
    try:
        args = _parser().parse_args(argv)
        found = list(verify(args.path))
    except (InputError, PermissionError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    left = []
    for finding in found:
        removed = args.prune and finding.kind in PRUNED and finding.remove()
        left += [finding] * (not removed)
        print(f"{finding.kind:9} {finding.path}: {finding.why}" + "; removed" * removed)
    counts = Counter(f.kind for f in found)
    print(f"{args.path}: " + (", ".join(f"{counts[k]} {k}" for k in KINDS if counts[k])
                              or "all as it was written"))
    return int(bool(left))


def verify(path: Path) -> Iterator[Finding]:
    """The findings in a store, a work directory or a sweep.

    Raises:
      InputError: the path is none of them.
    """
    if not path.is_dir():
        raise InputError(f"{path} is no directory" if path.exists() else f"{path} does not exist")
    workdirs = sorted({p.parent for name in (RUN, manifest.FILE, _PLAN)
                       for p in path.rglob(name) if not _is_aside(p.relative_to(path))})
    if is_store(path):
        yield from verify_store(path)
    elif workdirs:
        for directory in workdirs:
            yield from verify_workdir(directory)
    else:
        raise InputError(f"{path} is no store, no work directory and no sweep")


def _is_aside(path: Path) -> bool:
    return any(part.startswith((".", ASIDE)) for part in path.parts)


def verify_workdir(directory: Path) -> Iterator[Finding]:
    """The findings in one work directory, without the directories below it."""
    for folder in (directory, *(directory / f for f in manifest.FOLDERS)):
        for path in disk.stale(folder):
            yield Finding(ORPHANED, path, "left by a process that was killed")
    try:
        named = manifest.read(directory)
    except FileNotFoundError:
        if (directory / RUN).exists():  # else a sweep that has gathered nothing yet
            yield from _without_manifest(directory)
        return
    except manifest.ManifestError as e:
        yield Finding(DAMAGED, directory / manifest.FILE, str(e))
        return
    for name, digest in named.items():
        try:
            if disk.digest(directory / name) != digest:
                yield Finding(DAMAGED, directory / name, "it does not match its digest")
        except OSError as e:
            yield Finding(MISSING, directory / name, e.strerror or str(e))
    reported = manifest.is_reported(directory)
    for name in manifest.files(directory):
        inside = name.startswith(manifest.FOLDERS)
        if inside and name not in named and (reported or not manifest.is_of_report(name)):
            yield Finding(ORPHANED, directory / name, f"{manifest.FILE} does not name it")
    if (directory / RUN).exists():
        if not reported:
            yield Finding(MISSING, directory / "report.html",
                          "the report was not finished; python -m unlearn_jax.report makes it")
        yield from _data_of_run(directory)


def _without_manifest(directory: Path) -> Iterator[Finding]:
    """Findings for a run of an earlier version or an unfinished run: reads all readable files."""
    from unlearn_jax.report.tables.inputs import UNFINISHED, read_run

    try:
        run = read_run(directory)
        for name in (directory / "predictions").glob("*.npz"):
            read_arrays(name)
    except InputError as e:
        yield Finding(DAMAGED, directory, str(e))
        return
    if not run.run.get("finished", True):
        yield Finding(MISSING, directory / manifest.FILE, UNFINISHED.format(directory))


def read_arrays(path: Path) -> None:
    """Reads a .npz file; its arrays have checksums.

    Raises:
      ReportError: the file is damaged.
    """
    from unlearn_jax.report.tables import files

    files.read_arrays(path, str(path))


def _data_of_run(directory: Path) -> Iterator[Finding]:
    from unlearn_jax.report.tables.files import read_json
    from unlearn_jax.verify.store import compare_data

    try:
        record = read_json(directory, RUN)
    except ReportError:  # reported above
        return
    for run in record.get("merged", [record]):
        if why := compare_data(run["config"].get("data", {}), run["data_fingerprint"]):
            yield Finding(CHANGED, Path(run["config"]["data"]["path"]), why)


def _parser() -> argparse.ArgumentParser:
    p = Parser("unlearn_jax.verify", "DIR [--prune]", __doc__)
    p.add_argument("path", type=Path, metavar="DIR", help="store, work directory, or sweep")
    p.add_argument("--prune", action="store_true",
                   help="remove orphaned and left-over files")
    return p


if __name__ == "__main__":
    # This command must not take the GPU away from a job that runs there.
    jax.config.update("jax_platforms", "cpu")
    sys.exit(main())

"""Rewrites a report, or merges runs: `python -m unlearn_jax.report DIR... [--out DIR]`."""

from unlearn_jax.system import first_line

if __name__ == "__main__":  # the imports below take seconds
    first_line.announce("unlearn_jax.report")

import argparse
import sys
from pathlib import Path

from unlearn_jax.errors import InputError
from unlearn_jax.report import write_report
from unlearn_jax.report.sections import summary
from unlearn_jax.report.tables.inputs import UNFINISHED
from unlearn_jax.report.tables.judgement import judge_all
from unlearn_jax.report.tables.merge import merge_runs, parse_source
from unlearn_jax.system.bars import work_bar


def main(arguments: list[str]) -> int:
    """Writes the report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m unlearn_jax.report", description=(
        "Writes summary.csv, verdict.csv, report.md, report.html and figures/ from the results, "
        "predictions and records of a finished run. Several runs are merged into a new folder."))
    parser.add_argument("workdirs", nargs="+", metavar="DIR[=LABEL]", help=(
        "work directory of a finished run; LABEL is added to the names of its methods"))
    parser.add_argument("--out", type=Path,
                        help="new folder for the merged runs; needed for several")
    parser.add_argument("--other-data", action="store_true",
                        help="merge runs although their data differ")
    args = parser.parse_args(arguments)
    try:
        sources = [parse_source(text) for text in args.workdirs]
        if args.out is None:
            if len(sources) > 1 or sources[0].label:
                raise InputError(f"{len(sources)} runs are merged into a new folder: give it as "
                                 "--out=DIR")
            directory = sources[0].directory
        else:
            merge_runs(sources, args.out, args.other_data)
            directory = args.out
            for source in sources:
                print(f"merged {source.directory}" + (f" as +{source.label}" * bool(source.label)))
        run = write_report(directory, work_bar())
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not run.run.get("finished", True):
        print(f"warning: {UNFINISHED.format(directory)}", file=sys.stderr)
    print("\n".join(summary.lines(run, judge_all(run))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Rewrites the report of a work directory: `python -m unlearn_jax.report WORKDIR`."""

import argparse
import sys
from pathlib import Path

from unlearn_jax.errors import InputError
from unlearn_jax.report import write_report


def main(arguments: list[str]) -> int:
    """Writes the report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m unlearn_jax.report", description=(
        "Writes summary.csv, report.md, report.html and figures/ from the results, predictions "
        "and records of a finished run."))
    parser.add_argument("workdir", type=Path, help="work directory of a finished run")
    workdir = parser.parse_args(arguments).workdir
    try:
        write_report(workdir)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(workdir / "report.html")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

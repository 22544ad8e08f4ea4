"""All commands behind one name:  unlearn-jax COMMAND ...  (or python -m unlearn_jax COMMAND ...)

    run       train, unlearn, measure, report        unlearn-jax run --config=ft
    sweep     many settings from one command         unlearn-jax sweep --config=ft --sweep ...
    score     measure predictions of any framework   unlearn-jax score DIR --out=DIR2
    report    write a report anew, or merge runs     unlearn-jax report WORKDIR...
    explain   what the models of a run look at       unlearn-jax explain WORKDIR
    inspect   show what is in checkpoints            unlearn-jax inspect STORE
    export    take a model out of the store          unlearn-jax export STORE/METHOD/KEY --to=FILE
    verify    check a store or work directory        unlearn-jax verify DIR
    forget-data  take samples out of a store         unlearn-jax forget-data STORE --ids=FILE
    list      list methods, metrics, keys, ...       unlearn-jax list methods
                                                     unlearn-jax list ids --config=ft

COMMAND --help explains each.
"""

import runpy
import sys

# What `python -m` runs for each command.
COMMANDS = {
    "run": "unlearn_jax.main",
    "sweep": "launch.sweep",
    "score": "unlearn_jax.score",
    "report": "unlearn_jax.report",
    "explain": "unlearn_jax.explain",
    "inspect": "unlearn_jax.inspect",
    "export": "unlearn_jax.export",
    "verify": "unlearn_jax.verify",
    "forget-data": "unlearn_jax.forget_data",
    "list": "unlearn_jax.listing",
}


def main() -> int:
    """Runs the command of the command line; returns 2 where there is no such command."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    if name not in COMMANDS:
        print(f"error: {name!r} is no command; allowed: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    del sys.argv[1]
    # The module takes the program's place: its exit code is the program's.
    runpy.run_module(COMMANDS[name], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Exports a model from the store:  python -m unlearn_jax.export STORE/METHOD/KEY --seed=0 --to=FILE

    FILE.safetensors   torchvision's and timm's names where the network has them (docs/export.md)
    FILE.msgpack       Flax: flax.serialization.msgpack_restore gives {'params', 'batch_stats'}
    FOLDER.orbax       Orbax: the same tree

A JSON file of the same name beside it describes the preprocessing of images, the meaning of the
outputs, and how the model was made. Existing files are never overwritten.
"""

import argparse
import os
import sys
from pathlib import Path

from unlearn_jax.errors import InputError
from unlearn_jax.system.arguments import Parser

_ENDINGS = (".safetensors", ".msgpack", ".orbax")


def main(argv: list[str] | None = None) -> int:
    """Exports a model. Exit status: 0 done, 1 the stage is damaged, 2 it cannot be done."""
    from unlearn_jax.storage.metadata import DamagedError
    from unlearn_jax.storage.store import StoreError

    try:
        args = _parser().parse_args(argv)
        _check_target(args.to)
        # This imports JAX; a mistake in the arguments is reported before that.
        from unlearn_jax.export.files import write_member
        from unlearn_jax.export.member import read_member

        member = read_member(args.stage, args.seed, args.forget_set)
        record = write_member(member, args.to)
    except (DamagedError, StoreError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except (InputError, PermissionError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    print(f"{args.to}\n{record}")
    return 0


def _parser() -> argparse.ArgumentParser:
    p = Parser("unlearn_jax.export", "STORE/METHOD/KEY --seed=0 --to=FILE [--help]", __doc__)
    p.add_argument("stage", type=Path, metavar="STORE/METHOD/KEY",
                   help="a stage of the store; unlearn_jax.inspect STORE lists them")
    p.add_argument("--seed", type=int, help="seed of the model; needed if the stage has several")
    p.add_argument("--forget-set", default="", metavar="NAME",
                   help="forget set of the model; needed if the stage has several models of one "
                   "seed")
    p.add_argument("--to", type=Path, required=True, metavar="FILE",
                   help=f"file to write; it ends with {', '.join(_ENDINGS)}")
    return p


def _check_target(path: Path) -> None:
    if path.suffix not in _ENDINGS:
        raise InputError(f"--to={path} ends with {path.suffix!r}\nallowed: {', '.join(_ENDINGS)}")
    for taken in (path, path.with_suffix(".json")):
        if taken.exists():
            raise InputError(f"{taken} exists\ngive another name as --to, or remove it")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--to={path}: there is no folder {path.parent}\nmake it first")


if __name__ == "__main__":
    # The export must not take the GPU away from a job that runs there.
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.exit(main())

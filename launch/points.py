"""The points of a sweep: what `--sweep KEY=VALUES` and a YAML file say, checked one by one.

    --sweep unlearn.epochs=2,4,8                    three values of one element each
    --sweep forget.sets=20-28,gender:1              a set each; quotes are not needed
    --sweep "forget.sets=('20-28','gender:1'),28-36"    both sets together, then another alone
    --sweep unlearn.learning_rate=1e-3,2e-3 --sweep seeds=0,1    a grid: four points

A comma separates values unless it stands within brackets or quotes. A key that holds a tuple
takes a single element for a tuple of one.
"""

import ast
import dataclasses
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
import yaml

from unlearn_jax import commandline
from unlearn_jax.config import get
from unlearn_jax.errors import InputError
from unlearn_jax.search import flat

CONFIG = "config"  # a sweep over config files, beside the keys of the config
_OPEN, _CLOSE = "([{", ")]}"


@dataclasses.dataclass(frozen=True)
class Point:
    """One setting of a sweep.

    Attributes:
      number: from one, in the order given.
      file: FILE:SCALE of its config.
      values: by key of the config, what the sweep sets: values as the config holds them.
      config: whole.
    """

    number: int
    file: str
    values: dict[str, Any]
    config: ml_collections.ConfigDict


def split_values(text: str) -> list[str]:
    """The values in `a,(b,c),'d,e'`: commas within brackets or quotes do not separate.

    Raises:
      InputError: a value is empty, or a bracket or quote is not closed.
    """
    found, depth, quote, start = [], 0, "", 0
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in _OPEN or c in _CLOSE:
            depth += 1 if c in _OPEN else -1
        elif c == "," and not depth:
            found.append(text[start:i].strip())
            start = i + 1
    found.append(text[start:].strip())
    if quote or depth:
        raise InputError(f"--sweep: {text!r} has a bracket or a quote that is not closed")
    if not all(found):
        raise InputError(f"--sweep: {text!r} has an empty value; values look like 2,4,8")
    return found


def parse_axis(text: str) -> tuple[str, list[str]]:
    """Key and values of `KEY=VALUE,VALUE`.

    Raises:
      InputError: it does not look like that.
    """
    key, equals, values = text.partition("=")
    key = key.strip().removeprefix("config.")
    if not equals or not key:
        raise InputError(f"--sweep={text}: allowed: KEY=VALUE,VALUE, as in unlearn.epochs=2,4")
    found = split_values(values)
    repeated = {v for v in found if found.count(v) > 1}
    if repeated:
        raise InputError(f"--sweep={text}: {min(repeated)} is there twice")
    return key, found


def grid(axes: Sequence[tuple[str, Sequence[Any]]]) -> list[dict[str, Any]]:
    """Every combination; the last axis varies fastest.

    Raises:
      InputError: a key is there twice.
    """
    keys = [key for key, _ in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"--sweep: {key} is swept twice; give all its values at once")
    return [dict(zip(keys, values)) for values in itertools.product(*(v for _, v in axes))]


def read_file(path: Path) -> list[dict[str, Any]]:
    """The points of a YAML file: a list of `{key: value}`, or `{grid: {...}, points: [...]}`.

    In `grid` each key has a list of values, every combination of which is a point.

    Raises:
      InputError: it cannot be read, or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as e:
        raise InputError(f"--sweep-file={path} cannot be read: {e.strerror}") from e
    except yaml.YAMLError as e:
        raise InputError(f"--sweep-file={path} is not YAML: {' '.join(str(e).split())}") from e
    form = ("allowed: a list of {key: value}, or {grid: {key: [values]}, points: [{key: value}]}")
    if isinstance(content, list):
        content = {"points": content}
    if not isinstance(content, dict) or not content or set(content) - {"grid", "points"}:
        raise InputError(f"--sweep-file={path}: {form}")
    axes, points = content.get("grid") or {}, content.get("points") or []
    good = isinstance(axes, dict) and all(isinstance(v, list) and v for v in axes.values())
    if not good or not isinstance(points, list) or not all(isinstance(p, dict) for p in points):
        raise InputError(f"--sweep-file={path}: {form}")
    return [*(grid(list(axes.items())) if axes else []), *points]


def make_points(wanted: Sequence[dict[str, Any]], file: str,
                overrides: Sequence[str]) -> list[Point]:
    """The points with their configs.

    Args:
      wanted: by key, values: texts of the command line, or what YAML makes of a file's.
      file: FILE:SCALE of the config, where a point names no other.
      overrides: `--config.KEY=VALUE`, of all points.

    Raises:
      InputError: in the config's own words, where it knows no such key or takes no such value; two
        points are the same; a key is both set for all points and swept.
    """
    if not wanted:
        raise InputError("there is nothing to sweep: give --sweep=KEY=VALUES or --sweep-file=FILE")
    set_for_all = {o.removeprefix("--config.").partition("=")[0] for o in overrides}
    for key in sorted(set_for_all & {key for own in wanted for key in own}):
        raise InputError(f"config.{key} is swept, and --config.{key} sets it for all points; "
                         "give one of the two")

    @functools.cache
    def read(file: str, *more: str) -> ml_collections.ConfigDict:
        return commandline.read_config([f"--config={file}", *overrides, *more])

    points: list[Point] = []
    for number, own in enumerate(wanted, 1):
        named = str(own.get(CONFIG, file))
        config = read(named).copy_and_resolve_references()
        values = {}
        for key, value in own.items():
            if key != CONFIG:
                text = _as_flag(read(named), key, value)
                values[key] = get(read(named, f"--config.{key}={text}"), key)
        with config.unlocked():
            for key, value in values.items():
                section, _, last = key.rpartition(".")
                (get(config, section) if section else config)[last] = value
        for other in points:
            if (other.file, flat(other.config.to_dict())) == (named, flat(config.to_dict())):
                raise InputError(f"points {other.number} and {number} of the sweep are the same")
        points.append(Point(number, named, values, config))
    return points


def _as_flag(config: ml_collections.ConfigDict, key: str, value: Any) -> str:
    """A value as `--config.KEY=` takes it."""
    held = flat(config.to_dict()).get(key)
    if not isinstance(held, tuple):
        return str(value)
    if isinstance(value, str) and value[:1] in (*_OPEN, "'", '"'):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError) as e:
            raise InputError(f"config.{key}: {value} cannot be read; a tuple of several looks "
                             "like ('20-28','gender:1')") from e
    elements = value if isinstance(value, list | tuple) else (value,)
    of_text = key in _OF_TEXT or bool(held) and isinstance(held[0], str)
    return "(" + "".join(f"{str(e)!r}," if of_text else f"{e}," for e in elements) + ")"


# Tuples of text that are empty by default.
_OF_TEXT = ("model.frozen", "compare.methods", "eval.audits", "forget.sets")

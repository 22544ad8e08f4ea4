"""The points of a sweep, from `--sweep KEY=VALUES` and a YAML file, checked one by one.

    --sweep unlearn.epochs=2,4,8                    three values of one element each
    --sweep forget.sets=20-28,gender:1              a set each; quotes are not needed
    --sweep "forget.sets=('20-28','gender:1'),28-36"    both sets together, then another alone
    --sweep unlearn.learning_rate=1e-3,2e-3 --sweep seeds=0,1    a grid: four points

A comma separates values unless it is within brackets or quotes. For a key that holds a tuple, a
single element stands for a tuple of one.
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
from unlearn_jax.config import KEYS, completed, get
from unlearn_jax.config.names import check_key
from unlearn_jax.config.records import Elements
from unlearn_jax.errors import InputError
from unlearn_jax.storage.store import canonical_json
from unlearn_jax.system.nested import flat

CONFIG = "config"  # a sweep over config files, beside the keys of the config
_OPEN, _CLOSE = "([{", ")]}"


@dataclasses.dataclass(frozen=True)
class Point:
    """One setting of a sweep.

    Attributes:
      number: its number from one, in the given order.
      file: FILE:SCALE of its config.
      values: values that the sweep sets, by key of the config, as the config holds them.
      config: the whole config.
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
      InputError: the text has another form.
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
      InputError: a key appears twice.
    """
    keys = [key for key, _ in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"--sweep: {key} is swept twice; give all its values at once")
    return [dict(zip(keys, values)) for values in itertools.product(*(v for _, v in axes))]


class _Loader(yaml.SafeLoader):
    """Refuses a key that appears twice; YAML would keep the last one."""

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise InputError(f"{key.value} is there twice (line {key.start_mark.line + 1});"
                                     " give all its values at once")
                seen.add(key.value)
        return node


def read_file(path: Path) -> list[dict[str, Any]]:
    """The points of a YAML file: a list of `{key: value}`, or `{grid: {...}, points: [...]}`.

    In `grid` each key has a list of values, and every combination of values is a point.

    Raises:
      InputError: the file cannot be read, or holds something else; names the file and the key.
    """
    try:
        return _points_of(yaml.load(path.read_text(encoding="utf-8"), _Loader))
    except OSError as e:
        raise InputError(f"--sweep-file={path} cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise InputError(f"--sweep-file={path} is not UTF-8 (byte {e.start})") from e
    except yaml.YAMLError as e:
        raise InputError(f"--sweep-file={path} is not YAML: {' '.join(str(e).split())}") from e
    except InputError as e:
        raise InputError(f"--sweep-file={path}: {e}") from e
    except ValueError as e:  # from YAML's own types, such as a date of month 13
        raise InputError(f"--sweep-file={path}: a value cannot be read: {e}") from e


def _points_of(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        content = {"points": content}
    if not isinstance(content, dict):
        raise InputError(f"holds {content!r}; allowed: a list of {{key: value}}, or "
                         "{grid: {key: [values]}, points: [{key: value}]}")
    for key in content:
        if key not in ("grid", "points"):
            raise InputError(f"{key!r} is not understood; allowed: grid and points, or a list of "
                             "{key: value}")
    content = {name: own for name, own in content.items() if own is not None}
    axes, points = content.get("grid", {}), content.get("points", [])
    if not isinstance(axes, dict):
        raise InputError(f"grid is {axes!r}; allowed: {{key: [values]}}")
    if not isinstance(points, list):
        raise InputError(f"points is {points!r}; allowed: a list of {{key: value}}")
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"grid: {key} is {values!r}; allowed: a list of values, as in "
                             f"{key}: [1, 2]")
        for value in values:
            _check_value("grid", key, value)
    for i, own in enumerate(points, 1):
        if not isinstance(own, dict):
            raise InputError(f"point {i} is {own!r}; allowed: {{key: value}}")
        for key, value in own.items():
            _check_value(f"point {i}", key, value)
    axes = _named("grid", axes)
    return [*(grid(list(axes.items())) if axes else []),
            *(_named(f"point {i}", own) for i, own in enumerate(points, 1))]


def _check_value(where: str, key: Any, value: Any) -> None:
    if not isinstance(key, str):
        raise InputError(f"{where}: {key!r} is no key; allowed: keys of the config, such as "
                         "unlearn.epochs")
    if isinstance(value, dict):
        inner = next(iter(value), "KEY")
        raise InputError(f"{where}: {key} is a section; write {key}.{inner}: "
                         f"{value.get(inner, 'VALUE')}")
    if value is None:
        raise InputError(f"{where}: {key} has no value")


def _named(where: str, own: dict[str, Any]) -> dict[str, Any]:
    """The values with keys as the config has them: `config.seeds` becomes `seeds`."""
    named = {key.removeprefix("config."): value for key, value in own.items()}
    for key in named:
        if key in own and f"config.{key}" in own:
            raise InputError(f"{where}: {key} is there twice, also as config.{key}")
    return named


def make_points(wanted: Sequence[dict[str, Any]], file: str,
                overrides: Sequence[str]) -> list[Point]:
    """The points with their configs.

    Args:
      wanted: values by key, as texts from the command line or as YAML reads them from a file.
      file: FILE:SCALE of the config, if a point names no other.
      overrides: `--config.KEY=VALUE` for all points.

    Raises:
      InputError: the config has no such key or does not allow the value (with the config's own
        message); two points are the same; a key is both set for all points and swept.
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
    numbers: dict[str, int] = {}
    for number, own in enumerate(wanted, 1):
        named = str(own.get(CONFIG, file))
        config = read(named).copy_and_resolve_references()
        values = {}
        for key, value in own.items():
            if key != CONFIG:
                check_key(read(named), key)
                text = _as_flag(read(named), key, value)
                values[key] = get(read(named, f"--config.{key}={text}"), key)
                held = get(read(named), key)
                if isinstance(held, tuple) and held and not isinstance(held[0], str) and any(
                        isinstance(v, str) for v in values[key]):
                    raise InputError(f"config.{key}: {value} is no number; allowed: numbers, as in "
                                     f"--sweep {key}=0,1, or --sweep \"{key}=(0,1)\" together")
        with config.unlocked():
            for key, value in values.items():
                section, _, last = key.rpartition(".")
                (get(config, section) if section else config)[last] = value
        config = completed(config)
        first = numbers.setdefault(canonical_json([named, config.to_dict()]), number)
        if first != number:
            raise InputError(f"points {first} and {number} of the sweep are the same")
        points.append(Point(number, named, values, config))
    return points


def _as_flag(config: ml_collections.ConfigDict, key: str, value: Any) -> str:
    """A value in the form that `--config.KEY=` takes."""
    held = flat(config.to_dict()).get(key)
    if isinstance(held, str) and isinstance(value, str) and _quoted(value):
        return str(_literal(key, value))
    if not isinstance(held, tuple):
        return str(value)
    if isinstance(value, str) and value[:1] in (*_OPEN, "'", '"'):
        value = _literal(key, value)
    elements = value if isinstance(value, list | tuple) else (value,)
    allowed = KEYS[key].allowed if key in KEYS else None
    kind = allowed.kind if isinstance(allowed, Elements) else type(held[0]) if held else None
    return "(" + "".join(f"{str(e)!r}," if kind is str else f"{e}," for e in elements) + ")"


def _quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\""


def _literal(key: str, text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as e:
        raise InputError(f"config.{key}: {text} cannot be read; a text looks like 'a,b', a tuple "
                         "of several like ('20-28','gender:1')") from e


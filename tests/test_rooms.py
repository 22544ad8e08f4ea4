"""The shape of the package: rooms, floors, names.

A room is a file at the root of the package or a folder there. It stands one floor above the
highest room that it imports.
"""

import ast
import collections
import functools
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "unlearn_jax"
MOST_FILES, MOST_FLOORS = 20, 11


@functools.cache
def sources() -> dict[str, ast.Module]:
    """Every module of the package, by its dotted name without `unlearn_jax.`."""
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"):
            ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}


def imported(tree: ast.Module) -> set[str]:
    """Modules of the package that a module imports, wherever in it, but for annotations alone."""
    found: set[str] = set()
    annotations = {inner for node in ast.walk(tree) if isinstance(node, ast.If)
                   and getattr(node.test, "id", "") == "TYPE_CHECKING" for inner in node.body}
    for node in set(ast.walk(tree)) - annotations:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unlearn_jax"):
            base = node.module.removeprefix("unlearn_jax").removeprefix(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}".removeprefix(".")
                found.add(whole if whole in sources() else base)
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("unlearn_jax.") for alias in node.names
                      if alias.name.startswith("unlearn_jax.")}
    return found


def room(module: str) -> str:
    """The room that a module stands in."""
    return module.split(".")[0]


def arrows() -> dict[str, set[str]]:
    """Which rooms each room imports."""
    found: dict[str, set[str]] = collections.defaultdict(set)
    for module, tree in sources().items():
        if module != "__init__":
            found[room(module)] |= {room(m) for m in imported(tree)} - {room(module), ""}
    return found


def test_no_room_imports_one_that_imports_it_and_there_are_few_floors():
    graph, floors = arrows(), {}

    def floor(name: str, above: tuple[str, ...]) -> int:
        assert name not in above, f"imports run in a circle: {' -> '.join((*above, name))}"
        if name not in floors:
            floors[name] = 1 + max((floor(n, (*above, name)) for n in graph[name]), default=0)
        return floors[name]

    for name in list(graph):
        floor(name, ())
    assert len(floors) > 20
    assert max(floors.values()) <= MOST_FLOORS, floors


def test_few_files_stand_at_the_root():
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_FILES


def test_no_class_name_stands_twice():
    places = collections.defaultdict(list)
    for module, tree in sources().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_a_config_is_checked_without_the_engine():
    code = ("import sys; from unlearn_jax.config import check_config, default_config; "
            "check_config(default_config()); "
            "print([m for m in sys.modules if m.startswith('unlearn_jax.engine')])")
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True,
                          text=True, check=True)
    assert done.stdout.strip() == "[]"

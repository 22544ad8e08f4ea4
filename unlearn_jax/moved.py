"""Modules that have moved: their old names still work, for one release.

`import unlearn_jax.population` gives the module that replaces it, with a `DeprecationWarning` that
names it. So method files written for the previous release still run.
"""

import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")
_PACKAGE = "unlearn_jax."
# Old module in unlearn_jax: module that has its names now; two modules are separated by a space.
MOVED = {
    "arms": "config.variants",
    "belonging": "stages.belonging",
    "books": "engine.history",
    "checkpoints": "storage.checkpoints",
    "compiled": "system.compiled",
    "conv": "networks.conv",
    "cpu": "system.cpu",
    "disk": "system.disk",
    "explain.attribution": "attribution.attribution",
    "explain.channels": "attribution.channels",
    "explain.likeness": "attribution.likeness",
    "explain.population": "attribution.population",
    "feed": "engine.batches",
    "flops": "engine.flops",
    "groups": "engine.groups",
    "interrupt": "system.interrupt",
    "layout": "engine.layout",
    "manifest": "storage.manifest",
    "memory": "engine.memory",
    "metadata": "storage.metadata",
    "methods.paths": "system.tree_paths",
    "nested": "system.nested",
    "norm": "networks.norm",
    "norms": "engine.recalibration",
    "population": "engine.recipe members",
    "predict": "engine.predict members",
    "prepare": "engine.preparation",
    "pretrained": "networks.pretrained",
    "processes": "system.processes",
    "programs": "engine.programs",
    "search": "config.variants",
    "sisa": "stages.shards",
    "slurm": "system.slurm",
    "splits": "data.splits",
    "spread": "system.arrays",
    "stages.outcomes": "stages.evaluate",
    "store": "storage.store",
    "target": "system.target",
    "variants": "config.variants",
    "workdir": "stages.workdir",
}


def install() -> None:
    """Makes Python find the old names."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for a module whose names have changed, so that the old ones still work.

    Args:
      module: the module's `__name__`.
      names: new names by old ones.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is now {module}.{names[name]}; the old name goes with the "
                      "next release", DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], names[name])

    return find


def renamed_arguments(names: Mapping[str, str]) -> Callable[[type[T]], type[T]]:
    """Makes a class take arguments by their old names, too.

    Args:
      names: new names by old ones.
    """

    def change(cls: type[T]) -> type[T]:
        init: Callable[..., None] = cls.__init__

        @functools.wraps(init)
        def start(self: T, *args: Any, **kwargs: Any) -> None:
            for old in names.keys() & kwargs.keys():
                warnings.warn(f"{cls.__name__}({old}=) is now {names[old]}=; the old name goes "
                              "with the next release", DeprecationWarning, stacklevel=2)
                kwargs[names[old]] = kwargs.pop(old)
            init(self, *args, **kwargs)

        setattr(cls, "__init__", start)  # noqa: B010 (mypy takes no assignment to a method)
        return cls

    return change


def names_from(package: str, module: str) -> Callable[[str], Any]:
    """A `__getattr__` for a package that was a module: its names come from one of its modules.

    Args:
      package: the package's `__name__`.
      module: name of the module in the package.
    """

    def find(name: str) -> Any:
        # Python also looks up the package's modules here before it imports them.
        if name.startswith("__") or importlib.util.find_spec(f"{package}.{name}"):
            raise AttributeError(name)
        found = getattr(importlib.import_module(f"{package}.{module}"), name)
        warnings.warn(f"{package}.{name} is now {package}.{module}.{name}; the old name goes with "
                      "the next release", DeprecationWarning, stacklevel=2)
        return found

    return find


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The last finder, for modules that no other finder has found."""

    def find_spec(self, name: str, path: Any,
                  target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.startswith(_PACKAGE) and name.removeprefix(_PACKAGE) in MOVED:
            return importlib.machinery.ModuleSpec(name, self)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        new = [_PACKAGE + name for name in MOVED[spec.name.removeprefix(_PACKAGE)].split()]
        warnings.warn(f"{spec.name} is now {' and '.join(new)}; the old name goes with the next "
                      "release", DeprecationWarning, stacklevel=2)
        alias = ModuleType(spec.name, f"{' and '.join(new)}, by the name of before.")
        modules = [importlib.import_module(name) for name in new]

        def find(name: str) -> Any:
            for module in modules:
                if hasattr(module, name):
                    return getattr(module, name)
            raise AttributeError(f"module {spec.name!r} has no attribute {name!r}")

        vars(alias)["__getattr__"] = find  # for names that the module itself lacks
        return alias

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing, since the names exist already."""

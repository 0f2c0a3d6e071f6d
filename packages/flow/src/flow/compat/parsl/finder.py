"""Modules of Parsl's names, made when they are imported. Standard library only: workers load it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from flow.compat.parsl.not_offered import reason
from flow.compat.parsl.table import NAMES, ROOTS

OWN = "flow.compat.parsl"
"""The package below which the modules of Parsl can be imported, too: ``flow.compat.parsl.config``."""


def in_table(name: str) -> str | None:
    """Return the module of the table that a module of this name stands for, None for all others."""
    if name.startswith(f"{OWN}."):
        name = f"parsl{name[len(OWN) :]}"
    return name if name in NAMES else None


def attributes(module: str, row: str) -> tuple[Mapping[str, tuple[str, str]], Sequence[str]]:
    """Return the names of a row, and the modules right below it."""
    below = {name[len(row) + 1 :].partition(".")[0] for name in NAMES if name.startswith(f"{row}.")}
    return NAMES[row], sorted(below)


def look_up(module: ModuleType | str, row: str, name: str) -> object:
    """Return an attribute of a module of the table. Raises AttributeError."""
    shown = module if isinstance(module, str) else module.__name__
    names, below = attributes(shown, row)
    if name in names:
        home, attribute = names[name]
        return getattr(import_module(home), attribute)
    if name in below:
        return import_module(f"{shown}.{name}")
    raise AttributeError(f"module {shown!r} has no attribute {name!r}{_because(f'{row}.{name}')}")


def _because(name: str) -> str:
    why = "" if name.rpartition(".")[2].startswith("__") else reason(name)
    return f": {why}" if why else ""


class _Loader(Loader):
    """Fills a module: its names are looked up when they are first asked for, and kept."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the import system, whose module will do."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its way to the names."""
        row = in_table(module.__name__)
        assert row is not None
        names, below = attributes(module.__name__, row)

        def load(name: str) -> object:
            value = look_up(module, row, name)
            setattr(module, name, value)
            return value

        module.__doc__ = f"{row} of Parsl, on Flow: see flow.compat.parsl."
        module.__dict__.update(
            __all__=[name for name in names if not name.startswith("_")],
            __getattr__=load,
            __dir__=lambda: sorted({*vars(module), *names, *below}),
        )


class _Finder(MetaPathFinder):
    """Finds the modules of the table below some packages."""

    def __init__(self, roots: Sequence[str]) -> None:
        self.roots = tuple(f"{root}." for root in roots)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how a module is made, None for one that is not of the table."""
        if not f"{fullname}.".startswith(self.roots) or fullname == OWN:
            return None
        row = in_table(fullname)
        if row is None:
            why = _because(fullname)
            if why:
                raise ModuleNotFoundError(f"No module named {fullname!r}{why}", name=fullname)
            return None
        package = any(name.startswith(f"{row}.") for name in NAMES)
        return ModuleSpec(fullname, _Loader(), origin="flow.compat.parsl", is_package=package)


OWN_FINDER = _Finder((OWN,))
PARSL_FINDER = _Finder(ROOTS)


def installed() -> bool:
    """Whether ``import parsl`` gives Flow's."""
    return PARSL_FINDER in sys.meta_path


def imported() -> list[str]:
    """Return the modules of another Parsl that this process has imported."""
    found = []
    for name, module in list(sys.modules.items()):
        loader = getattr(getattr(module, "__spec__", None), "loader", None)
        if name.partition(".")[0] in ROOTS and not isinstance(loader, _Loader):
            found.append(name)
    return sorted(found)


def forget() -> None:
    """Take the modules that were made here out of ``sys.modules``."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ROOTS and isinstance(
            getattr(getattr(module, "__spec__", None), "loader", None), _Loader
        ):
            del sys.modules[name]

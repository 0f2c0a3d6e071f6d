"""Write the public names of an installed Parsl, with their signatures, to ``names.json`` beside this file.

Run by hand, with the Python of an environment that has Parsl: ``python record_names.py``. It imports the modules of the
package and asks ``dir()`` and ``inspect.signature``; names are facts, and nothing else is taken.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import parsl

NOT_READ = ("parsl.tests", "parsl.executors.radical.rpex_worker")


def modules() -> tuple[dict[str, ModuleType], list[str]]:
    """Return the modules that can be imported, and the names of those that need packages which are not here."""
    found, missing = {"parsl": parsl}, []
    for info in pkgutil.walk_packages(parsl.__path__, "parsl.", onerror=lambda _name: None):
        if info.name.startswith(NOT_READ) or info.name.endswith("__main__"):
            continue
        try:
            found[info.name] = importlib.import_module(info.name)
        except BaseException:
            missing.append(info.name)
    return found, missing


def shape(value: Any) -> dict[str, object]:
    """Return what a name is: its kind, its parameters, and of a class the public names in it."""
    if not callable(value):
        return {"kind": type(value).__name__}
    try:
        parameters = [one.name for one in inspect.signature(value).parameters.values()]
    except (TypeError, ValueError):
        parameters = None
    if not inspect.isclass(value):
        return {"kind": "function", "parameters": parameters}
    members = sorted(name for name in dir(value) if not name.startswith("_") and not hasattr(object, name))
    return {"kind": "class", "parameters": parameters, "members": members}


def record() -> dict[str, Any]:
    """Return all public names: those that a module defines, and those that ``parsl`` and its packages hand on."""
    found, missing = modules()
    names: dict[str, dict[str, object]] = {}
    for name, module in found.items():
        own = getattr(module, "__all__", None)
        row: dict[str, object] = {}
        for attribute, value in sorted(vars(module).items()):
            home = getattr(value, "__module__", None)
            public = attribute in own if own is not None else not attribute.startswith("_")
            constant = home is None and isinstance(value, int | float | str | tuple | list | dict)
            handed_on = own is not None and isinstance(home, str) and home.startswith("parsl")
            typing_only = isinstance(value, TypeVar | ParamSpec) or attribute == "TYPE_CHECKING"
            if (
                public
                and (home == name or constant or handed_on)
                and not isinstance(value, ModuleType)
                and not typing_only
            ):
                row[attribute] = shape(value)
        names[name] = row
    return {"version": parsl.__version__, "not_importable": sorted(missing), "names": names}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    target = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_name("names.json")
    target.write_text(json.dumps(record(), indent=1, sort_keys=True) + "\n")

"""Parsl's names on Flow: a program that uses Parsl runs unchanged.

``import flow.compat.parsl as parsl`` is the one line to change; after ``flow.compat.parsl.install()`` there is none:
``import parsl`` and all its modules are those of this package, in workers too. ``flow run --parsl script.py`` does that
before it runs a script, ``python -m flow.compat.parsl`` likewise.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flow.compat.parsl import finder
from flow.compat.parsl.table import NAMES
from flow_core.errors import ConfigurationError
from flow_core.remote.worker_imports import VARIABLE, with_import

_IN_WORKERS = "flow.compat.parsl.in_worker"
_ON_PATH = str(Path(__file__).with_name("on_path"))
"""A directory with packages of Parsl's names that install this one: spawned processes get the path of their parent."""

if finder.OWN_FINDER not in sys.meta_path:
    sys.meta_path.append(finder.OWN_FINDER)


def install(*, quiet: bool = False) -> None:
    """Make ``import parsl`` (and ``libsubmit``) give Flow's, in this process and in workers that it starts.

    Where a Parsl is installed besides, it is told on standard error which one is in use. Once more does nothing.

    Args:
        quiet: Whether nothing is told.

    Raises:
        ConfigurationError: the other Parsl was imported before.
    """
    if finder.installed():
        return
    others = finder.imported()
    if others:
        raise ConfigurationError(
            f"{others[0]} of an installed Parsl was imported before flow.compat.parsl.install(): its objects and "
            "Flow's do not mix. Call install() first, or use `flow run --parsl script.py`"
        )
    sys.meta_path.insert(0, finder.PARSL_FINDER)
    if _ON_PATH not in sys.path:
        sys.path.insert(0, _ON_PATH)
    os.environ[VARIABLE] = with_import(os.environ.get(VARIABLE, ""), _IN_WORKERS)
    told = "" if quiet else _beside()
    if told:
        sys.stderr.write(f"{told}\n")


def uninstall() -> None:
    """Make ``import parsl`` give an installed Parsl again. What was imported stays what it is."""
    if finder.installed():
        sys.meta_path.remove(finder.PARSL_FINDER)
        finder.forget()
    if _ON_PATH in sys.path:
        sys.path.remove(_ON_PATH)
    rest = [name for name in os.environ.get(VARIABLE, "").split() if name != _IN_WORKERS]
    if rest:
        os.environ[VARIABLE] = " ".join(rest)
    else:
        os.environ.pop(VARIABLE, None)


def _beside() -> str:
    """Return a line that says which Parsl is in use, where there are two."""
    from importlib.machinery import PathFinder
    from importlib.metadata import PackageNotFoundError, version

    found = PathFinder.find_spec("parsl", [part for part in sys.path if part != _ON_PATH])
    if found is None or not found.origin:
        return ""
    try:
        other = f"Parsl {version('parsl')}"
    except PackageNotFoundError:
        other = "a Parsl"
    return f"flow: `import parsl` is flow.compat.parsl; {other} in {os.path.dirname(found.origin)} is not used"


def __getattr__(name: str) -> object:
    value = finder.look_up(__name__, "parsl", name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [*(name for name in NAMES["parsl"] if not name.startswith("_")), "install", "uninstall"]

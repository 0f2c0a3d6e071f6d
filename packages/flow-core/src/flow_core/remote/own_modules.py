"""Which modules are the user's own: neither of Flow, nor of the standard library, nor installed."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import lru_cache

OF_FLOW = frozenset(
    {"flow", "flow_core", "flow_executors", "flow_providers", "flow_staging", "flow_monitor", "flow_viz"}
)
"""Packages of Flow."""


@lru_cache(maxsize=1024)
def is_local(module: str | None) -> bool:
    """Tell whether a module is the user's own: neither of Flow, nor of the standard library, nor installed."""
    if module is None or module == "__main__":
        return True
    top = module.partition(".")[0]
    # By name first, then by path: that is cheaper, and holds for modules without a file, too.
    if top in OF_FLOW or top in sys.stdlib_module_names:
        return False
    path = getattr(sys.modules.get(module), "__file__", None)
    # A module whose file is no path (made by an import hook) was taken for an installed one; it is the user's.
    return not isinstance(path, str) or not os.path.realpath(path).startswith(_installed_prefixes())


@lru_cache(maxsize=1)
def _installed_prefixes() -> tuple[str, ...]:
    # Links are resolved on both sides: virtual environments link to the interpreter that they were made from.
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(os.path.join(os.path.realpath(paths[name]), "") for name in names if paths.get(name))

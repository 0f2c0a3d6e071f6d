"""Running a script or a module of the user's in this process, as Python itself would."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence


def run_script(path: str, arguments: Sequence[str]) -> None:
    """Run a script with its arguments. Raises what it raises; OSError where it cannot be read."""
    sys.argv = [path, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    runpy.run_path(path, run_name="__main__")


def run_module(name: str, arguments: Sequence[str]) -> None:
    """Run a module with its arguments. Raises what it raises; ImportError where it is not there."""
    sys.argv = [name, *arguments]
    sys.path.insert(0, os.getcwd())
    runpy.run_module(name, run_name="__main__", alter_sys=True)

"""Running a script, or a module, in which ``import parsl`` is Flow's."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence

from flow.compat import parsl
from flow_core.errors import ConfigurationError


def run_script(path: str, arguments: Sequence[str]) -> None:
    """Run a script as Python does. Raises what it raises; ConfigurationError where it is not there."""
    if not os.path.exists(path):
        raise ConfigurationError(f"{path}: there is no such script")
    parsl.install()
    sys.argv = [path, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    runpy.run_path(path, run_name="__main__")


def run_module(name: str, arguments: Sequence[str]) -> None:
    """Run a module as ``python -m`` does. Raises what it raises; ImportError where it is not there."""
    parsl.install()
    sys.argv = [name, *arguments]
    sys.path.insert(0, os.getcwd())
    runpy.run_module(name, run_name="__main__", alter_sys=True)

"""Running a script or a module of the user's in this process, as Python itself would."""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
from collections.abc import Sequence
from types import TracebackType

from flow_core.remote.tracebacks import FULL

_RUNPY = ("<frozen runpy>", runpy.__file__)


def run_script(path: str, arguments: Sequence[str]) -> None:
    """Run a script with its arguments. Raises what it raises; OSError where it cannot be read."""
    sys.argv = [path, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    _show_only_frames_of_it()
    runpy.run_path(path, run_name="__main__")


def run_module(name: str, arguments: Sequence[str]) -> None:
    """Run a module with its arguments. Raises what it raises; ImportError where it is not there."""
    sys.argv = [name, *arguments]
    sys.path.insert(0, os.getcwd())
    _show_only_frames_of_it()
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def missing_module(name: str) -> str:
    """Return which module ``run_module`` would not find: its name or that of a package above; empty for none.

    Imports the packages above it. Raises what they raise.
    """
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        return "" if importlib.util.find_spec(name) is not None else name
    except ImportError as error:
        if name.startswith("."):
            return name
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a package is there, and imports what is not
        return error.name
    except ValueError:  # an empty name, or that of a module without a place
        return name
    finally:
        sys.path.remove(here)


def _show_only_frames_of_it() -> None:
    """Leave the frames that lie before the script's out of the traceback with which it ends."""
    show = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        show(kind, error.with_traceback(_after_runpy(trace)), error.__traceback__)

    if not os.environ.get(FULL):
        sys.excepthook = hook


def _after_runpy(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from what this module had run on; None where that did not begin, all where it had run nothing.

    A script with an error of syntax does not begin.
    """
    part = trace
    while part is not None and part.tb_frame.f_code.co_filename != __file__:
        part = part.tb_next
    if part is None:
        return trace
    while part is not None and part.tb_frame.f_code.co_filename in (__file__, *_RUNPY):
        part = part.tb_next
    return part

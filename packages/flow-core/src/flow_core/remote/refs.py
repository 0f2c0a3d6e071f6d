"""Names of functions: ``module:qualname``, so that code travels by name where it can be imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from os import uname

_MAX_WRAPPERS = 16  # decorators around one function; a bound for chains of __wrapped__ that lead in a circle


def reference(func: object) -> str | None:
    """Return a name by which ``resolve`` finds this very function, or None if there is none.

    The name found in the module may be bound to a decorated form (an app): then ``#n`` says how many ``__wrapped__``
    lie between it and the function. None for functions of ``__main__``, lambdas, local functions, bound methods, and
    for names that are bound to something else by now. Any thread; does not import anything.
    """
    module_name = getattr(func, "__module__", None)
    qualname = getattr(func, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(qualname, str):
        return None
    # __main__ is another module in another process; "<" stands in names of lambdas and of local functions.
    if module_name in ("__main__", "__mp_main__") or "<" in qualname:
        return None
    module = sys.modules.get(module_name)
    found: object = module
    # Only what is found by that very name counts: the name may have been bound to something else since.
    for name in qualname.split("."):
        found = getattr(found, name, None)
    depth = 0
    while found is not None and found is not func and depth < _MAX_WRAPPERS:
        found = getattr(found, "__wrapped__", None)
        depth += 1
    if found is not func:
        return None
    return f"{module_name}:{qualname}" if depth == 0 else f"{module_name}:{qualname}#{depth}"


def resolve(ref: str) -> Callable[..., object]:
    """Return the function that a reference names, importing its module if needed.

    Raises:
        ImportError: the module cannot be imported here; the message says what to do.
        AttributeError: the module has no such function (another version of it lies here).
    """
    path, _, depth = ref.partition("#")
    module_name, _, qualname = path.partition(":")
    shown = f"{module_name}.{qualname}"
    found: object = sys.modules.get(module_name)
    if found is None:
        found = import_anew(module_name, f", which holds the function {shown},")
    for name in qualname.split("."):
        found = _member(found, name, shown)
    for _ in range(int(depth or 0)):
        found = _member(found, "__wrapped__", shown)
    if not callable(found):
        raise AttributeError(f"{shown} is not callable here but a {type(found).__name__}: {_OTHER_VERSION}")
    return found


_OTHER_VERSION = "another version of the module lies on this machine; make the versions agree"


def import_anew(module_name: str, about: str = "") -> object:
    """Return a module that is imported now. What its import found wanting is read from its file again the next time.

    Args:
        module_name: Its name.
        about: What a message adds to its name.

    Raises:
        ImportError: it cannot be imported here, or its code fails; the message says what to do.
    """
    # Modules that were loaded before are not dropped after a failure: others use them.
    before = set(sys.modules)
    try:
        return import_module(module_name)
    except Exception as error:
        _forget(error, before)
        told = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise ImportError(
            f"module {module_name!r}{about} cannot be imported on node {uname().nodename} ({told}): install it there, "
            "name it in the executor's option code=, put its directory on PYTHONPATH (for instance in worker_init), or "
            "define the app in the main script, which is sent by value. If a file was being written just then, try "
            "again",
            name=getattr(error, "name", None),
        ) from error


def _forget(error: Exception, before: set[str]) -> None:
    """Drop the module that lacked what was asked of it, if it was loaded just now: its file may be half written."""
    lacking = getattr(error, "obj", None) if isinstance(error, AttributeError) else getattr(error, "name", None)
    name = getattr(lacking, "__name__", lacking)
    # Dropped, so that the next import reads the file again; a file that is half written may be whole by then.
    if isinstance(name, str) and name not in before:
        sys.modules.pop(name, None)


def _member(owner: object, name: str, shown: str) -> object:
    try:
        found: object = getattr(owner, name)
    except AttributeError:
        raise AttributeError(f"{shown} does not exist here (no {name!r}): {_OTHER_VERSION}") from None
    return found

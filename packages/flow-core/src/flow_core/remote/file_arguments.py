"""Files inside arguments: finding them, and putting other ones in their place.

What an object is its type says: its ``__class__``, which ``isinstance`` asks, too, may be a property of the user's that
fetches something, and fetches it on a thread that others need.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from flow_core.files import File
from flow_core.guard import is_a

_DEPTH = 8  # levels of containers; a bound for those that contain themselves
_CONTAINERS = (list, tuple, dict)
# Exact types of what holds no files: most arguments are such.
_ATOMS = frozenset((int, float, str, bytes, bool, type(None), complex))


def has_files(value: Any, depth: int = _DEPTH) -> bool:
    """Tell whether there is a File in a value, looking into lists, tuples and dicts."""
    if is_a(value, File):
        return True
    if depth == 0 or not issubclass(type(value), _CONTAINERS):
        return False
    items = value.values() if issubclass(type(value), dict) else value
    if _ATOMS.issuperset(map(type, items)):  # at the speed of C
        return False
    for item in items:  # noqa: SIM110  (a generator would take longer)
        if type(item) not in _ATOMS and has_files(item, depth - 1):
            return True
    return False


def has_loose_files(value: Any, depth: int = _DEPTH) -> bool:
    """Tell whether one of the Files in a value is another one in another directory, as ``File.is_loose`` says."""
    if is_a(value, File):
        return value.is_loose
    if depth == 0 or not issubclass(type(value), _CONTAINERS):
        return False
    items = value.values() if issubclass(type(value), dict) else value
    return any(has_loose_files(item, depth - 1) for item in items if type(item) not in _ATOMS)


def replaced(value: Any, by: Callable[[File], File], depth: int = _DEPTH) -> Any:
    """Return a value with each File replaced by what ``by`` gives; lists, tuples and dicts with Files are copied.

    Anything else, and containers without Files, stay the same object.
    """
    if is_a(value, File):
        return by(value)
    if not issubclass(type(value), _CONTAINERS) or not has_files(value, depth):
        return value
    if is_a(value, dict):
        # copy(), so that subclasses such as OrderedDict stay what they are.
        twin = copy(value)
        twin.update((key, replaced(item, by, depth - 1)) for key, item in value.items())
        return twin
    parts = [replaced(item, by, depth - 1) for item in value]
    if is_a(value, list):
        same = copy(value)
        same[:] = parts
        return same
    # Named tuples take their elements one by one.
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)

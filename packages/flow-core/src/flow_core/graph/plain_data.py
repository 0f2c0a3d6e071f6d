"""Plain data: values that surely run no code of the user's when they are pickled, or freed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_core.files import FILE_TYPES
from flow_core.futures.freeing import free
from flow_core.graph.resolver import ATOMS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flow_core.interfaces.outcome import Outcome

SAFE = ATOMS.union(FILE_TYPES)
"""Types whose values are plain data, whatever they hold."""
_LIBRARY = frozenset(("datetime", "decimal", "fractions", "pathlib", "uuid"))
LOOKED_AT = 1000
"""Items of all containers together that are looked at: with more, looking would take as long as pickling."""


def are_harmless(args: Iterable[object], kwargs: dict[str, object]) -> bool:
    """Return whether all these values are surely plain data: builtin types, arrays of numbers, files. Any thread."""
    if not kwargs and SAFE.issuperset(map(type, args)):
        return True
    try:
        return _only_data([*args, *kwargs.values()])
    except RuntimeError:  # a container was changed by another thread just now
        return False


def free_unless_plain(outcomes: list[Outcome]) -> None:
    """Free an outcome, the one item of a list: apart, unless what it holds is plain data. Any thread.

    The caller must not hold it any more.
    """
    outcome = outcomes[0]
    plain = outcome.error is None and are_harmless((outcome.value,), {})
    del outcome
    if not plain:
        free(outcomes)


def _only_data(todo: list[object]) -> bool:
    looked = 0
    while todo:
        value = todo.pop()
        kind = type(value)
        if kind in SAFE:
            continue
        if kind is dict:
            items = [*value.keys(), *value.values()] if len(value) <= LOOKED_AT else None  # type: ignore[arg-type, attr-defined]
        elif kind is list or kind is tuple or kind is set or kind is frozenset:
            items = [*value] if len(value) <= LOOKED_AT else None  # type: ignore[misc, arg-type]
        elif _is_leaf(value, kind):
            continue
        else:
            return False
        looked += LOOKED_AT + 1 if items is None else len(items)
        if items is None or looked > LOOKED_AT:
            return False
        if not SAFE.issuperset(map(type, items)):
            todo += items
    return True


def _is_leaf(value: object, kind: type) -> bool:
    module = type.__getattribute__(kind, "__module__")  # not that of a metaclass of the user's
    if module == "numpy":
        # An array of objects is pickled by their methods; one of numbers by numpy alone.
        dtype = getattr(value, "dtype", None)
        return dtype is not None and not dtype.hasobject
    return type(module) is str and module.partition(".")[0] in _LIBRARY  # Python 3.13 has pathlib._local

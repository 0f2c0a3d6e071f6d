"""Resolvers: they find the futures in arguments, and put results in their place.

A dependency resolver is one function: ``resolver(value, result)`` returns the value with every future in it replaced by
``result(future)``, and the very same object if there is none. It is called once to find the futures and once, when all
of them are done, to put in their results.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from copy import copy
from typing import TYPE_CHECKING, cast

from flow_core.errors import HiddenFutureError
from flow_core.files import File
from flow_core.guard import is_a

if TYPE_CHECKING:
    from typing import Any

    Result = Callable[[Future[Any]], object]
    Resolver = Callable[[object, Result], object]

ATOMS: frozenset[type] = frozenset(
    (int, float, complex, bool, str, bytes, bytearray, type(None), type(...), range, slice, type, type(len))
)
"""Types of which an object surely is no future and holds none."""

_CONTAINERS = (list, tuple, dict, set, frozenset)
_MAY_HOLD = (File, *_CONTAINERS)


def shallow(value: object, result: Result) -> object:
    """Resolve only the value itself. The default; ``inputs`` is resolved one level deep by the kernel."""
    # Of the type: ``isinstance`` asks what is none for its ``__class__``, which may not answer.
    return result(value) if issubclass(type(value), Future) else value  # type: ignore[arg-type]  # as was just seen


def DEEP(value: object, result: Result) -> object:  # noqa: N802  (a choice of Config, spelled like a constant)
    """Resolve futures at any depth of lists, tuples, dicts, sets and dataclasses."""
    return _deep(value, result, ())


def one_level(value: object, result: Result) -> object:
    """Resolve the items of a list, tuple, set or the values of a dict, but nothing deeper."""
    if is_a(value, dict):
        return _rebuilt_dict(value, {key: shallow(item, result) for key, item in value.items()})
    if _is_any(value, (list, tuple, set, frozenset)):
        items = cast("list[object]", value)
        return _rebuilt(items, [shallow(item, result) for item in items])
    return shallow(value, result)


def _deep(value: object, result: Result, inside: tuple[int, ...]) -> object:
    if type(value) in ATOMS:
        return value
    if is_a(value, Future):
        return result(value)
    if not dataclasses.is_dataclass(type(value)) and not _is_any(value, _CONTAINERS):
        return value
    if id(value) in inside:  # a cycle: what is inside was visited already
        return value
    inside = (*inside, id(value))
    if is_a(value, dict):
        return _rebuilt_dict(
            value, {_deep(key, result, inside): _deep(item, result, inside) for key, item in value.items()}
        )
    if _is_any(value, _CONTAINERS):
        items = cast("list[object]", value)
        return _rebuilt(items, [_deep(item, result, inside) for item in items])
    return _rebuilt_dataclass(value, result, inside)


def _rebuilt(value: list[object] | tuple[object, ...] | set[object] | frozenset[object], items: list[object]) -> object:
    # The very same object where nothing was replaced: so the caller's list is not copied, and identity is kept.
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value
    # A named tuple takes its items one by one, not as one iterable.
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(items)
    return type(value)(items)


def _rebuilt_dict(value: dict[object, object], items: dict[object, object]) -> object:
    if len(items) == len(value) and all(key in value and value[key] is item for key, item in items.items()):
        return value
    if type(value) is dict:
        return items
    # A copy of its own kind: a defaultdict or OrderedDict stays one, with what else it has.
    twin = copy(value)
    twin.clear()
    twin.update(items)
    return twin


def _rebuilt_dataclass(value: object, result: Result, inside: tuple[int, ...]) -> object:
    twin = None
    for field in dataclasses.fields(cast("Any", value)):
        if not hasattr(value, field.name):
            continue
        old = getattr(value, field.name)
        new = _deep(old, result, inside)
        if new is not old:
            twin = copy(value) if twin is None else twin
            # Frozen dataclasses refuse the ordinary way; their twin is new, so no other code sees it change.
            object.__setattr__(twin, field.name, new)
    return value if twin is None else twin


def refuse_hidden(name: str, value: object) -> None:
    """Check that no future is hidden in an argument where the default resolver does not look.

    Looks into lists, tuples, dicts and sets; a container of a million plain values costs about 20 ms.

    Raises:
        HiddenFutureError: naming the path, such as ``argument 'xs[3]'``.
    """
    if _is_any(value, _CONTAINERS):
        # By name of the class: this module is below the futures, and must not import them.
        for path, future in _hidden(name, value):
            tid = getattr(future, "tid", None) if type(future).__name__ == "AppFuture" else None
            of = "" if tid is None else f" of task {tid}"
            raise HiddenFutureError(
                f"argument '{path}' is a future{of}, hidden where it is not waited for: pass it as an argument of its "
                "own or in inputs=[...], or use Config(dependency_resolver=DEEP)"
            )


def _hidden(name: str, value: object) -> Iterator[tuple[str, Future[Any]]]:
    seen: set[int] = set()
    todo: list[tuple[str, object]] = [(name, value)]
    while todo:
        path, holder = todo.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        if _plain(holder):
            continue
        for step, item in _items(holder):
            if is_a(item, Future):
                yield f"{path}{step}", item
            elif _is_any(item, _CONTAINERS):
                todo.append((f"{path}{step}", item))


def _plain(holder: object) -> bool:
    """Tell at the speed of C that nothing in a container can be or hold a future."""
    if isinstance(holder, dict):
        return set(map(type, holder.values())) <= ATOMS
    return set(map(type, cast("list[object]", holder))) <= ATOMS


def _items(holder: object) -> Iterator[tuple[str, object]]:
    if isinstance(holder, Mapping):
        for key, item in holder.items():
            yield f"[{key!r}]", item
    elif isinstance(holder, (set, frozenset)):
        for item in holder:
            yield "{...}", item
    else:
        for index, item in enumerate(cast("list[object]", holder)):
            yield f"[{index}]", item


def may_hold_files(value: object) -> bool:
    """Return whether a resolved argument is a File or a container in which staging should look."""
    return _is_any(value, _MAY_HOLD)


def _is_any(value: object, kinds: tuple[type, ...]) -> bool:
    return issubclass(type(value), kinds)

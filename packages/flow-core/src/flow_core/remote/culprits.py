"""Parts of a value that cannot be pickled, by the path that leads to them. Searched once pickling has failed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from flow_core.guard import called, one_line, pass_signal, shown
from flow_core.remote import by_value

_SEARCH_S = 1.0  # seconds; the caller has an error already and waits only for a better text
_FAILING_MAX = 32  # parts of one value that are followed; one culprit is enough for a message
_STEPS_MAX = 500  # values that are looked into; bounds the search where each look is quick
_CLASS_NOISE = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__"})

_Part = tuple[str, object]
"""Name of a part, and the part. A name of its own ends the path before it; ``[...]`` and ``.name`` go on."""
_Path = tuple[str, str]
"""Name of the owner, and the steps from there."""


def explained(value: object, error: BaseException) -> str:
    """Return why a value could not be pickled as one line: which part of it, of which type, and the error.

    Takes about a second at most: for what is too large to be searched in that time only the error is returned. Never
    raises, but for a signal. Any thread.

    Args:
        value: What was to be pickled.
        error: What was raised then.
    """
    try:
        found = _search(value, time.monotonic() + _SEARCH_S)
    except BaseException as failure:  # of an object that is looked at
        pass_signal(failure)
        found = None
    if found is None or not any(found[0]):
        return one_line(error)
    path, culprit = found
    kind = type(culprit)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{_text(path)} ({name}): {one_line(_failure(culprit) or error)}"


def _search(value: object, until: float) -> tuple[_Path, object] | None:
    """Return the shortest path to what cannot be pickled though all of its parts can; None if none is found."""
    queue: deque[tuple[_Path, object]] = deque([(("", ""), value)])
    # Holds the objects themselves: the id of a part that is freed could be given to another one.
    seen = {id(value): value}
    for _ in range(_STEPS_MAX):
        if not queue or time.monotonic() > until:
            return None
        # Breadth first: the first culprit that is found has the shortest path.
        path, owner = queue.popleft()
        failing = _failing(list(_parts(owner)), until)
        if failing is None:
            return None
        if not failing:
            return path, owner
        for name, part in failing:
            if id(part) not in seen:
                seen[id(part)] = part
                queue.append((_joined(path, name), part))
    return None


def _failing(parts: list[_Part], until: float) -> list[_Part] | None:
    """Return the first parts that cannot be pickled, found by halves; None if there was no time for it."""
    found: list[_Part] = []
    left = [parts]
    while left and len(found) < _FAILING_MAX:
        some = left.pop()
        if time.monotonic() > until:
            return None
        if not some or _failure([part for _, part in some]) is None:
            continue
        if len(some) == 1:
            found.append(some[0])
        else:
            # By halves: one culprit among n parts takes some 2 log n pickles and not n.
            half = len(some) // 2
            left += [some[half:], some[:half]]
    return found


def _failure(value: object) -> BaseException | None:
    try:
        by_value.dumps(value)
    except BaseException as error:
        pass_signal(error)
        return error
    return None


def _joined(path: _Path, name: str) -> _Path:
    return (path[0], path[1] + name) if name[0] in "[." else (name, "")


def _text(path: _Path) -> str:
    owner, steps = path
    kind = "element" if steps[:1] == "[" else "attribute"
    return ", ".join(filter(None, (owner, steps and f"{kind} {steps}")))


def _parts(value: object) -> Iterator[_Part]:
    """Yield what a pickle of a value by value is made of."""
    if isinstance(value, FunctionType):
        yield from _of_function(value)
    elif isinstance(value, type):
        members = ((name, one) for name, one in vars(value).items() if name not in _CLASS_NOISE)
        yield from ((f"attribute {name!r} of class {called(value)}", one) for name, one in members)
    elif isinstance(value, MethodType):
        yield from ((f"the object of method {called(value)}()", value.__self__), (f"{called(value)}()", value.__func__))
    elif isinstance(value, (staticmethod, classmethod)):
        yield f"{called(value)}()", value.__func__
    elif isinstance(value, property):
        yield from ((f"{called(one)}()", one) for one in (value.fget, value.fset, value.fdel) if one is not None)
    elif isinstance(value, partial):
        yield f"{called(value.func)}()", value.func
        yield from _elements(value.args)
        yield from ((f"[{shown(name)}]", one) for name, one in value.keywords.items())
    elif type(value) is dict:
        yield from _items(value.items())
    elif type(value) in (list, tuple, set, frozenset, deque):
        yield from _elements(value)  # type: ignore[arg-type]  # they are iterable
    elif not isinstance(value, ModuleType):
        yield from _of_object(value)


def _elements(values: Iterable[object]) -> Iterator[_Part]:
    return ((f"[{number}]", one) for number, one in enumerate(values))


def _items(items: Iterable[tuple[object, object]]) -> Iterator[_Part]:
    for key, one in items:
        yield f"[{shown(key)}]", one
        yield f"[key {shown(key)}]", key


def _of_function(function: FunctionType) -> Iterator[_Part]:
    name, code = called(function), function.__code__
    for each in sorted(_names(code)):
        if each in function.__globals__:
            yield f"global {each!r} of {name}()", function.__globals__[each]
    for each, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"variable {each!r} that {name}() encloses", cell.cell_contents
        except ValueError:
            continue  # not set yet
    defaults = function.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount]
    pairs = [*zip(positional[len(positional) - len(defaults) :], defaults, strict=False)]
    for each, value in (*pairs, *(function.__kwdefaults__ or {}).items()):
        yield f"default of {each!r} of {name}()", value
    for each, value in function.__dict__.items():
        yield f"attribute {each!r} of {name}()", value


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _of_object(value: object) -> Iterator[_Part]:
    """Yield the parts that an object itself gives to a pickler; none where it refuses."""
    try:
        reduced: Any = value.__reduce_ex__(5)
    except BaseException as error:
        pass_signal(error)
        return
    if not isinstance(reduced, tuple):
        return
    _, arguments, state, elements, items = (*reduced, None, None, None, None)[:5]
    attributes = getattr(value, "__dict__", None)
    # What stands among the attributes has a name there, which says more than "what it is made of".
    known = {id(one) for one in attributes.values()} if isinstance(attributes, dict) else set()
    for one in state if isinstance(state, tuple) and len(state) == 2 else (state,):
        if isinstance(one, dict):
            yield from (
                (f".{name}" if isinstance(name, str) else f"[{shown(name)}]", each) for name, each in one.items()
            )
        elif one is not None:
            yield f"the state of a {type(value).__qualname__}", one
    for one in arguments or ():
        if not isinstance(one, type) and id(one) not in known:
            yield f"what a {type(value).__qualname__} is made of", one
    yield f"class {called(type(value))}", type(value)
    yield from _elements(islice(elements, _FAILING_MAX) if elements is not None else ())
    yield from _items(islice(items, _FAILING_MAX) if items is not None else ())

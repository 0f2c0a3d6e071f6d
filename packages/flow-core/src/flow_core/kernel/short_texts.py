"""Short texts of the arguments of tasks, for people: nothing of the user's is called, and no large value is copied.

Python's ``repr`` and ``reprlib`` call ``__repr__`` of what they find, ``__lt__``, ``__hash__`` and ``__eq__`` of keys,
and the metaclass for the name of a type; each of those may hang. Here only builtin types are looked into, by their
exact type.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from flow_core.files import Directory, File, Glob, masked
from flow_core.futures.app_future import AppFuture
from flow_core.futures.data_future import DataFuture
from flow_core.guard import name_of

_LONGEST = 60  # characters of one value that is no container
_ITEMS, _PAIRS = 6, 4  # of a container that are shown
_LEVELS = 3  # of containers in containers
_LARGEST_BITS = 4096  # of an int that is written out; Python refuses those of more than 4300 digits, and is slow before
_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    dict: ("{", "}"),
}
_EMPTY: dict[type, str] = {set: "set()", frozenset: "frozenset()"}
_PLAIN = (float, complex, bool, type(None))
_FILES = (File, Directory, Glob)
_FUTURES = (AppFuture, DataFuture)


def short_text(value: object) -> str:
    """Return a short text of a value. Never raises, and runs no code of the user's. Any thread."""
    try:
        return _text(value, _LEVELS)
    except RuntimeError:  # a container was changed by another thread just now
        return f"<{name_of(value)}, which is being changed>"


def _text(value: Any, levels: int) -> str:
    kind = type(value)
    if kind in _BRACKETS:
        return _container(value, kind, levels)
    if kind is str or kind is bytes:
        return _cut(value)
    if kind is int:
        bits = value.bit_length()
        return _middle(repr(value)) if bits <= _LARGEST_BITS else f"<int of {bits} bits>"
    if kind in _PLAIN:
        return repr(value)
    if kind in _FILES:
        return f"{name_of(value)}({_cut(masked(value.url))})"
    # Of other futures not even an attribute is asked: they may have anything under that name.
    if kind in _FUTURES and type(value.tid) is int:
        return f"<task {value.tid}>"
    return f"<{name_of(value)}>"


def _container(value: Any, kind: type, levels: int) -> str:
    size = len(value)
    if not size and kind in _EMPTY:
        return _EMPTY[kind]
    begin, end = _BRACKETS[kind]
    if not levels:
        return f"{begin}{'...' if size else ''}{end}"
    most = _PAIRS if kind is dict else _ITEMS
    texts = [*_items(value, kind, most, levels - 1)]
    if size > most:
        texts.append("...")
    elif kind is tuple and size == 1:
        texts[0] += ","
    return f"{begin}{', '.join(texts)}{end}"


def _items(value: Any, kind: type, most: int, levels: int) -> Iterable[str]:
    if kind is dict:
        # By items(), since looking up a key calls its own methods.
        for key, item in islice(value.items(), most):
            yield f"{_text(key, levels)}: {_text(item, levels)}"
    else:
        for item in islice(value, most):
            yield _text(item, levels)


def _cut(value: Any) -> str:
    """Return the repr of a str or bytes, of which only the ends are copied."""
    if len(value) > _LONGEST:
        half = _LONGEST // 2
        return _middle(repr(value[:half] + value[-half:]), always=True)
    return _middle(repr(value))


def _middle(text: str, always: bool = False) -> str:
    if len(text) <= _LONGEST and not always:
        return text
    half = (_LONGEST - 3) // 2
    return f"{text[:half]}...{text[-half:]}"

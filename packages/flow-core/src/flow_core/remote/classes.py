"""Classes that travel by value: what they are made of, here, when one function or another runs.

cloudpickle knows a class again by a number, so that what comes back from a worker is of the script's own class. But it
then also sets the class to what it was where it comes from: a result would undo what the script has changed since, and
on a worker the version that came last would be that of all functions. So a class stays as it is in the process it is
from, and on a worker each function finds its own version of it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from flow_core.remote.contents import contents, digest_of, meaning

_DATA = (type(None), bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset)

_from_here: WeakSet[type] = WeakSet()
"""Classes that were defined in this process, as far as they were pickled."""
_current: WeakKeyDictionary[type, ClassState] = WeakKeyDictionary()
"""What classes from elsewhere are made of now."""
_loading = threading.local()


class ClassState(NamedTuple):
    """What a class is made of: a digest of it, its attributes, and what is set of slots."""

    digest: bytes
    attributes: dict[str, Any]
    slots: dict[str, Any]


def state_of(cls: type, state: Any) -> ClassState:
    """Return what a class is made of, from what cloudpickle says of it."""
    if cls not in _current:
        _from_here.add(cls)
    attributes, slots = state
    data = {name: value for name, value in attributes.items() if isinstance(value, _DATA)}
    return ClassState(digest_of(meaning(cls) + contents(data)), attributes, slots)


def set_state(cls: type, state: ClassState) -> type:
    """Make a class what it was where it comes from, unless it is from here. Called by pickle."""
    loading = getattr(_loading, "classes", None)
    if loading is not None:
        loading.append((cls, state))
    if cls not in _from_here:
        apply(cls, state)
    return cls


def apply(cls: type, state: ClassState) -> None:
    """Make a class from elsewhere what it is for one function; nothing is done where it is so."""
    before = _current.get(cls)
    if before is not None and before.digest == state.digest:
        return
    try:
        from cloudpickle.cloudpickle import _class_setstate
    except ImportError:  # before version 3
        from cloudpickle.cloudpickle_fast import _class_setstate
    for name in before.attributes if before is not None else ():
        if name not in state.attributes and name in cls.__dict__:
            delattr(cls, name)
    _class_setstate(cls, (state.attributes, state.slots))
    _current[cls] = state


@contextmanager
def collected() -> Iterator[list[tuple[type, ClassState]]]:
    """Collect the classes from elsewhere that are unpickled meanwhile, with what they are made of. This thread's."""
    found: list[tuple[type, ClassState]] = []
    outer, _loading.classes = getattr(_loading, "classes", None), found
    try:
        yield found
    finally:
        _loading.classes = outer
        found[:] = [(cls, state) for cls, state in found if cls not in _from_here]


def _forked() -> None:
    """In a forked worker the script's classes are those of another process."""
    _from_here.clear()


os.register_at_fork(after_in_child=_forked)

"""Classes that travel by value: what they are made of, here, when one function or another runs.

cloudpickle knows a class again by a number, so that what comes back from a worker is of the script's own class. But it
then also sets the class to what it was where it comes from: a result would undo what the script has changed since, and
on a worker the version that came last would be that of all functions. So a class stays as it is in the process it is
from, and on a worker each function finds its own version of it.

A class of another version is another class to each function: what its methods name belongs to the pickle that it came
with. So of two functions that have it each finds its own, with what its own tasks have changed in it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from flow_core.remote.contents import CLASS_NOISE, contents, digest_of, meaning

# Types whose values count in a version by themselves; what else an attribute holds counts through ``meaning``.
_DATA = (type(None), bool, int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset)
_OF_MEMBER = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"})
# What Python makes of slots: part of the class's layout and never of what a task sets.
_OF_LAYOUT = (GetSetDescriptorType, MemberDescriptorType)

_from_here: WeakSet[type] = WeakSet()
"""Classes that were defined in this process, as far as they were pickled."""
_current: WeakKeyDictionary[type, ClassState] = WeakKeyDictionary()
"""State of classes from other processes, as it is set now."""
_loading = threading.local()
_version: Callable[[type], bytes] | None = None


class ClassState(NamedTuple):
    """State of a class: all that it is made of.

    Attributes:
        version: Equal where the class is, and what its methods name.
        bases: Its bases.
        attributes: Its attributes; those that tasks have changed meanwhile, while it is another version's turn.
        slots: What is set of slots.
        members: Of an Enum the attributes that were set of its members.
    """

    version: bytes
    bases: tuple[type, ...]
    attributes: dict[str, Any]
    slots: dict[str, Any]
    members: dict[str, dict[str, Any]]


def report_versions(version: Callable[[type], bytes]) -> None:
    """Set what gives versions of classes: its values are equal only if nothing that a class names has changed."""
    global _version
    _version = version


def state_of(cls: type, state: Any) -> ClassState:
    """Return what a class is made of, from what cloudpickle says of it."""
    # A class that came from elsewhere is in _current, so it is not taken for one of this process when it is sent on.
    if cls not in _current:
        _from_here.add(cls)
    attributes, slots = state
    attributes = {name: value for name, value in attributes.items() if name != "__slotnames__"}
    version = _version or _digest_of
    return ClassState(version(cls), cls.__bases__, attributes, slots, _members_of(cls))


def _members_of(cls: type) -> dict[str, dict[str, Any]]:
    if not issubclass(cls, Enum):
        return {}
    return {
        name: {key: value for key, value in member.__dict__.items() if key not in _OF_MEMBER}
        for name, member in cls.__members__.items()
    }


def _digest_of(cls: type) -> bytes:
    """Return a digest of a class that is sent from a node: of its code and data, not of what its methods name."""
    return digest_of(meaning(cls) + contents({n: v for n, v in vars(cls).items() if isinstance(v, _DATA)}))


def set_state(cls: type, state: ClassState) -> type:
    """Make a class what it was where it comes from, unless it is from here. Called by pickle."""
    loading = getattr(_loading, "classes", None)
    if loading is not None:
        # Collected for the function that is being loaded: it sets them again before each of its calls.
        loading.append((cls, state))
    of_argument = loading is None or _loading.of_argument
    if cls not in _from_here and not (of_argument and is_current(cls, state)):
        apply(cls, state)
    return cls


def is_current(cls: type, state: ClassState) -> bool:
    """Tell whether a class is of that version: then an argument leaves it alone, with what tasks have changed in it."""
    before = _current.get(cls)
    return before is not None and before.version == state.version


def apply(cls: type, state: ClassState) -> None:
    """Make a class from elsewhere what it is for one function; nothing is done where it is so."""
    before = _current.get(cls)
    if before is state:
        return
    try:
        from cloudpickle.cloudpickle import _class_setstate
    except ImportError:  # before version 3
        from cloudpickle.cloudpickle_fast import _class_setstate
    # What a task has changed is kept with its version first; then the attributes that only that version has are
    # removed.
    if before is not None:
        _put_away(cls, before)
        for name in before.attributes:
            if name not in state.attributes and name in cls.__dict__:
                delattr(cls, name)
    if cls.__bases__ != state.bases:
        cls.__bases__ = state.bases
    _class_setstate(cls, (state.attributes, state.slots))
    for member, attributes in state.members.items():
        own: dict[str, Any] = cls[member].__dict__  # type: ignore[index]  # an Enum, since it has members
        # Over a copy of the names, since the dict is changed meanwhile.
        for name in [name for name in own if name not in attributes and name not in _OF_MEMBER]:
            del own[name]
        own.update(attributes)
    _current[cls] = state


def _put_away(cls: type, state: ClassState) -> None:
    """Keep what tasks have changed in a class for the next task of the same version."""
    kept, fixed = state.attributes, issubclass(cls, Enum)
    for name in [name for name in kept if name not in cls.__dict__ and name not in CLASS_NOISE]:
        del kept[name]
    for name, value in cls.__dict__.items():
        known = name in kept or not (fixed or name in CLASS_NOISE or isinstance(value, _OF_LAYOUT))
        if known and name not in CLASS_NOISE:
            kept[name] = value
    state.members.update(_members_of(cls))


@contextmanager
def collected(of_argument: bool) -> Iterator[list[tuple[type, ClassState]]]:
    """Collect the classes from elsewhere that are unpickled meanwhile, with what they are made of. This thread's.

    Args:
        of_argument: Whether they come with an argument, which leaves alone those that are of the same version.
    """
    found: list[tuple[type, ClassState]] = []
    outer = getattr(_loading, "classes", None), getattr(_loading, "of_argument", False)
    _loading.classes, _loading.of_argument = found, of_argument
    try:
        yield found
    finally:
        _loading.classes, _loading.of_argument = outer
        # One entry for each class, the last one: a pickle may set the state of a class more than once.
        found[:] = {cls: state for cls, state in found if cls not in _from_here}.items()


def _forked() -> None:
    """In a forked worker the script's classes are those of another process."""
    _from_here.clear()


os.register_at_fork(after_in_child=_forked)

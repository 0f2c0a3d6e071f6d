"""What objects of the user's said of how they are made anew, so that they are asked once for a key and the wire.

A cached call has a key, made of its arguments, and travels as bytes, made of them as well. An object whose
``__reduce__`` or ``__getstate__`` is the user's own is asked for the key; what it said is kept, and pickled. So both
are of one moment, and a method that takes long, or counts, is called once.
"""

from __future__ import annotations

from _thread import _local

from flow_core.remote.pickling_attributes import may_leave_out

# Not imported from typing: workers load this module, and not typing.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Reductions = dict[int, tuple[object, Any]]


class _Here(_local):
    """What the calling thread records, and what it is given."""

    recorded: Reductions | None = None
    given: Reductions | None = None


_here = _Here()
_REDUCE_EX, _REDUCE, _GET_STATE = object.__reduce_ex__, object.__reduce__, object.__getstate__


class Recording:
    """A ``with`` block in which it is recorded what objects say of themselves to this thread.

    Attributes:
        said: That, by the ids of the objects, and with these.
    """

    __slots__ = ("_outer", "said")

    def __init__(self) -> None:
        self.said: Reductions = {}
        self._outer: Reductions | None = None

    def __enter__(self) -> Reductions:
        self._outer, _here.recorded = _here.recorded, self.said
        return self.said

    def __exit__(self, *_: object) -> None:
        _here.recorded = self._outer


class Given:
    """A ``with`` block in which this thread uses what was recorded in the place of asking the objects again."""

    __slots__ = ("_outer", "_said")

    def __init__(self, said: Reductions | None) -> None:
        self._said = said
        self._outer: Reductions | None = None

    def __enter__(self) -> None:
        self._outer, _here.given = _here.given, self._said

    def __exit__(self, *_: object) -> None:
        _here.given = self._outer


def are_given() -> bool:
    """Return whether the calling thread has any."""
    return bool(_here.given)


def known(value: object) -> Any:
    """Return what an object said before, if it is given; else None."""
    reductions = _here.given
    found = None if reductions is None else reductions.get(id(value))
    return None if found is None else found[1]


def record(value: object, reduced: object) -> None:
    """Note what an object's ``__reduce_ex__`` gave, where that called code of the user's and may be used again."""
    if _here.recorded is None or not _asks_user(type(value)):
        return
    # Iterators can be read once only, and the key has read them.
    if type(reduced) is str or (type(reduced) is tuple and all(each is None for each in reduced[3:])):
        _here.recorded[id(value)] = value, reduced


def _asks_user(kind: Any) -> bool:
    # One with a __reduce_ex__ of its own may say something else for the protocol of keys than for that of the wire.
    if kind.__reduce_ex__ is not _REDUCE_EX:
        return False
    own = kind.__reduce__ is not _REDUCE or kind.__getstate__ is not _GET_STATE
    return own and not may_leave_out(kind)

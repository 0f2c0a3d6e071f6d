"""Stored results of a memoizer: a copy of what the task returned, or its place in a checkpoint."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Protocol

from flow_core.checkpoint.reader import read_value
from flow_core.errors import BadCheckpoint
from flow_core.memo.code_facts import own_names
from flow_core.remote import pickling_attributes
from flow_core.remote.functions import needs_care
from flow_core.remote.naming import names_globals

_IMMUTABLE = frozenset((type(None), bool, int, float, complex, str, bytes, type(...)))
_TUPLE_MAX = 16  # elements; bounds what the look at their types costs, and longer ones are pickled


class InMemory(Protocol):
    """A result in memory, kept apart from the object that the task returned. Any thread."""

    def result(self) -> object:
        """Return the result. Raises BadCheckpoint if its copy cannot be made."""
        ...

    @property
    def at_once(self) -> bool:
        """Whether ``result`` neither reads a file nor calls anything of the user's."""
        ...

    def pickled(self) -> bytes:
        """Return the result as bytes for a checkpoint. Raises whatever pickling it raises."""
        ...


def hold(value: object) -> InMemory:
    """Return what a memoizer keeps of a result, as it is now: later changes of the object change nothing of it.

    Immutable plain data is kept as it is, everything else as a pickle, so that each hit is an object of its own. What
    cannot be pickled is kept itself, as a ``SharedObject``. Any thread.
    """
    if is_immutable(value):
        return ImmutableInMemory(value)
    try:
        return PickledInMemory(dump(value))
    except Exception as error:
        return SharedObject(value, error)


def is_immutable(value: object) -> bool:
    """Tell whether a value is surely immutable plain data, which need not be copied."""
    # Exact types: objects of subclasses may have attributes that change.
    cls = type(value)
    if cls in _IMMUTABLE:
        return True
    return cls is tuple and len(value) <= _TUPLE_MAX and _IMMUTABLE.issuperset(map(type, value))  # type: ignore[arg-type, call-overload]


class ImmutableInMemory:
    """An immutable value in memory."""

    __slots__ = ("_value",)

    at_once = True

    def __init__(self, value: object) -> None:
        self._value = value

    def result(self) -> object:
        """Return the value itself, which is immutable."""
        return self._value

    def pickled(self) -> bytes:
        """Return the value as bytes."""
        return dump(self._value)


class PickledInMemory:
    """A value in memory as bytes: each hit is an object of its own."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def result(self) -> object:
        """Return a new object. Raises BadCheckpoint if it cannot be unpickled."""
        try:
            value: object = pickle.loads(self._data)
        except Exception as error:
            raise BadCheckpoint(f"it cannot be unpickled here: {type(error).__name__}: {error}") from error
        return value

    @property
    def at_once(self) -> bool:
        """Whether no class or function is named in it that would be called."""
        return not names_globals(self._data)

    def pickled(self) -> bytes:
        """Return the pickle that was made when the result was stored."""
        return self._data


class SharedObject:
    """A value that cannot be pickled: every hit is the very object that the task returned.

    Attributes:
        kind: Name of the value's type.
        error: Why it could not be pickled.
    """

    __slots__ = ("_value", "error", "kind")

    at_once = True

    def __init__(self, value: object, error: Exception) -> None:
        self._value = value
        self.kind = type(value).__qualname__
        # A traceback would keep the frames, and all their variables, for as long as the run lasts.
        self.error = error.with_traceback(None)

    def result(self) -> object:
        """Return the very object that the task returned, which all hits share."""
        return self._value

    def pickled(self) -> bytes:
        """Raise what pickling raised."""
        raise self.error


class CheckpointedResult:
    """A value in a checkpoint file, read each time it is asked for: memory stays flat however large results are."""

    __slots__ = ("_digest", "_offset", "_path", "_trusted", "written_ns")

    at_once = False

    def __init__(
        self, path: Path, offset: int, digest: bytes, written_ns: int, trusted: frozenset[int] = frozenset()
    ) -> None:
        self._trusted = trusted
        self._path = path
        self._offset = offset
        self._digest = digest
        self.written_ns = written_ns

    def result(self) -> object:
        """Return the value. Raises BadCheckpoint if it cannot be read back."""
        return read_value(self._path, self._offset, self._digest, self._trusted)


def dump(value: object) -> bytes:
    """Pickle a value, by cloudpickle where pickle cannot. Raises whatever cloudpickle does when it cannot either.

    Attributes that the pickle of an object of the user's own would leave out are there.
    """
    try:
        # Protocol 5 is in all supported versions, and checkpoints are read by other versions of Python.
        data = pickle.dumps(value, protocol=5)
        return pickling_attributes.dumps(value) if needs_care(data) or own_names.mentioned(data) else data
    except Exception:
        # Imported when needed: cloudpickle takes its time, and most results do without.
        from flow_core.remote import by_value

        return by_value.dumps(value)

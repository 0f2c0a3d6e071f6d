"""What a memoizer holds of a result: a copy of what the task returned, or where in a checkpoint it lies."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Protocol

from flow_core.checkpoint.reader import read_value
from flow_core.errors import BadCheckpoint

_IMMUTABLE = frozenset((type(None), bool, int, float, complex, str, bytes, type(...)))
_TUPLE_MAX = 16


class Held(Protocol):
    """A result in memory."""

    def result(self) -> object:
        """Return the result. Raises BadCheckpoint if its copy cannot be made."""
        ...

    def pickled(self) -> bytes:
        """Return the result as bytes for a checkpoint. Raises whatever pickling it raises."""
        ...


def hold(value: object) -> Held:
    """Return what a memoizer keeps of a result, as it is now: later changes of the object change nothing of it.

    Immutable plain data is kept as it is, everything else as a pickle, so that each hit is an object of its own. What
    cannot be pickled is kept itself, as a ``Shared``. Any thread.
    """
    if is_immutable(value):
        return Kept(value)
    try:
        return Pickled(dump(value))
    except Exception as error:
        return Shared(value, error)


def is_immutable(value: object) -> bool:
    """Tell whether a value is surely plain data that nobody can change: it need not be copied."""
    cls = type(value)
    if cls in _IMMUTABLE:
        return True
    return cls is tuple and len(value) <= _TUPLE_MAX and _IMMUTABLE.issuperset(map(type, value))  # type: ignore[arg-type, call-overload]


class Kept:
    """An immutable value in memory."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def result(self) -> object:
        """Return the value."""
        return self._value

    def pickled(self) -> bytes:
        """Return the value as bytes."""
        return dump(self._value)


class Pickled:
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

    def pickled(self) -> bytes:
        """Return the bytes."""
        return self._data


class Shared:
    """A value that cannot be pickled: every hit is the very object that the task returned.

    Attributes:
        kind: Name of the value's type.
        error: Why it could not be pickled.
    """

    __slots__ = ("_value", "error", "kind")

    def __init__(self, value: object, error: Exception) -> None:
        self._value = value
        self.kind = type(value).__qualname__
        self.error = error.with_traceback(None)

    def result(self) -> object:
        """Return the value."""
        return self._value

    def pickled(self) -> bytes:
        """Raise what pickling raised."""
        raise self.error


class Filed:
    """A value in a checkpoint file, read each time it is asked for: memory stays flat however large results are."""

    __slots__ = ("_digest", "_offset", "_path", "written_ns")

    def __init__(self, path: Path, offset: int, digest: bytes, written_ns: int) -> None:
        self._path = path
        self._offset = offset
        self._digest = digest
        self.written_ns = written_ns

    def result(self) -> object:
        """Return the value. Raises BadCheckpoint if it cannot be read back."""
        return read_value(self._path, self._offset, self._digest)


def dump(value: object) -> bytes:
    """Pickle a value, by cloudpickle where pickle cannot. Raises whatever cloudpickle does when it cannot either."""
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:
        from flow_core.remote import by_value

        return by_value.dumps(value)

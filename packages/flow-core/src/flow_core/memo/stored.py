"""What a memoizer holds of a result: the value itself, or where in a checkpoint it lies."""

from __future__ import annotations

import pickle
from pathlib import Path

from flow_core.checkpoint.reader import read_value


class Kept:
    """A value in memory."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def result(self) -> object:
        """Return the value."""
        return self._value


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

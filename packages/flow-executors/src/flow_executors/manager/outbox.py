"""Results on their way to the interchange: gathered, sent in batches, kept until they are acknowledged. Pure."""

from __future__ import annotations

from collections import deque

from flow_executors.manager.stream import Frame
from flow_executors.wire.results import pack_results
from flow_executors.wire.single import pack_result

_NUMBER_AT = slice(8, 12)  # the manager's number in RESULTS


class Outbox:
    """Columns of the next message, and the messages that are not acknowledged."""

    def __init__(self) -> None:
        self.manager = 0
        """The number given by the interchange."""
        self.offset_ns = 0
        self._sequence = 0
        self._keys: list[int] = []
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._workers: list[int] = []
        self._statuses = bytearray()
        self._payloads: list[bytes | memoryview] = []
        self._unacknowledged: deque[tuple[int, bytes, tuple[int, ...]]] = deque()

    def __len__(self) -> int:
        return len(self._keys)

    def add_frames(self, rank: int, frames: list[Frame]) -> None:
        """Take results as a worker wrote them."""
        if len(frames) == 1:
            key, start, end, status, payload = frames[0]
            self.add(key, status, payload, rank, start, end)
            return
        keys, starts, ends, statuses, payloads = zip(*frames, strict=True)
        self._keys += keys
        self._starts += starts
        self._ends += ends
        self._statuses += bytes(statuses)
        self._payloads += payloads
        self._workers += [rank] * len(keys)

    def add(
        self, key: int, status: int, payload: bytes | memoryview = b"", rank: int = 0, start: int = 0, end: int = 0
    ) -> None:
        """Take one outcome; ``status`` is a verdict with flags."""
        self._keys.append(key)
        self._starts.append(start)
        self._ends.append(end)
        self._workers.append(rank)
        self._statuses.append(status)
        self._payloads.append(payload)

    def pack(self) -> bytes:
        """Make one message of all that was gathered, and keep it until it is acknowledged."""
        self._sequence += 1
        message = self._one() if len(self._keys) == 1 else self._batch()
        self._unacknowledged.append((self._sequence, message, tuple(self._keys)))
        self._keys, self._starts, self._ends, self._workers = [], [], [], []
        self._statuses, self._payloads = bytearray(), []
        return message

    def _one(self) -> bytes:
        return pack_result(
            self.manager,
            self._sequence,
            self.offset_ns,
            self._keys[0],
            self._starts[0],
            self._ends[0],
            self._workers[0],
            self._statuses[0],
            self._payloads[0],
        )

    def _batch(self) -> bytes:
        return pack_results(
            self.manager,
            self._sequence,
            self.offset_ns,
            self._keys,
            self._starts,
            self._ends,
            self._workers,
            self._statuses,
            self._payloads,
        )

    def acknowledge(self, sequence: int) -> None:
        """Forget messages up to this number."""
        kept = self._unacknowledged
        while kept and kept[0][0] <= sequence:
            kept.popleft()

    def unacknowledged(self) -> list[bytes]:
        """Return the messages to send again after a new registration, under the number given there."""
        return [_numbered(message, self.manager) for _, message, _ in self._unacknowledged]

    def keys(self) -> list[int]:
        """Return the keys of results that are not acknowledged."""
        return [*self._keys, *(key for _, _, keys in self._unacknowledged for key in keys)]

    @property
    def owed(self) -> bool:
        """Whether results wait to be sent or to be acknowledged."""
        return bool(self._keys or self._unacknowledged)


def _numbered(message: bytes, manager: int) -> bytes:
    """Return a message under another manager number."""
    number = manager.to_bytes(4, "little")
    if message[_NUMBER_AT] == number:
        return message
    return message[: _NUMBER_AT.start] + number + message[_NUMBER_AT.stop :]

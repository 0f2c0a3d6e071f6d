"""What a worker writes, read from its pipe and cut into frames. Layout: worker.frames."""

from __future__ import annotations

import os

from flow_executors.errors import BadMessage
from flow_executors.worker.frames import FRAME

_ROOM = 65_536
_BIG = 65_536

Frame = tuple[int, int, int, int, bytes | memoryview]
"""key, start, end, status, payload"""


class FrameReader:
    """One pipe of results, which does not block. One thread, or several under one lock.

    Args:
        fd: Where to read.
        longest: Most bytes of a payload.

    Attributes:
        eof: Nobody holds the worker's end any more: it is dead, or has closed all its files.
    """

    __slots__ = ("_big", "_fd", "_filled", "_longest", "_rest", "eof")

    def __init__(self, fd: int, longest: int = 0xFFFFFFFF) -> None:
        self._fd = fd
        self._longest = longest
        self.eof = False
        self._rest = b""
        self._big: bytearray | None = None
        self._filled = 0

    def read(self) -> list[Frame]:
        """Read once and return the frames completed by it.

        Raises:
            BadMessage: a payload is longer than any can be: what was read is no stream of frames.
        """
        if self._big is not None:
            return self._fill(self._big)
        try:
            data = os.read(self._fd, _ROOM)
        except BlockingIOError:
            return []
        self.eof = not data
        return self._cut(self._rest + data if self._rest else data)

    def read_all(self) -> list[Frame]:
        """Read all that a dead worker had written; a frame that it did not finish is dropped."""
        found: list[Frame] = []
        while True:
            before = self._filled, len(self._rest)
            frames = self.read()
            found += frames
            if not frames and before == (self._filled, len(self._rest)):
                return found

    def _cut(self, data: bytes) -> list[Frame]:
        found: list[Frame] = []
        unpack, head, at, end = FRAME.unpack_from, FRAME.size, 0, len(data)
        while end - at >= head:
            size, key, start, stop, status = unpack(data, at)
            next_at = at + head + size
            if next_at > end:
                if size > self._longest:
                    raise BadMessage(f"a worker wrote what is no result: {size} bytes of one")
                if size > _BIG:
                    self._begin_big(data[at:], head + size)
                    return found
                break
            found.append((key, start, stop, status, data[at + head : next_at]))
            at = next_at
        self._rest = data[at:]
        return found

    def _begin_big(self, data: bytes, size: int) -> None:
        """From here on read straight into a buffer of the frame's size: joining pieces would be quadratic."""
        self._rest = b""
        self._big = bytearray(size)
        self._big[: len(data)] = data
        self._filled = len(data)

    def _fill(self, big: bytearray) -> list[Frame]:
        try:
            count = os.readv(self._fd, [memoryview(big)[self._filled :]])
        except BlockingIOError:
            return []
        self.eof = not count
        self._filled += count
        if self._filled < len(big):
            return []
        _, key, start, stop, status = FRAME.unpack_from(big)
        self._big, self._filled = None, 0
        return [(key, start, stop, status, memoryview(big)[FRAME.size :])]

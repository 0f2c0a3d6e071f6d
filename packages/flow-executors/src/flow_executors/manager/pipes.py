"""The manager's ends of one worker's pipes: packets in, frames out, and packets back."""

from __future__ import annotations

import os

from flow_executors.manager.nursery import Spawned
from flow_executors.worker.frames import FRAME, PACKET, key_of

_ROOM = 65_536
_BIG = 65_536

Frame = tuple[int, int, int, int, bytes | memoryview]
"""key, start, end, status, payload"""


class Pipes:
    """Pipes of one worker. Nothing blocks; one thread."""

    __slots__ = ("_back", "_big", "_filled", "_rest", "depth", "eof", "pid", "rank", "result_out", "task_in")

    def __init__(self, spawned: Spawned) -> None:
        self.rank = spawned.rank
        self.pid = spawned.pid
        self.depth = spawned.depth
        self.task_in = spawned.task_in
        self.result_out = spawned.result_out
        # O_NONBLOCK belongs to the open file, which the worker shares: reading back needs an open file of its own.
        self._back = os.open(f"/proc/self/fd/{spawned.task_back}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.close(spawned.task_back)
        os.set_blocking(self.task_in, False)
        os.set_blocking(self.result_out, False)
        self.eof = False
        """Nobody holds the worker's end any more: it is dead, or has closed all its files."""
        self._rest = b""
        self._big: bytearray | None = None
        self._filled = 0

    def put(self, packet: bytes | memoryview) -> bool:
        """Write one packet; False if the pipe is full."""
        try:
            os.write(self.task_in, packet)
        except BlockingIOError:
            return False
        return True

    def take_back(self, count: int) -> list[tuple[int, bytes]]:
        """Read up to ``count`` packets that the worker has not taken, oldest first, as (key, packet)."""
        taken = []
        for _ in range(count):
            try:
                packet = os.read(self._back, PACKET)
            except BlockingIOError:
                break
            if not packet:
                break
            taken.append((key_of(packet), packet))
        return taken

    def frames(self) -> list[Frame]:
        """Read once and return the frames completed by it."""
        if self._big is not None:
            return self._fill(self._big)
        try:
            data = os.read(self.result_out, _ROOM)
        except BlockingIOError:
            return []
        self.eof = not data
        return self._cut(self._rest + data if self._rest else data)

    def last_frames(self) -> list[Frame]:
        """Read all that a dead worker had written; a frame that it did not finish is dropped."""
        found: list[Frame] = []
        while True:
            before = self._filled, len(self._rest)
            frames = self.frames()
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
            count = os.readv(self.result_out, [memoryview(big)[self._filled :]])
        except BlockingIOError:
            return []
        self.eof = not count
        self._filled += count
        if self._filled < len(big):
            return []
        _, key, start, stop, status = FRAME.unpack_from(big)
        self._big, self._filled = None, 0
        return [(key, start, stop, status, memoryview(big)[FRAME.size :])]

    def close(self) -> None:
        """Close all ends; the worker then ends by itself when it is idle."""
        for fd in (self.task_in, self._back, self.result_out):
            os.close(fd)

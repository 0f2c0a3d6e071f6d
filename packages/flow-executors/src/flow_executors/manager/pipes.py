"""The manager's ends of one worker's pipes: packets in, frames out, and packets back."""

from __future__ import annotations

import os

from flow_executors.manager.nursery import Spawned
from flow_executors.manager.stream import Frame, FrameReader
from flow_executors.worker.frames import PACKET, key_of, made_plain


class Pipes:
    """Pipes of one worker. Nothing blocks; one thread. ``lane_out`` is only kept open here, for the script."""

    __slots__ = ("_back", "_reader", "depth", "lane_out", "pid", "rank", "result_out", "task_in")

    def __init__(self, spawned: Spawned) -> None:
        self.rank = spawned.rank
        self.pid = spawned.pid
        self.depth = spawned.depth
        self.task_in = spawned.task_in
        self.result_out = spawned.result_out
        self.lane_out = spawned.lane_out
        # O_NONBLOCK belongs to the open file, which the worker shares: reading back needs an open file of its own.
        self._back = os.open(f"/proc/self/fd/{spawned.task_back}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.close(spawned.task_back)
        os.set_blocking(self.task_in, False)
        os.set_blocking(self.result_out, False)
        self._reader = FrameReader(self.result_out)

    @property
    def eof(self) -> bool:
        """Nobody holds the worker's end any more: it is dead, or has closed all its files."""
        return self._reader.eof

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
            taken.append((key_of(packet), made_plain(packet)))
        return taken

    def frames(self) -> list[Frame]:
        """Read once and return the frames completed by it."""
        return self._reader.read()

    def last_frames(self) -> list[Frame]:
        """Read all that a dead worker had written; a frame that it did not finish is dropped."""
        return self._reader.read_all()

    def close(self) -> None:
        """Close all ends; the worker then ends by itself when it is idle."""
        for fd in (self.task_in, self._back, self.result_out, self.lane_out):
            if fd >= 0:
                os.close(fd)

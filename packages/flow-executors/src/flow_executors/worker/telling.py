"""Progress of a task's file transfers, reported to its manager while it runs. Standard library and the leaf only."""

from __future__ import annotations

import os
from _thread import allocate_lock

from flow_executors.worker.packets import FILES, FRAME, PIPE_ATOMIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from flow_core.interfaces.call import FileProgress


class FilesTeller:
    """Reports the files of one task. Any of its threads may call ``tell``, the one that runs it calls ``close``."""

    __slots__ = ("_fd", "_key", "_lock")

    def __init__(self, fd: int, key: int) -> None:
        self._fd = fd
        self._key = key
        self._lock = allocate_lock()

    def tell(self, files: Sequence[FileProgress]) -> None:
        """Write the progress, a frame a file; nothing after the task's end, nor for a name that is too long."""
        import json  # most tasks move nothing for long

        for file in files:
            payload = json.dumps([getattr(file, name) for name in file.__slots__]).encode()
            frame = FRAME.pack(len(payload), self._key, 0, 0, FILES) + payload
            with self._lock:
                if self._fd >= 0 and len(frame) <= PIPE_ATOMIC:
                    try:
                        os.write(self._fd, frame)
                    except OSError:
                        self._fd = -1  # the manager is gone, and with it this process is soon

    def close(self) -> None:
        """Write nothing from now on: the result comes next, which must not be broken into."""
        with self._lock:
            self._fd = -1

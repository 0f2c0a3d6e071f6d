"""The cap of the workers' logs: what a task prints has no bound, a directory of logs must have one.

A log that has grown beyond the cap is cut in its middle, in place, since workers and the commands that they run write
into it: its first quarter and its last one stay, and a line between them states how much is missing.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence

from flow_core.own_files import open_own_to_write

log = logging.getLogger("flow.manager")

# Seconds between two looks: a log may grow beyond its cap by what a task prints in one.
_EVERY_S = 1.0


class LogCap:
    """Looks at the logs once a second, on a thread of its own: a file system may hang.

    Args:
        paths: The logs, whether they are there or not.
        most_bytes: Of one log.
    """

    def __init__(self, paths: Sequence[str], most_bytes: int) -> None:
        self._paths = paths
        self._most = most_bytes
        self._missing: dict[str, int] = {}
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to look; ends with the process."""
        threading.Thread(target=self._run, name="flow-log-cap", daemon=True).start()

    def stop(self) -> None:
        """Make the thread end after its present look; does not wait for it."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self.look()

    def look(self) -> None:
        """Cut what is too long. Never raises."""
        for path in self._paths:
            try:
                if os.stat(path).st_size > self._most:
                    self._cut(path)
            except OSError as error:
                log.debug("log %s: %s", path, error)

    def _cut(self, path: str) -> None:
        quarter = self._most // 4
        fd = open_own_to_write(path, os.O_RDWR | os.O_APPEND)
        try:
            size = os.fstat(fd).st_size
            head = _line_end(os.pread(fd, quarter, 0))
            tail = os.pread(fd, quarter, size - quarter)
            tail = tail[tail.find(b"\n", 0, quarter // 2) + 1 :]
            # What somebody writes before the next line is cut, too; what comes after it is added to the end.
            os.ftruncate(fd, head)
            first = path not in self._missing
            self._missing[path] = missing = self._missing.get(path, 0) + size - head - len(tail)
            os.write(
                fd, f"\n... {missing} bytes were cut here (max_worker_log_bytes={self._most}) ...\n".encode() + tail
            )
        finally:
            os.close(fd)
        if first:
            log.warning("%s has more than %d bytes (max_worker_log_bytes): its middle is cut", path, self._most)


def _line_end(data: bytes) -> int:
    """Return where the last line ends; where there are no lines, where the data does."""
    return data.rfind(b"\n") + 1 or len(data)

"""Standard output and error of a worker: what cannot be written is counted, and is no failure of a task that prints."""

from __future__ import annotations

import io

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from _typeshed import ReadableBuffer


class _LossyStream(io.FileIO):
    """A file that drops what there is no room for, and notes how much once there is some again."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "w", closefd=False)
        self._lost = 0
        self._why = ""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write; return how much was taken."""
        try:
            if self._lost:
                super().write(f"... {self._lost} bytes could not be written here ({self._why}) ...\n".encode())
                self._lost = 0
            return super().write(data)
        except OSError as error:
            size = memoryview(data).nbytes
            self._lost, self._why = self._lost + size, error.strerror or type(error).__name__
            return size


def opened(fd: int, errors: str = "strict") -> TextIO:
    """Return a stream that writes to a descriptor, line by line, so that all is there when the process crashes."""
    return io.TextIOWrapper(io.BufferedWriter(_LossyStream(fd)), errors=errors, line_buffering=True)

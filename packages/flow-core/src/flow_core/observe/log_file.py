"""A log handler that appends to a file and outlives a full disk."""

from __future__ import annotations

import logging
import os
import sys


class LogFile(logging.Handler):
    """Appends one line a record to a file; any thread.

    Lines that cannot be written are counted, the first time with one line on standard error. When there is room again
    the log says how many are missing. Nothing is raised, and no traceback of the logging module is printed.

    Attributes:
        path: The file, absolute.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file, making it if it is not there. Raises OSError."""
        super().__init__()
        self.path = os.path.abspath(path)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._lost = 0
        self._torn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line for one record, after one that tells of those lost before it, if any were."""
        try:
            line = self.format(record)
            if self._lost:
                line = self.format(_missing(self._lost)) + "\n" + line
        except Exception:
            self.handleError(record)
            return
        try:
            self._write(f"{line}\n".encode("utf-8", "backslashreplace"))
            self._lost = 0
        except OSError as error:
            self._lose(error)

    def close(self) -> None:
        """Close the file; idempotent, raises nothing."""
        self.acquire()
        try:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)
        except OSError:
            pass  # what a network file system reports late: the lines are lost, the run is not
        finally:
            self.release()
        super().close()

    def _write(self, data: bytes) -> None:
        if self._fd < 0:
            return
        if self._torn:
            data = b"\n" + data
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
            self._torn = bool(view)

    def _lose(self, error: OSError) -> None:
        self._lost += 1
        if self._lost == 1 and sys.stderr is not None:
            try:
                print(f"flow: {self.path} cannot be written ({error.strerror}): lines are lost", file=sys.stderr)  # noqa: T201
            except (OSError, ValueError):
                pass


def _missing(count: int) -> logging.LogRecord:
    message = "%d lines are missing here: this log could not be written"
    return logging.LogRecord("flow", logging.WARNING, __file__, 0, message, (count,), None)

"""Log file handler, which outlives a full disk and a file system that does not answer."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time

# Seconds that other threads wait for one whose write does not return; then their lines are counted as lost. The lock of
# the logging module has no limit: each line of the log waited for a file server that was gone, and no script ended.
_PATIENCE_S = 5.0


class _Turn:
    """Lock of a handler whose holder may write for ever: others wait until it has written for some seconds.

    Attributes:
        writing_since: When the write began that goes on, a ``time.monotonic`` reading; None while there is none.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._mine = threading.local()
        self.writing_since: float | None = None

    @property
    def mine(self) -> bool:
        """Whether the calling thread holds the lock."""
        return getattr(self._mine, "depth", 0) > 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Get it, or not: the holder has been writing for long."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self._lock.acquire(timeout=self._patience_s(deadline) if blocking else 0):
            if not blocking or self._patience_s(deadline) <= 0:
                return False
        self._mine.depth = getattr(self._mine, "depth", 0) + 1
        return True

    def _patience_s(self, deadline: float) -> float:
        since = self.writing_since
        return max(0.0, (deadline if since is None else min(deadline, since + _PATIENCE_S)) - time.monotonic())

    def release(self) -> None:
        """Give it back, if this thread has it: the logging module does not ask whether it got it."""
        if self.mine:
            self._mine.depth -= 1
            self._lock.release()

    def _at_fork_reinit(self) -> None:
        """Be free in a forked process; called by the logging module."""
        self.__init__()  # type: ignore[misc]  # anew, as if it were just made

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_raised: object) -> None:
        self.release()


class LogFile(logging.Handler):
    """Appends one line a record to a file; any thread.

    Lines that cannot be written are counted, the first time with one line on standard error. When there is room again
    the log says how many are missing. Nothing is raised, and no traceback of the logging module is printed. A thread
    whose write does not return waits for that, and no other one for more than 5 s.

    Attributes:
        path: The file, absolute.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file, making it if it is not there. Raises OSError."""
        super().__init__()
        self.path = os.path.abspath(path)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._lost = 0
        self._torn = False
        self._turn: _Turn

    def createLock(self) -> None:  # noqa: N802  (a name of the logging module)
        """Make the lock of this handler, whose waits are bounded. Called by the logging module, also after a fork."""
        super().createLock()  # which has the lock of this handler renewed in forked processes
        self._turn = _Turn()
        self.lock = self._turn  # type: ignore[assignment]  # it has what the logging module takes of a lock

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line for one record, after one that tells of those lost before it, if any were."""
        if not self._turn.mine:
            self._lose("the file system does not answer")
            return
        try:
            line = self.format(record)
            if self._lost:
                # In one write with the line itself, so that both are there or neither is counted off.
                line = self.format(_missing(self._lost)) + "\n" + line
        except Exception:
            self.handleError(record)
            return
        try:
            lost = self._lost
            self._write(f"{line}\n".encode("utf-8", "backslashreplace"))
            self._lost -= lost  # not those of others that have not waited for this
        except OSError as error:
            self._lose(error.strerror)

    def close(self) -> None:
        """Close the file; idempotent, raises nothing. While a write does not return it stays open."""
        self.acquire()
        try:
            fd = self._fd if self._turn.mine else -1
            if fd >= 0:
                self._fd = -1
                os.close(fd)
        except OSError:
            pass  # what a network file system reports late: the lines are lost, the run is not
        finally:
            self.release()
        super().close()

    def _write(self, data: bytes) -> None:
        if self._fd < 0:
            return
        # A disk that was full in the midst of a line has left half of it.
        if self._torn:
            data = b"\n" + data
        view = memoryview(data)
        self._turn.writing_since = time.monotonic()
        try:
            while view:
                # write() may take less than all of it, when a disk becomes full.
                view = view[os.write(self._fd, view) :]
                self._torn = bool(view)
        finally:
            self._turn.writing_since = None

    def _lose(self, reason: str | None) -> None:
        self._lost += 1
        # Once: a full disk loses every line, and standard error is to say so, not to become the log.
        if self._lost == 1 and sys.stderr is not None:
            try:
                print(f"flow: {self.path} cannot be written ({reason}): lines are lost", file=sys.stderr)  # noqa: T201
            except (OSError, ValueError):
                pass


def _missing(count: int) -> logging.LogRecord:
    message = "%d lines are missing here: this log could not be written"
    return logging.LogRecord("flow", logging.WARNING, __file__, 0, message, (count,), None)

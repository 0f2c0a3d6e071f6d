"""Ends of the logs of a manager and its workers, for a script that does not see the disk on which they lie."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from flow_executors.wire.files import END_BYTES, MOST_ENDS

log = logging.getLogger("flow.manager")

# Bytes of each log that come into the run's directory: its end.
_LOG_BYTES = 1 << 20
# Seconds between looks whether logs have grown: a manager that is killed has told all but what came since.
_LOOK_S = 2.0


class LogEnds:
    """Knows which logs have grown since their ends were told. One thread.

    Attributes:
        due: When to look again, a ``time.monotonic`` reading.
    """

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, int]] = {}  # log -> size and time of the last change, when its end was told
        self.due = 0.0

    def forget(self) -> None:
        """Take it that nothing was told yet."""
        self._told.clear()

    def grown(self, directory: str, now: float) -> dict[str, str]:
        """Return the ends of the logs that have grown, by name; none where it was asked just before. Never raises.

        ``now`` is a ``time.monotonic`` reading.
        """
        if now < self.due:
            return {}
        self.due = now + _LOOK_S
        try:
            return self._ends(directory)
        except OSError as error:
            log.debug("the ends of logs cannot be told: %s", error)
            return {}

    def _ends(self, directory: str) -> dict[str, str]:
        grown = []
        for each in os.scandir(directory):
            if each.name.endswith(".log"):
                state = each.stat(follow_symlinks=False)
                if state.st_size and self._told.get(each.name) != (state.st_size, state.st_mtime_ns):
                    grown.append((state.st_mtime_ns, state.st_size, each.name))
        ends = {}
        for when, size, name in sorted(grown, reverse=True)[:MOST_ENDS]:
            ends[name] = _end_of(os.path.join(directory, name), END_BYTES)
            self._told[name] = size, when
        return ends


def copied_ends(directory: str, to: str) -> Iterator[tuple[str, str]]:
    """Copy the ends of all logs into another directory, and yield their names and paths there. Raises OSError."""
    for name in sorted(os.listdir(directory)):
        if name.endswith(".log"):
            path = os.path.join(to, name)
            _copy_end(os.path.join(directory, name), path, _LOG_BYTES)
            yield name, path


def _copy_end(path: str, to: str, most: int) -> None:
    """Copy the last bytes of a file, with a line that says what is left out. Raises OSError."""
    with open(path, "rb") as source, open(to, "wb") as target:
        size = os.fstat(source.fileno()).st_size
        if size > most:
            source.seek(size - most)
            target.write(b"... %d bytes before this were left on the node\n" % (size - most))
        target.write(source.read(most))


def _end_of(path: str, most: int) -> str:
    """Return the last bytes of a file as text, from the beginning of a line on if one begins there. Raises OSError."""
    with open(path, "rb") as source:
        size = os.fstat(source.fileno()).st_size
        source.seek(max(0, size - most))
        text = source.read(most)
    if size > most:
        text = text[text.find(b"\n") + 1 :]
    return text.decode("utf-8", "replace")

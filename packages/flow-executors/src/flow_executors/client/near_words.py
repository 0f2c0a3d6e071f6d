"""What is left of a manager of the script's own machine that died: the end of its log, and what its job says of it.

Both are read by a thread that may wait for a file system, once for all tasks of the manager, and not for long.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from signal import Signals, strsignal

from flow_core.bounded_calls import BoundedCall, NoAnswerError
from flow_core.guard import one_line
from flow_core.interfaces.outcome import Loss, Outcome

READ_S = 3.0
"""Seconds that all of it may take: the next try of a task waits for it."""
_JOB_S = 1.0  # seconds for the job to say how its process ended: a shell does it as soon as the process is gone
_LOOK_S = 0.05
_LOG_BYTES = 2048
_LINES = 12  # of the log; and of what the job wrote to standard error
_JOB_LINES = 4

JobWords = Callable[[str], str]
"""Gives the end of what the job of a block wrote to standard error."""


class NearWords:
    """The last words of one manager. Any thread."""

    def __init__(self, log: Path, pid: int, block: str, job_words: JobWords | None) -> None:
        self._log = log
        self._pid = pid
        self._block = block
        self._job_words = job_words
        self._lock = threading.Lock()
        self._found: tuple[str, int | None] | None = None

    def outcome(self, lost: Outcome) -> Outcome:
        """Return the outcome of a lost try with the manager's last words. Takes some seconds at most."""
        with self._lock:  # tasks of one manager come together: one thread reads, the others wait for it
            if self._found is None:
                try:
                    self._found = BoundedCall("flow-last-words", self._read).wait(READ_S)
                except NoAnswerError:
                    self._found = "", None
                except Exception as error:  # of the provider, say: the loss is reported in any case
                    self._found = f"(its last words could not be read: {one_line(error)})", None
            tail, number = self._found
        if lost.loss is not None:
            lost.loss = self._added(lost.loss, tail, number)
        return lost

    @staticmethod
    def _added(loss: Loss, tail: str, number: int | None) -> Loss:
        return replace(loss, stderr_tail=loss.stderr_tail or tail, signal=loss.signal or number)

    def _read(self) -> tuple[str, int | None]:
        number, words = self._how_it_ended()
        parts = [_last_lines(_end_of(self._log), _LINES)]
        if words.strip():
            parts.append(f"The end of the standard error of its job:\n{_last_lines(words, _JOB_LINES)}")
        return "\n".join(part for part in parts if part), number

    def _how_it_ended(self) -> tuple[int | None, str]:
        """Return the signal that ended the process, as the shell of its job says, and all that the job said."""
        if self._job_words is None:
            return None, ""
        deadline = time.monotonic() + _JOB_S
        while True:
            words = self._job_words(self._block)
            number = signal_of(words, self._pid)
            # A process that lives, and only fell silent, has no end that its job could tell.
            if number is not None or _is_alive(self._pid) or time.monotonic() >= deadline:
                return number, words
            time.sleep(_LOOK_S)


def signal_of(words: str, pid: int) -> int | None:
    """Return the signal by which a process ended, as its shell wrote: ``line 19: 4711 Killed   bash -c ...``."""
    for line in reversed(words.splitlines()):
        found = re.search(rf"(?<!\d){pid}\s+(\S.*)", line)
        if found is None:
            continue
        for number in Signals:
            name = strsignal(number)
            if name and re.match(rf"{re.escape(name)}(\s|$)", found[1]):
                return int(number)
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _end_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LOG_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _last_lines(text: str, number: int) -> str:
    return "\n".join(text.rstrip().splitlines()[-number:])

"""The ends of the logs of managers whose nodes keep these: all that is left of them when a manager is killed.

The receiver thread takes what managers tell, and adds it to the losses that it reports. The thread of files writes it
into the run's directory when a manager is gone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flow_core.folders import make_directory
from flow_core.interfaces.outcome import Loss, LossKind
from flow_executors.wire.files import MOST_ENDS, unpack_ends
from flow_executors.wire.kinds import Buffer

_LOG = re.compile(r"[\w-][\w-]{0,60}\.log")
_MANAGERS = "manager.log"
_HEAD = "... the manager was lost before it could send this log: of that there is what it had told of its end\n"


class LastWords:
    """The ends of logs by manager.

    Args:
        place: Gives the directory of a manager's logs; None where its node writes them there itself.
    """

    def __init__(self, place: Callable[[int], Path | None]) -> None:
        self._place = place
        self._ends: dict[int, tuple[Path, dict[str, str]]] = {}

    def told(self, manager: int, body: Buffer) -> None:
        """Take the ends of logs that have grown. Raises BadMessage."""
        place = self._place(manager)
        if place is None:
            return
        ends = self._ends.setdefault(manager, (place, {}))[1]
        for name, text in unpack_ends(body).items():
            if _LOG.fullmatch(name):
                ends.pop(name, None)  # the last that were told stay
                ends[name] = text
        while len(ends) > MOST_ENDS:
            del ends[next(name for name in ends if name != _MANAGERS)]

    def of(self, manager: int) -> bool:
        """Whether a manager has told some."""
        return manager in self._ends

    def added(self, loss: Loss, manager: int) -> Loss:
        """Return the loss of a task with the end of its manager's log."""
        known = self._ends.get(manager)
        if known is None or loss.kind is not LossKind.MANAGER or loss.stderr_tail:
            return loss
        return replace(loss, stderr_tail=known[1].get(_MANAGERS, ""))

    def write(self, manager: int, logger: logging.Logger) -> None:
        """A manager is gone: write what it had told, beside nothing that it had sent. Never raises."""
        place, ends = self._ends.pop(manager, (Path(), {}))
        for name, text in ends.items():
            try:
                make_directory(place, 0o700)
                with (place / name).open("x", encoding="utf-8", errors="replace") as file:
                    file.write(f"{_HEAD}{text}")
            except FileExistsError:
                pass  # it had sent the whole log
            except OSError as error:
                logger.info("the last words of a manager cannot be written: %s", error)
                return

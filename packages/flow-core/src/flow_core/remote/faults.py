"""Fault points: places in the code at which a test may kill, stop or break the process, without sleeping.

``FLOW_FAULT`` holds faults separated by commas, each ``name:count:action`` with an optional ``:file=PATH`` at the end:

- ``name``: the point, as the code calls it (``manager.after_recv``);
- ``count``: it fires on that pass of the point in this process, counted from 1; ``3+`` fires on all later ones too;
- ``action``: ``kill`` (SIGKILL to itself), ``stop`` (SIGSTOP), ``segv`` (SIGSEGV), ``exit`` (status 70, or ``exit=N``),
  ``raise`` (FaultInjected), ``hang`` (sleeps for an hour), ``mark`` (does nothing but the file);
- ``file=PATH``: the file is made when the fault fires. If it exists already the fault does not fire: one fault for any
  number of processes, and a thing to wait for in a test. PATH may hold colons, not commas.

The variable is read once, at import. While it is unset ``point`` is a function that does nothing. A forked child goes
on counting where its parent was.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ACTIONS = ("kill", "stop", "segv", "exit", "raise", "hang", "mark")
_HANG_S = 3600.0  # seconds; longer than any bound of a test, so that the test sees a hang and not a delay
_EXIT_STATUS = 70  # EX_SOFTWARE of sysexits.h


class FaultInjected(RuntimeError):
    """Raised by the action ``raise``; the message names the point."""


class Fault:
    """One armed fault.

    Attributes:
        name: The point at which it fires.
        first: The pass on which it fires first, from 1.
        again: Whether it fires on every later pass too.
        action: What it does.
        status: Exit status of the action ``exit``.
        path: The mark, or the empty string.
    """

    __slots__ = ("_passes", "action", "again", "first", "name", "path", "status")

    def __init__(self, text: str) -> None:
        """Parse ``name:count:action[:file=PATH]``. Raises ValueError saying what is wrong."""
        from itertools import count

        parts = text.split(":", 3)
        if len(parts) < 3:
            raise ValueError(f"FLOW_FAULT: {text!r} is not name:count:action[:file=PATH]")
        self.name, passes, action = parts[:3]
        self.again = passes.endswith("+")
        number = passes[:-1] if self.again else passes
        if not number.isdecimal() or int(number) < 1:
            raise ValueError(f"FLOW_FAULT: count {passes!r} in {text!r} is not a number from 1 on (3, or 3+)")
        self.first = int(number)
        self.action, _, status = action.partition("=")
        if self.action not in _ACTIONS or (status and (self.action != "exit" or not status.isdecimal())):
            raise ValueError(f"FLOW_FAULT: unknown action {action!r} in {text!r}; known: {', '.join(_ACTIONS)}")
        self.status = int(status) if status else _EXIT_STATUS
        self.path = ""
        if len(parts) == 4:
            if not parts[3].startswith("file=") or len(parts[3]) == len("file="):
                raise ValueError(f"FLOW_FAULT: {parts[3]!r} in {text!r} is not file=PATH")
            self.path = parts[3][len("file=") :]
        # next() of a count is atomic, so that passes of several threads are counted without a lock.
        self._passes: Iterator[int] = count(1)

    def passed(self) -> None:
        """Count one pass and fire if it is the one. Any thread."""
        number = next(self._passes)
        if (number == self.first or (self.again and number > self.first)) and self._marked():
            self._fire()

    def _marked(self) -> bool:
        if not self.path:
            return True
        try:
            # O_EXCL lets exactly one of all processes fire.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        return True

    def _fire(self) -> None:
        import signal
        import time

        signals = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "segv": signal.SIGSEGV}
        if self.action in signals:
            os.kill(os.getpid(), signals[self.action])
        elif self.action == "exit":
            # Without any clean-up, as a process ends that is killed.
            os._exit(self.status)
        elif self.action == "raise":
            raise FaultInjected(f"fault injected at {self.name}")
        elif self.action == "hang":
            time.sleep(_HANG_S)


def parse(text: str) -> dict[str, list[Fault]]:
    """Return the faults of a ``FLOW_FAULT`` value by point. Raises ValueError saying what is wrong."""
    faults: dict[str, list[Fault]] = {}
    for part in text.split(","):
        if part.strip():
            fault = Fault(part.strip())
            faults.setdefault(fault.name, []).append(fault)
    return faults


def armed(text: str) -> Callable[[str], None]:
    """Return a ``point`` function for a ``FLOW_FAULT`` value."""
    faults = parse(text)

    # A closure without attributes: points stand in loops that run once for each message.
    def point(name: str) -> None:
        """Count a pass of each fault at the point of that name."""
        for fault in faults.get(name, ()):
            fault.passed()

    return point


def unarmed(name: str) -> None:
    """Do nothing: what ``point`` is when nothing is armed, so that loops that do little else can leave it out."""


point: Callable[[str], None] = armed(os.environ["FLOW_FAULT"]) if os.environ.get("FLOW_FAULT") else unarmed
"""Pass the fault point of that name. Any thread; free when nothing is armed."""
is_armed = point is not unarmed
"""Whether any fault is armed: what is done for each message asks this before it passes a point."""

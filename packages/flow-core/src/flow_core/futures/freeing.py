"""Freeing of what tasks were given and have given: a ``__del__`` in it may take long, and then holds up nobody else.

A value is freed by whoever lets go of it last, and no thread knows whether it is that one. So what is no plain data is
held here until all threads that may have it in their hands have let go of it: ``Section`` tells when. Then a thread
that does nothing else lets go of it. Where that does not return, the log names the task, and another thread goes on.
What is part of a circle is freed by Python's collector, on whatever thread that runs: this module has no part in it.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING

from flow_core.fork_locks import renewed_after_fork
from flow_core.futures.callbacks import freeing_calls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Going = Sequence[tuple["Section", int]]

# Seconds between two looks at sections that go on, most of which take less.
_LOOK_S = 0.002
# Seconds that they are waited for: what takes longer is held up by something else, of which others tell.
_PATIENCE_S = 30.0


class Section:
    """The stretches of one thread's work in which it may have values of tasks in its hands.

    Attributes:
        busy: Whether it is in one.
        number: Number of the stretch; once it is another one, the thread has let go of all that it had.
    """

    __slots__ = ("__weakref__", "busy", "number")

    def __init__(self) -> None:
        self.busy = False
        self.number = 0


class Sections:
    """The sections of all threads that handle events of one kernel. Any thread."""

    def __init__(self) -> None:
        # Reentrant: a finalizer may come in between, on this very thread.
        self._lock = renewed_after_fork(threading.RLock())
        self._all: weakref.WeakSet[Section] = weakref.WeakSet()

    def add(self, section: Section) -> None:
        """Add that of a thread; it is forgotten when the thread ends."""
        with self._lock:
            self._all.add(section)

    def going(self) -> Going:
        """Return those that go on now, with their numbers."""
        with self._lock:
            return [(section, section.number) for section in self._all if section.busy]


class _Held:
    """Something to be let go of, and what is known of it."""

    __slots__ = ("going", "of", "what")

    def __init__(self, what: list[Any], of: tuple[int, str] | None, going: Going) -> None:
        self.what = what
        self.of = of
        self.going = going


def free(what: list[Any], of: tuple[int, str] | None = None, going: Going = ()) -> None:
    """Let go of all items of a list on another thread, once the sections given have ended. Any thread; never blocks.

    The caller must hold none of the items itself any more. ``of`` is the id and the app of the task that they are of.
    """
    freeing_calls.soon(_free, _Held(what, of, going), _describe)


def _free(held: _Held) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    for section, number in held.going:
        while section.busy and section.number == number and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
    held.what.clear()


def _describe(_free: object, held: _Held) -> str:
    of = "values of tasks" if held.of is None else f"the arguments or the result of task {held.of[0]} ({held.of[1]})"
    return f"the freeing of {of}"

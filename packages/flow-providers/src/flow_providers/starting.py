"""Starts of processes, kept apart from forks of other threads. Standard library only.

``subprocess.Popen`` learns by a pipe that its command began: it reads until nobody holds the pipe's other end. A child
that another thread forks at that moment (a worker of a process pool, say) holds it too, for as long as it lives, and
``Popen`` waits for so long. So every ``Popen`` of ours is made in a ``with starting():`` block, and forks wait for
these, and they for forks, each with a deadline: a command may hang in its start, on a file system that does not answer.

``flow_core`` and ``flow_providers``, neither of which may import the other, have one such module each, word for word.
"""

from __future__ import annotations

import os
import threading
from _thread import get_ident
from weakref import WeakSet

PATIENCE_S = 10.0
"""Seconds that a fork waits for commands that are being started, and a start for forks: starts take milliseconds."""


class starting:  # noqa: N801  (used as a function)
    """A ``with`` block in which a process is started, and in which no other thread forks. Any thread.

    Blocks of several threads do not wait for each other.
    """

    __slots__ = ("__weakref__", "_thread")

    def __enter__(self) -> None:
        self._thread = get_ident()
        _fork_lock.begin(self)

    def __exit__(self, *_raised: object) -> None:
        _fork_lock.end(self)

    @property
    def thread(self) -> int:
        """Identity of the thread whose block it is."""
        return self._thread


class _ForkLock:
    """Threads that start processes, and threads that fork, just now.

    Starts are held weakly: an exception that comes asynchronously, between the begin of a block and its body, takes
    its start with it, which nobody would end.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._starts: WeakSet[starting] = WeakSet()
        self._forks: set[int] = set()

    def begin(self, start: starting) -> None:
        with self._changed:
            # A thread that forks within its own block (Popen does) must not wait for itself.
            self._changed.wait_for(lambda: not self._forks - {start.thread}, PATIENCE_S)
            self._starts.add(start)

    def end(self, start: starting) -> None:
        with self._changed:
            self._starts.discard(start)
            self._changed.notify_all()

    def begin_fork(self) -> None:
        me = get_ident()
        with self._changed:
            # Before the wait, so that no new start comes in between.
            self._forks.add(me)
            self._changed.wait_for(lambda: all(start.thread == me for start in self._starts), PATIENCE_S)

    def end_fork(self) -> None:
        with self._changed:
            self._forks.discard(get_ident())
            self._changed.notify_all()


_fork_lock = _ForkLock()


def _in_child() -> None:
    """The threads that start or fork are not in this process."""
    global _fork_lock
    _fork_lock = _ForkLock()


os.register_at_fork(
    before=lambda: _fork_lock.begin_fork(), after_in_parent=lambda: _fork_lock.end_fork(), after_in_child=_in_child
)

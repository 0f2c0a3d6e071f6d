"""Worker processes of wrapped ``concurrent.futures`` pools at an end of the script that is no ordinary one.

Workers of such a pool do not see that the script has died: each holds the ends of pipes that the others read. And a
script that ends by an exception waits, before anything else is cleaned up, for all that its pools run.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

_JOIN_S = 1.0  # seconds for each process, which was killed and needs only to be reaped


class PoolWorkers:
    """The workers of one pool that has processes, and which of its calls are Flow's. Any thread."""

    def __init__(self, pool: Executor) -> None:
        self._pool = ref(pool)
        self._ours: WeakSet[Future[Any]] = WeakSet()
        _known[pool] = self  # for as long as there is the pool, which may outlive the run

    def note(self, future: Future[Any]) -> None:
        """Take note that a call is Flow's."""
        self._ours.add(future)

    @property
    def shared(self) -> bool:
        """Whether the pool has calls that others than Flow gave it."""
        items = list((getattr(self._pool(), "_pending_work_items", None) or {}).values())
        return any(future not in self._ours for item in items if (future := getattr(item, "future", None)) is not None)

    def end(self) -> None:
        """Kill the processes: they run nothing that anybody waits for."""
        processes = list((getattr(self._pool(), "_processes", None) or {}).values())
        for process in processes:
            with suppress(OSError, ValueError, AttributeError):  # it has ended, or was closed
                process.kill()
        for process in processes:
            with suppress(OSError, ValueError, AssertionError):  # waited for by the pool's own thread
                process.join(_JOIN_S)


_known: WeakKeyDictionary[Executor, PoolWorkers] = WeakKeyDictionary()


def are_there() -> bool:
    """Return whether any pool with processes is wrapped."""
    return bool(_known)


def end_workers(*, shared: bool) -> None:
    """End the workers of all wrapped pools; those of pools that run calls of others, too, only if ``shared``."""
    for pool in list(_known.values()):
        if shared or not pool.shared:
            pool.end()

"""Locks that are free in forked processes, whoever held them in the parent at that moment.

For what a forked child may call: its other threads do not exist, so what they held would be held for ever.
"""

from __future__ import annotations

import os
from weakref import WeakSet

# Not imported from typing: workers load this module, and not typing.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")

_locks: WeakSet[Any] = WeakSet()


def renewed_after_fork(lock: T) -> T:
    """Have a lock (Lock, RLock, Condition) be free in forked processes; return it. For locks that live long."""
    _locks.add(lock)
    return lock


def _renew() -> None:
    for lock in list(_locks):
        lock._at_fork_reinit()  # by which the standard library does it, on all releases of Python that Flow knows


os.register_at_fork(after_in_child=_renew)

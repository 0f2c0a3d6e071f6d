"""Reference counts of staging methods that several kernels of a process share: the last one closes a method."""

from __future__ import annotations

import threading

from flow_core.fork_locks import renewed_after_fork
from flow_core.interfaces.staging import Staging

_lock = renewed_after_fork(threading.Lock())
# By id, since methods of the user's own may have no hash; the method is kept, so that its id stays its own.
_holders: dict[int, tuple[Staging, int]] = {}


def acquire(method: Staging) -> None:
    """Note that one more kernel uses a method."""
    with _lock:
        _holders[id(method)] = (method, _holders.get(id(method), (method, 0))[1] + 1)


def release(method: Staging) -> bool:
    """Note that a kernel does not use a method any more; tell whether it was the last, which is to close it."""
    with _lock:
        _, count = _holders.pop(id(method), (method, 0))
        if count > 1:
            _holders[id(method)] = (method, count - 1)
        return count <= 1

"""Staging methods that several kernels of a process share: closed when the last of them lets go."""

from __future__ import annotations

import threading

from flow_core.interfaces.staging import Staging

_lock = threading.Lock()
_holders: dict[int, tuple[Staging, int]] = {}


def hold(method: Staging) -> None:
    """Note that one more kernel uses a method."""
    with _lock:
        _holders[id(method)] = (method, _holders.get(id(method), (method, 0))[1] + 1)


def let_go(method: Staging) -> bool:
    """Note that a kernel does not use a method any more; tell whether it was the last, which is to close it."""
    with _lock:
        _, count = _holders.pop(id(method), (method, 0))
        if count > 1:
            _holders[id(method)] = (method, count - 1)
        return count <= 1

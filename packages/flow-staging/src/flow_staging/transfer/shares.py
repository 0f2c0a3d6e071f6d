"""Fair shares of threads among hosts: a queue of work by host. Pure: no thread, no lock, no clock."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

W = TypeVar("W")


class Shares(Generic[W]):
    """Work by host, in its order for each host, hosts in turn; so much of one host at once.

    Resting work that comes back goes before waiting work, else it would never have its turn again.

    Args:
        share: How much of one host may be under way at once.
    """

    def __init__(self, share: int) -> None:
        self._share = share
        self._waiting: dict[str, deque[W]] = {}  # never an empty one; the first key is the host whose turn it is
        self._busy: dict[str, int] = {}
        self._returning: dict[str, int] = {}

    def add(self, host: str, work: W) -> None:
        """Let work wait for its turn."""
        self._waiting.setdefault(host, deque()).append(work)

    def ready(self) -> int:
        """Return how much could be taken now."""
        return sum(min(self._free(host), len(waiting)) for host, waiting in self._waiting.items())

    def take(self) -> W | None:
        """Take the next work; None if nothing may begin. Its host is left with ``leave``."""
        for host, waiting in self._waiting.items():
            if self._free(host) > 0:
                work = waiting.popleft()
                # Taken out and put back at the end of the dict: the next host is the first then.
                del self._waiting[host]
                if waiting:
                    self._waiting[host] = waiting  # behind the others
                self._busy[host] = self._busy.get(host, 0) + 1
                return work
        return None

    def leave(self, host: str) -> None:
        """Note that work of a host has ended, or rests."""
        left = self._busy[host] - 1
        if left:
            self._busy[host] = left
        else:
            del self._busy[host]

    def returning(self, host: str) -> None:
        """Note that work that rested wants to go on, which ``enter`` allows."""
        self._returning[host] = self._returning.get(host, 0) + 1

    def enter(self, host: str) -> bool:
        """Let work that returns go on; False if it must wait."""
        if self._busy.get(host, 0) >= self._share:
            return False
        left = self._returning[host] - 1
        if left:
            self._returning[host] = left
        else:
            del self._returning[host]
        self._busy[host] = self._busy.get(host, 0) + 1
        return True

    def _free(self, host: str) -> int:
        return max(0, self._share - self._busy.get(host, 0) - self._returning.get(host, 0))

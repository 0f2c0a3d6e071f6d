"""Traffic of tasks: byte counts of connections, summed by the tasks that hold them. Pure.

Sums only grow: what a connection carried stays counted after it was closed. What it carried since it was last looked at
goes to the task that holds it now, or held it last. One that is seen for the first time counts from its beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from flow_core.interfaces.call import TryKey
from flow_monitor.sampling.sock_diag import Tcp


@dataclass(slots=True)
class _Known:
    """A connection as it was last seen."""

    owner: TryKey | None
    sent: int
    received: int


class Traffic:
    """The sums of a node's tasks."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._sums: dict[TryKey, list[int]] = {}

    @property
    def watched(self) -> Collection[int]:
        """Cookies of the connections that were there the last time."""
        return self._known.keys()

    def ignore(self, connections: Iterable[Tcp]) -> None:
        """Take connections that were there before any task: they count from now on."""
        for tcp in connections:
            self._known[tcp.cookie] = _Known(None, tcp.sent, tcp.received)

    def update(self, connections: Iterable[Tcp], holders: Mapping[int, TryKey]) -> None:
        """Take what a dump shows of the connections watched, and of those whose inodes tasks hold."""
        known: dict[int, _Known] = {}
        for tcp in connections:
            before = self._known.get(tcp.cookie) or _Known(None, 0, 0)
            owner = holders.get(tcp.inode, before.owner)
            if owner is not None:
                sums = self._sums.setdefault(owner, [0, 0])
                sums[0] += max(0, tcp.sent - before.sent)
                sums[1] += max(0, tcp.received - before.received)
            known[tcp.cookie] = _Known(owner, tcp.sent, tcp.received)
        # Those that the dump no longer has are closed: their counts stay in the sums.
        self._known = known

    def of(self, key: TryKey) -> tuple[int, int]:
        """Return bytes sent and received by a task so far."""
        sent, received = self._sums.get(key, (0, 0))
        return sent, received

    def forget(self, key: TryKey) -> None:
        """Forget a task that has ended. Further bytes of its connections count for no task until one holds them."""
        self._sums.pop(key, None)
        for one in self._known.values():
            if one.owner == key:
                one.owner = None

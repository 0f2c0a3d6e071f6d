"""The network traffic of tasks: one dump of the kernel's counters a look, however many tasks there are."""

from __future__ import annotations

import sys
from collections.abc import Collection, Container, Mapping

from flow_core.interfaces.call import TryKey
from flow_monitor.sampling.process_tree import sockets
from flow_monitor.sampling.sock_diag import DumpRefused, SockDiag, Tcp
from flow_monitor.sampling.traffic import Traffic


class Network:
    """Knows what tasks sent and received over TCP. Used by one thread; never raises.

    Nothing is asked of the kernel while no task holds a socket.
    """

    def __init__(self) -> None:
        self._traffic: Traffic | None = Traffic() if sys.platform == "linux" else None
        self._kernel: SockDiag | None = None

    def look(self, tasks: Mapping[TryKey, Collection[int]]) -> None:
        """Count what the processes of tasks have sent and received since the last look."""
        if self._traffic is None or not tasks:
            return
        # By inode, which both /proc and the kernel's dump have of a socket.
        holders: dict[int, TryKey] = {}
        for key, pids in tasks.items():
            for pid in pids:
                for inode in sockets(pid):
                    holders.setdefault(inode, key)
        # Watched connections too: what a closed one has carried is counted at the next look.
        if holders or self._traffic.watched:
            found = self._dump(holders)
            if self._traffic is not None:
                self._traffic.update(found, holders)

    def ignore(self, pid: int) -> None:
        """Leave out what the connections that a process has now have carried until now."""
        held = sockets(pid)
        if self._traffic is not None and held:
            found = self._dump(held)
            if self._traffic is not None:
                self._traffic.ignore(found)

    def _dump(self, inodes: Container[int]) -> list[Tcp]:
        """Return connections watched or of these inodes; where the kernel refuses nothing is known from now on."""
        watched = self._traffic.watched if self._traffic is not None else ()
        try:
            if self._kernel is None:
                self._kernel = SockDiag()
            return self._kernel.dump(lambda cookie, inode: inode in inodes or cookie in watched)
        except DumpRefused:
            # Once refused (an old kernel, a sandbox) it always is: the samples say "not known" from now on.
            self.close()
            return []

    def of(self, key: TryKey) -> tuple[int | None, int | None]:
        """Return bytes sent and received by a task so far; None where the kernel has no counters."""
        return (None, None) if self._traffic is None else self._traffic.of(key)

    def forget(self, key: TryKey) -> None:
        """Forget a task that has ended."""
        if self._traffic is not None:
            self._traffic.forget(key)

    def close(self) -> None:
        """Ask no more; from now on nothing is known. Idempotent."""
        self._traffic = None
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

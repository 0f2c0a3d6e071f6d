"""The sampler of tasks that run in threads of this process. Linux only: elsewhere it finds none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from flow_core.interfaces.call import TryKey
from flow_monitor.sampling.node import NodeSampler
from flow_monitor.sampling.process_tree import TreeUse, children_of, look, read_thread


@dataclass(slots=True)
class _Commands:
    """The processes that a thread has started: those that live as last seen, those that ended as a sum."""

    live: dict[int, TreeUse] = field(default_factory=dict)
    gone: TreeUse = field(default_factory=TreeUse)
    any: bool = False


class ThreadSampler(NodeSampler):
    """Samples threads by their native ids. Used by one thread at a time.

    What is known of a thread alone is its own: CPU time, what it read and wrote, the processes it has started. Memory
    is the process's: each task is given an equal share of it, and all of what its processes have. Connections are the
    process's, too: the traffic of a task is that of the processes it has started, and unknown if there are none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._commands: dict[int, _Commands] = {}

    def _look(self, running: Mapping[int, TryKey]) -> dict[int, TreeUse]:
        for thread in self._commands.keys() - running.keys():
            # Threads that were looked at once and never became a task with a sample.
            if thread not in self._seen:
                del self._commands[thread]
        uses = {thread: use for thread in running if (use := read_thread(thread)) is not None}
        own = look(os.getpid(), below=False)
        for thread, use in uses.items():
            if own is not None:
                # Linux counts memory by process only.
                use.rss = own.rss // len(running)
            self._add_commands(thread, use)
        return uses

    def _forget(self, ident: int) -> None:
        super()._forget(ident)
        self._commands.pop(ident, None)

    def _traffic(self, ident: int, key: TryKey) -> tuple[int | None, int | None]:
        return self._network.of(key) if self._commands[ident].any else (None, None)

    def _add_commands(self, thread: int, use: TreeUse) -> None:
        found = self._commands.setdefault(thread, _Commands())
        live = {pid: tree for pid in children_of(os.getpid(), thread) if (tree := look(pid)) is not None}
        for pid, last in found.live.items():
            if pid not in live:
                # As last seen: what a command used after that is not known any more.
                found.gone.add(last)
        found.live = live
        found.any = found.any or bool(live)
        use.add(found.gone)
        for tree in live.values():
            use.add(tree)
            use.rss += tree.rss
            use.pids += tree.pids

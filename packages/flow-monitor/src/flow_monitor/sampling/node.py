"""The sampler of a node: measures the process trees of all running tasks, and the node itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.sampler import Sample
from flow_monitor.sampling.network import Network
from flow_monitor.sampling.process_tree import TreeUse, look


@dataclass(slots=True)
class _Seen:
    """A task's tree when it was first seen, and last."""

    key: TryKey
    base: TreeUse
    last: TreeUse
    last_ns: int


class NodeSampler:
    """Samples process trees by ``/proc`` (psutil where there is none). Used by one thread.

    A worker runs many tasks one after the other in one process: a task's CPU and disk count from the first look at it.
    What it used in all, to the last moment, comes with its result; but not its network traffic, for which ``ended``
    takes a last look. Traffic is that of TCP connections, see ``traffic``; it is None where it cannot be known. Those
    that this process has when the sampler is made, perhaps from who forked it, count from then on.
    """

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}
        self._memory = max(1, psutil.virtual_memory().total)
        self._network = Network()
        self._network.ignore(os.getpid())
        psutil.cpu_percent(None)

    def sample(self, running: Mapping[int, TryKey], now_ns: int) -> Sequence[Sample]:
        """Return a sample of each task, and one of the node (its key is None)."""
        for pid, seen in list(self._seen.items()):
            # The same process may run another task by now: its base is taken anew.
            if running.get(pid) != seen.key:
                self._forget(pid)
        return [self._node(now_ns), *self._tasks(running, now_ns)]

    def ended(self, ended: Mapping[int, TryKey], now_ns: int) -> Sequence[Sample]:
        """Return a last sample of tasks that were sampled before, and forget them."""
        known = {pid: key for pid, key in ended.items() if pid in self._seen and self._seen[pid].key == key}
        samples = self._tasks(known, now_ns)
        for pid in known:
            self._forget(pid)
        return samples

    def close(self) -> None:
        """Forget all tasks and close the socket to the kernel. Idempotent."""
        self._seen.clear()
        self._network.close()

    def _look(self, running: Mapping[int, TryKey]) -> dict[int, TreeUse]:
        """Return the use of each task whose process is there."""
        return {pid: use for pid in running if (use := look(pid)) is not None}

    def _traffic(self, pid: int, key: TryKey) -> tuple[int | None, int | None]:
        """Return bytes sent and received by a task that was just looked at."""
        return self._network.of(key)

    def _tasks(self, running: Mapping[int, TryKey], now_ns: int) -> list[Sample]:
        uses = self._look(running)
        self._network.look({running[pid]: use.pids for pid, use in uses.items()})
        return [self._task(pid, running[pid], use, now_ns) for pid, use in uses.items()]

    def _forget(self, pid: int) -> None:
        self._network.forget(self._seen.pop(pid).key)

    def _task(self, pid: int, key: TryKey, use: TreeUse, now_ns: int) -> Sample:
        seen = self._seen.get(pid)
        if seen is None:
            seen = self._seen[pid] = _Seen(key, use, use, now_ns)
        elapsed_s = (now_ns - seen.last_ns) / 1e9
        busy_s = use.user_s + use.system_s - seen.last.user_s - seen.last.system_s
        seen.last, seen.last_ns = use, now_ns
        sent, received = self._traffic(pid, key)
        return Sample(
            time_ns=now_ns,
            key=key,
            pid=pid,
            processes=use.processes,
            # Sums of a tree shrink when a child ends that is not waited for: no negative use is shown.
            cpu_percent=max(0.0, 100 * busy_s / elapsed_s) if elapsed_s > 0 else 0.0,
            cpu_user_s=max(0.0, use.user_s - seen.base.user_s),
            cpu_system_s=max(0.0, use.system_s - seen.base.system_s),
            memory_rss=use.rss,
            memory_percent=100 * use.rss / self._memory,
            disk_read=max(0, use.disk_read - seen.base.disk_read),
            disk_write=max(0, use.disk_write - seen.base.disk_write),
            net_sent=sent,
            net_received=received,
        )

    def _node(self, now_ns: int) -> Sample:
        times, memory = psutil.cpu_times(), psutil.virtual_memory()
        disk, net = psutil.disk_io_counters(), psutil.net_io_counters()
        return Sample(
            time_ns=now_ns,
            key=None,
            pid=0,
            processes=len(self._seen),
            cpu_percent=psutil.cpu_percent(None),
            cpu_user_s=times.user,
            cpu_system_s=times.system,
            memory_rss=memory.total - memory.available,
            memory_percent=memory.percent,
            disk_read=disk.read_bytes if disk else 0,
            disk_write=disk.write_bytes if disk else 0,
            net_sent=net.bytes_sent if net else None,
            net_received=net.bytes_recv if net else None,
        )

"""One look at a tree of processes: what it uses now, and has used so far with all that ended within it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST_PROCESSES = 2048  # processes of one tree: a fork bomb must not keep the sampler busy


@dataclass(slots=True)
class TreeUse:
    """Sums over a tree, and its processes. CPU in seconds, memory and disk in bytes; CPU of ended children is in it."""

    pids: list[int] = field(default_factory=list)
    user_s: float = 0.0
    system_s: float = 0.0
    rss: int = 0
    disk_read: int = 0
    disk_write: int = 0

    @property
    def processes(self) -> int:
        """Number of processes of the tree that were alive at the look."""
        return len(self.pids)

    def add(self, other: TreeUse) -> None:
        """Add what only grows of another: CPU and disk."""
        self.user_s += other.user_s
        self.system_s += other.system_s
        self.disk_read += other.disk_read
        self.disk_write += other.disk_write


def look(root: int, *, below: bool = True) -> TreeUse | None:
    """Return the use of a process and (``below``) its descendants; None where it is gone. Never raises."""
    use = TreeUse()
    if sys.platform == "linux":
        for pid in _tree(root) if below else (root,):
            _read_proc(pid, use)
    else:
        _read_psutil(root, use, below)
    return use if use.pids else None


def read_thread(thread: int) -> TreeUse | None:
    """Return the use of a thread of this process, by its native id: CPU and disk alone. None where it is gone."""
    use = TreeUse()
    path = f"/proc/self/task/{thread}"
    fields = _fields(path)
    if fields is None:
        return None
    use.user_s, use.system_s = int(fields[11]) / _TICKS, int(fields[12]) / _TICKS
    _add_disk(path, use)
    return use


def children_of(pid: int, thread: int) -> list[int]:
    """Return the processes that a thread has started, and that have not been waited for. Linux only."""
    try:
        with open(f"/proc/{pid}/task/{thread}/children", "rb") as stream:
            return list(map(int, stream.read().split()))
    except OSError:
        return []


def sockets(pid: int) -> set[int]:
    """Return the inodes of the sockets that a process holds; none where that is not ours to see. Linux only."""
    found = set()
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with suppress(OSError):  # closed meanwhile
                    name = os.readlink(entry.path)
                    if name.startswith("socket:["):
                        found.add(int(name[8:-1]))
    except OSError:
        pass  # gone, or somebody else's
    return found


def _read_proc(pid: int, use: TreeUse) -> None:
    path = f"/proc/{pid}"
    fields = _fields(path)
    if fields is None:
        return
    use.pids.append(pid)
    use.user_s += (int(fields[11]) + int(fields[13])) / _TICKS  # utime, and cutime of those waited for
    use.system_s += (int(fields[12]) + int(fields[14])) / _TICKS
    use.rss += int(fields[21]) * _PAGE
    _add_disk(path, use)


def _fields(path: str) -> list[bytes] | None:
    """Return the fields of a stat file after the name, of a process or a thread; None where it is gone."""
    try:
        with open(f"{path}/stat", "rb") as stream:
            # The name stands in parentheses and may have spaces and parentheses itself.
            return stream.read().rpartition(b")")[2].split()
    except OSError:
        return None


def _tree(root: int) -> Iterator[int]:
    """Walk down from a process: looking at all processes of a node for each task would cost far more."""
    waiting, seen = [root], 0
    while waiting and seen < _MOST_PROCESSES:
        pid = waiting.pop()
        seen += 1
        yield pid
        try:
            # Each thread has its own list of children.
            for thread in os.listdir(f"/proc/{pid}/task"):
                waiting.extend(children_of(pid, int(thread)))
        except OSError:
            continue


def _add_disk(path: str, use: TreeUse) -> None:
    try:
        with open(f"{path}/io", "rb") as stream:
            for line in stream:
                if line.startswith(b"read_bytes:"):
                    use.disk_read += int(line.split()[1])
                elif line.startswith(b"write_bytes:"):
                    use.disk_write += int(line.split()[1])
    except OSError:
        pass  # not ours to see


def _read_psutil(root: int, use: TreeUse, below: bool) -> None:
    try:
        process = psutil.Process(root)
        for one in (process, *(process.children(recursive=True) if below else ())):
            try:
                times, memory = one.cpu_times(), one.memory_info()
            except psutil.Error:
                continue
            use.pids.append(one.pid)
            use.user_s += times.user + getattr(times, "children_user", 0.0)
            use.system_s += times.system + getattr(times, "children_system", 0.0)
            use.rss += memory.rss
    except psutil.Error:
        return

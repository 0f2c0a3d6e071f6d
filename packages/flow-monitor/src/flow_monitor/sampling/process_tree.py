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
_MOST_PROCESSES = 2048


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
        """Number of processes."""
        return len(self.pids)


def look(root: int) -> TreeUse | None:
    """Return the use of a process and its descendants; None where the process is gone. Never raises."""
    use = TreeUse()
    read = _read_proc if sys.platform == "linux" else _read_psutil
    read(root, use)
    return use if use.pids else None


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


def _read_proc(root: int, use: TreeUse) -> None:
    """Read /proc of the tree only: looking at all processes of a node for each task would cost far more."""
    for pid in _tree(root):
        try:
            with open(f"/proc/{pid}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
        except OSError:
            continue
        use.pids.append(pid)
        use.user_s += (int(fields[11]) + int(fields[13])) / _TICKS  # utime, and cutime of those waited for
        use.system_s += (int(fields[12]) + int(fields[14])) / _TICKS
        use.rss += int(fields[21]) * _PAGE
        _add_disk(pid, use)


def _tree(root: int) -> Iterator[int]:
    waiting, seen = [root], 0
    while waiting and seen < _MOST_PROCESSES:
        pid = waiting.pop()
        seen += 1
        yield pid
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as stream:
                    waiting.extend(map(int, stream.read().split()))
        except OSError:
            continue


def _add_disk(pid: int, use: TreeUse) -> None:
    try:
        with open(f"/proc/{pid}/io", "rb") as stream:
            for line in stream:
                if line.startswith(b"read_bytes:"):
                    use.disk_read += int(line.split()[1])
                elif line.startswith(b"write_bytes:"):
                    use.disk_write += int(line.split()[1])
    except OSError:
        pass  # not ours to see


def _read_psutil(root: int, use: TreeUse) -> None:
    try:
        process = psutil.Process(root)
        for one in (process, *process.children(recursive=True)):
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

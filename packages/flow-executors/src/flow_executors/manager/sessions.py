"""Sessions of processes: who is in one, and ending all of it. Linux only; reads /proc."""

from __future__ import annotations

import os


def members(session: int) -> list[int]:
    """Return the process ids of a session, zombies left out."""
    return [pid for pid, state, _, sid in _processes() if sid == session and state not in b"ZX"]


def children(parent: int) -> list[int]:
    """Return the process ids of a process's children, zombies left out."""
    return [pid for pid, state, ppid, _ in _processes() if ppid == parent and state not in b"ZX"]


def signal_session(session: int, signum: int) -> int:
    """Send a signal to every process of a session, to its leader first; return to how many.

    Else a worker could see how what its task had started was killed, and report that as the task's own failure.
    """
    reached = 0
    for pid in sorted(members(session), key=lambda pid: pid != session):
        try:
            os.kill(pid, signum)
            reached += 1
        except (ProcessLookupError, PermissionError):
            continue
    return reached


def _processes() -> list[tuple[int, bytes, int, int]]:
    """Pid, state, parent and session of every process."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fd = os.open(f"/proc/{name}/stat", os.O_RDONLY)
        except OSError:
            continue
        try:
            line = os.read(fd, 1024)
        except OSError:
            continue
        finally:
            os.close(fd)
        # The command's name may hold blanks and parentheses: fields are counted from the last one.
        state, ppid, _, sid = line[line.rindex(b")") + 2 :].split(b" ", 4)[:4]
        found.append((int(name), state, int(ppid), int(sid)))
    return found

"""What mpiexec says when ranks or daemons die, by the last lines of its standard error and its exit code. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_KILLED: Final = 9
_KILLED_CODE: Final = 128 + _KILLED


class RankDeath(NamedTuple):
    """A rank or daemon that was killed, as mpiexec told it: on which node (empty: not said), and how in words."""

    node: str
    how: str


_PATTERNS: Final = (
    # Open MPI 4: "mpiexec noticed that process rank 1 with PID 0 on node n2 exited on signal 9 (Killed)."
    # Open MPI 5: "prterun noticed that process rank 1 with PID 7 on node n2 exited on signal 9 (Killed)."
    (re.compile(r"process rank (\d+) with PID \d+ on\s+node (\S+)\s+exited\s+on\s+signal (\d+)"), "rank"),
    # Hydra: "=   PID 7 RUNNING AT n2" and "=   EXIT CODE: 9"
    (re.compile(r"=\s+PID \d+ RUNNING AT (\S+)\s*\n=\s+(?:RANK \d+ )?(?:EXIT CODE|KILLED BY SIGNAL): (\d+)"), "hydra"),
)
# Open MPI 4 says ORTE, 5 says PRTE.
_DAEMON: Final = re.compile(
    r"RTE has lost communication with a remote daemon\..*?Remote daemon\s*: \[.*?\] on node (\S+)", re.DOTALL
)
# What that of Open MPI says of every job that it ended since a rank failed. The line that names the rank is often
# missing: it depends on the order in which mpiexec hears of the other ranks.
_ABORTED: Final = re.compile(
    r"Primary job\s+terminated normally, but|one or more processes exited with\s+non-zero status"
)
# Also said of daemons that ran, when what mpiexec started in place of ssh has ended.
_UNSTARTED: Final = re.compile(r"RTE was unable to reliably start one or more daemons")


def death_told(text: str, code: int | None = None) -> RankDeath | None:
    """Return which rank or daemon was killed, as the last words of an mpiexec say it; None where they do not.

    A rank that crashed by itself, as by a segmentation fault, is not meant: that is the fault of its program. A rank
    that exits with 137 is: a shell does so whose program was killed.

    Args:
        text: The last lines of the standard error.
        code: The exit code; None where it is not known.
    """
    # Open MPI breaks its lines.
    for pattern, kind in _PATTERNS:
        for found in pattern.finditer(text):
            if kind == "rank":
                rank, node, signum = found.groups()
                if int(signum) == _KILLED:
                    return RankDeath(node, f"rank {rank} was killed by signal 9 (SIGKILL)")
            elif int(found[2]) == _KILLED:
                return RankDeath(found[1], "a rank was killed by signal 9 (SIGKILL)")
    lost = _DAEMON.search(text)
    if lost is not None:
        return RankDeath(lost[1], "its daemon of MPI was lost")
    if code == _KILLED_CODE and _ABORTED.search(text):
        return RankDeath("", f"a rank was killed by signal 9 (SIGKILL): its mpiexec exited with code {code}")
    # What the agent exits with is mpiexec's code, and its signal, too: daemons that do not start give others.
    if code == _KILLED and _UNSTARTED.search(text):
        return RankDeath("", "the agent (flow-on) of a daemon of MPI was killed by signal 9 (SIGKILL)")
    return None


def launcher_killed(code: int | None, command_line: bool = False) -> RankDeath | None:
    """Return that the launcher itself was killed, as its exit code says it; None where it was not.

    Args:
        code: The exit code; None where it is not known.
        command_line: Whether it is that of a shell, which tells a killed program by 137.
    """
    if code == -_KILLED:
        return RankDeath("", "the launcher of its ranks was killed by signal 9 (SIGKILL)")
    if code == _KILLED_CODE and command_line:
        how = f"the launcher of its ranks, or another program of its command, was killed by signal 9 (SIGKILL: {code})"
        return RankDeath("", how)
    return None

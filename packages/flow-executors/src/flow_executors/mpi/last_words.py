"""What mpiexec says when ranks or daemons die, read from the last lines of its standard error. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_KILLED: Final = 9


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


def death_told(text: str) -> RankDeath | None:
    """Return which rank or daemon was killed, as the last words of an mpiexec say it; None where they do not.

    A rank that crashed by itself, as by a segmentation fault, is not meant: that is the fault of its program.
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
    return None if lost is None else RankDeath(lost[1], "its daemon of MPI was lost")

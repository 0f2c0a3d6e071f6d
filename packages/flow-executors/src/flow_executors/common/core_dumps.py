"""Processes that hold keys leave no core file: it would lie, with the keys, where backups and bug reports take it up.

Only the limit of core files is lowered (a handler such as systemd-coredump keeps to it). ``PR_SET_DUMPABLE`` would also
close ``/proc/PID`` to the user's own processes: through it the script opens the pipes of workers, and who runs as the
user is let in anyway.
"""

from __future__ import annotations

import resource


def leave_no_core() -> None:
    """Have this process, and those that it starts from now on, leave no core file; never raises."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    except (OSError, ValueError):
        pass

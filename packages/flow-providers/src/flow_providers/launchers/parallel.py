"""The launcher for GNU parallel."""

from __future__ import annotations

from flow_providers.launchers.base import TemplateLauncher


class GnuParallelLauncher(TemplateLauncher):
    """Starts the command on every node by GNU parallel, which reaches the other nodes by ssh.

    The nodes are those that the scheduler lists; without a list the command runs on this node only.

    Args:
        overrides: Free text added to the parallel call.
    """

    template = "parallel.sh.j2"

"""The launcher for Cray's ``aprun``."""

from __future__ import annotations

from flow_providers.launchers.base import TemplateLauncher


class AprunLauncher(TemplateLauncher):
    """Starts the command on every node by one ``aprun``, as most Cray machines need.

    Args:
        overrides: Free text added to the aprun call, such as ``'-cc depth -d 64'``.
    """

    template = "aprun.sh.j2"

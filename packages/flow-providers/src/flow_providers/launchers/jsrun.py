"""The launcher for LSF's ``jsrun``."""

from __future__ import annotations

from flow_providers.launchers.base import TemplateLauncher


class JsrunLauncher(TemplateLauncher):
    """Starts the command on every node by one ``jsrun`` (LSF, Summit).

    Args:
        overrides: Free text added to the jsrun call, such as ``'-c ALL_CPUS -g ALL_GPUS'``.
    """

    template = "jsrun.sh.j2"

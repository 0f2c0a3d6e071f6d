"""Launchers, which multiply one command over the nodes of a job. Public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_providers.lazy import loading

if TYPE_CHECKING:
    from flow_providers.interfaces.launcher import Launcher as Launcher
    from flow_providers.launchers.aprun import AprunLauncher as AprunLauncher
    from flow_providers.launchers.jsrun import JsrunLauncher as JsrunLauncher
    from flow_providers.launchers.mpi import MpiExecLauncher as MpiExecLauncher, MpiRunLauncher as MpiRunLauncher
    from flow_providers.launchers.parallel import GnuParallelLauncher as GnuParallelLauncher
    from flow_providers.launchers.simple import SimpleLauncher as SimpleLauncher
    from flow_providers.launchers.single_node import SingleNodeLauncher as SingleNodeLauncher
    from flow_providers.launchers.srun import SrunLauncher as SrunLauncher, SrunMPILauncher as SrunMPILauncher
    from flow_providers.launchers.wrapped import WrappedLauncher as WrappedLauncher

_HOMES = {
    "Launcher": "flow_providers.interfaces.launcher",
    "SimpleLauncher": "flow_providers.launchers.simple",
    "SingleNodeLauncher": "flow_providers.launchers.single_node",
    "SrunLauncher": "flow_providers.launchers.srun",
    "SrunMPILauncher": "flow_providers.launchers.srun",
    "AprunLauncher": "flow_providers.launchers.aprun",
    "MpiExecLauncher": "flow_providers.launchers.mpi",
    "MpiRunLauncher": "flow_providers.launchers.mpi",
    "GnuParallelLauncher": "flow_providers.launchers.parallel",
    "JsrunLauncher": "flow_providers.launchers.jsrun",
    "WrappedLauncher": "flow_providers.launchers.wrapped",
}

__all__ = [*_HOMES]
__getattr__, __dir__ = loading(__name__, _HOMES)

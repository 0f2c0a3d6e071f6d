"""Submit, watch and cancel jobs on clusters, clouds and hosts. Public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_providers.lazy import loading

if TYPE_CHECKING:
    from flow_providers.adhoc.provider import AdHocProvider as AdHocProvider
    from flow_providers.cloud.aws.provider import AWSProvider as AWSProvider
    from flow_providers.cloud.azure.provider import AzureProvider as AzureProvider
    from flow_providers.cloud.google.provider import GoogleCloudProvider as GoogleCloudProvider
    from flow_providers.cloud.openstack.provider import JetstreamProvider as JetstreamProvider
    from flow_providers.cluster.cobalt.provider import CobaltProvider as CobaltProvider
    from flow_providers.cluster.condor.provider import CondorProvider as CondorProvider
    from flow_providers.cluster.gridengine.provider import GridEngineProvider as GridEngineProvider
    from flow_providers.cluster.lsf.provider import LSFProvider as LSFProvider
    from flow_providers.cluster.pbspro.provider import PBSProProvider as PBSProProvider
    from flow_providers.cluster.slurm.provider import SlurmProvider as SlurmProvider
    from flow_providers.cluster.torque.provider import TorqueProvider as TorqueProvider
    from flow_providers.interfaces.channel import (
        Channel as Channel,
        CommandResult as CommandResult,
        RemoteProcess as RemoteProcess,
    )
    from flow_providers.interfaces.job_extras import JobExtras as JobExtras
    from flow_providers.interfaces.job_state import JobState as JobState
    from flow_providers.interfaces.job_status import JobStatus as JobStatus
    from flow_providers.interfaces.launcher import Launcher as Launcher
    from flow_providers.interfaces.provider import ExecutionProvider as ExecutionProvider
    from flow_providers.kubernetes.provider import KubernetesProvider as KubernetesProvider
    from flow_providers.local.provider import LocalProvider as LocalProvider

__version__ = "0.1.1"

_HOMES = {
    "Channel": "flow_providers.interfaces.channel",
    "CommandResult": "flow_providers.interfaces.channel",
    "RemoteProcess": "flow_providers.interfaces.channel",
    "JobExtras": "flow_providers.interfaces.job_extras",
    "JobState": "flow_providers.interfaces.job_state",
    "JobStatus": "flow_providers.interfaces.job_status",
    "Launcher": "flow_providers.interfaces.launcher",
    "ExecutionProvider": "flow_providers.interfaces.provider",
    "AWSProvider": "flow_providers.cloud.aws.provider",
    "GoogleCloudProvider": "flow_providers.cloud.google.provider",
    "AzureProvider": "flow_providers.cloud.azure.provider",
    "AdHocProvider": "flow_providers.adhoc.provider",
    "JetstreamProvider": "flow_providers.cloud.openstack.provider",
    "KubernetesProvider": "flow_providers.kubernetes.provider",
    "LocalProvider": "flow_providers.local.provider",
    "CobaltProvider": "flow_providers.cluster.cobalt.provider",
    "CondorProvider": "flow_providers.cluster.condor.provider",
    "GridEngineProvider": "flow_providers.cluster.gridengine.provider",
    "LSFProvider": "flow_providers.cluster.lsf.provider",
    "PBSProProvider": "flow_providers.cluster.pbspro.provider",
    "TorqueProvider": "flow_providers.cluster.torque.provider",
    "SlurmProvider": "flow_providers.cluster.slurm.provider",
}

__all__ = [*_HOMES, "__version__"]
__getattr__, __dir__ = loading(__name__, _HOMES)

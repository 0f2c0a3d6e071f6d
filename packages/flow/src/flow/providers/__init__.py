"""The providers, under the path that scripts use; each is loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flow_providers as _home

if TYPE_CHECKING:
    from flow_providers import (
        AdHocProvider as AdHocProvider,
        AWSProvider as AWSProvider,
        AzureProvider as AzureProvider,
        Channel as Channel,
        CobaltProvider as CobaltProvider,
        CommandResult as CommandResult,
        CondorProvider as CondorProvider,
        ExecutionProvider as ExecutionProvider,
        GoogleCloudProvider as GoogleCloudProvider,
        GridEngineProvider as GridEngineProvider,
        JetstreamProvider as JetstreamProvider,
        JobExtras as JobExtras,
        JobState as JobState,
        JobStatus as JobStatus,
        KubernetesProvider as KubernetesProvider,
        Launcher as Launcher,
        LocalProvider as LocalProvider,
        LSFProvider as LSFProvider,
        PBSProProvider as PBSProProvider,
        RemoteProcess as RemoteProcess,
        SlurmProvider as SlurmProvider,
        TorqueProvider as TorqueProvider,
    )

__all__ = list(_home.__all__)


def __getattr__(name: str) -> object:
    return getattr(_home, name)

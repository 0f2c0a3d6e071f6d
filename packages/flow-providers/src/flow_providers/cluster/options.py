"""The options that the providers of all batch schedulers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from flow_providers.block_options import BlockOptions
from flow_providers.cluster.shared_disk import SharedDisk
from flow_providers.interfaces.channel import Channel
from flow_providers.option_records import about

ViaChannel = Annotated[Channel | None, about("How the scheduler is reached; None: on this machine.")]
Account = Annotated[str | None, about("Account to charge.")]
Project = Annotated[str | None, about("Project to charge.")]
Queue = Annotated[str | None, about("Queue; None: the default.")]
ServersQueue = Annotated[str | None, about("Queue; None: the server's default.")]
PBSLines = Annotated[str, about("Lines put after the ``#PBS`` directives.")]
ByAprun = Annotated[object, about("Multiplies the command on the nodes; None: ``AprunLauncher()``.")]
MemAskedPerNode = Annotated[
    float | None, about("GB asked for on each node, in FLOW_MEMORY_GB for the command; None: no request.")
]


@dataclass(frozen=True, slots=True)
class ClusterOptions(BlockOptions):
    """Those of all providers, and how the scheduler is reached."""

    walltime: Annotated[str, about("``HH:MM:SS``; batch schedulers always have a limit.")] = "00:10:00"
    channel: ViaChannel = None
    scheduler_options: Annotated[str, about("Lines put after the directives of the submit script.")] = ""
    shared_disk: Annotated[
        SharedDisk,
        about("Whether the nodes see the files of the host that submits; ``'auto'``: each job finds out."),
    ] = True

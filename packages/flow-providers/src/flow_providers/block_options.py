"""The options that all providers share: each by name once, and all as one frozen record that a constructor fills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from flow_providers.errors import BadOption
from flow_providers.option_records import about, at_least, options_of

_LONGEST_S = 1e6  # eleven days: waits of the system count milliseconds in 32 bits, and take nothing infinite


def _positive(value: object) -> str:
    return "must be more than 0" if isinstance(value, int | float) and not value > 0 else ""


def _patience(value: object) -> str:
    too_long = isinstance(value, int | float) and value > _LONGEST_S
    return f"must be at most {_LONGEST_S:g}" if too_long else _positive(value)


def _not_negative(value: object) -> str:
    return "must not be negative" if isinstance(value, int | float) and value < 0 else ""


NodesPerBlock = Annotated[int, about("Nodes of a job.", at_least(1))]
InitBlocks = Annotated[int, about("Jobs at the start.", at_least(0))]
MinBlocks = Annotated[int, about("Fewest jobs.", at_least(0))]
MaxBlocks = Annotated[int, about("Most jobs; at least ``min_blocks`` and ``init_blocks``.")]
Parallelism = Annotated[float, about("Wanted slots per active task.", _not_negative)]
Walltime = Annotated[str, about("``HH:MM:SS``.")]
WorkerInit = Annotated[str, about("Bash code run before the command.")]
CmdTimeout = Annotated[
    float, about("Seconds that a command of the scheduler, or a call to the service, may take.", _patience)
]
AnyLauncher = Annotated[object, about("Multiplies the command on the nodes; None: ``SingleNodeLauncher()``.")]
"""Annotated as any object, since a wrong one is a ``BadLauncher`` and no matter of types."""
CoresPerNode = Annotated[
    int | None, about("Cores of each node, for the command in FLOW_CORES; None: not set.", at_least(1))
]
MemPerNode = Annotated[
    float | None, about("GB of each node, for the command in FLOW_MEMORY_GB; None: not set.", _positive)
]
EnforceWalltime = Annotated[bool, about("Whether jobs are ended at their walltime.")]
MoveFiles = Annotated[
    bool | None,
    about(
        "Accepted from other configurations: scripts always go through the channel, which copies only where the host "
        "is another.",
        without_effect=True,
    ),
]


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """The options of blocks: their size, their numbers, and how one is started.

    Raises (from the constructor):
        BadOption: a number is out of its range.
    """

    nodes_per_block: NodesPerBlock = 1
    init_blocks: InitBlocks = 1
    min_blocks: MinBlocks = 0
    max_blocks: MaxBlocks = 10
    parallelism: Parallelism = 1
    walltime: Annotated[str | None, about("``HH:MM:SS``; None: no limit.")] = None
    worker_init: WorkerInit = ""
    cmd_timeout: CmdTimeout = 30
    launcher: Annotated[object, about("Multiplies the command on the nodes; None: the provider's own choice.")] = None
    cores_per_node: CoresPerNode = None
    mem_per_node: MemPerNode = None

    def __post_init__(self) -> None:
        for option in options_of(self):
            value = getattr(self, option.name)
            if option.check is not None and (wrong := option.check(value)):
                raise BadOption(f"option {option.name}={value!r} {wrong}")
        if self.max_blocks < self.min_blocks:
            raise BadOption(f"option max_blocks={self.max_blocks} must be at least min_blocks={self.min_blocks}")
        if self.max_blocks < self.init_blocks:
            raise BadOption(
                f"option max_blocks={self.max_blocks} must be at least init_blocks={self.init_blocks}: raise the one, "
                "or lower the other"
            )

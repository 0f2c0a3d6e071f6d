"""The options that all providers share, as one frozen record each constructor fills."""

from __future__ import annotations

from dataclasses import dataclass

from flow_providers.errors import BadOption


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """The options of blocks: their size, their numbers, and how one is started.

    Attributes:
        nodes_per_block: Nodes of a job.
        init_blocks: Jobs at the start.
        min_blocks: Fewest jobs.
        max_blocks: Most jobs.
        parallelism: Wanted slots per active task.
        walltime: ``HH:MM:SS``; None: no limit.
        worker_init: Bash code run before the command.
        cmd_timeout: Seconds that a command of the scheduler, or a call to the service, may take.
        launcher: Multiplies the command on the nodes; None: the provider's own choice.
        cores_per_node: Cores on each node, in FLOW_CORES for the command; None: not set.
        mem_per_node: GB on each node, in FLOW_MEMORY_GB for the command; None: not set.

    Raises (from the constructor):
        BadOption: a number is out of its range.
    """

    nodes_per_block: int = 1
    init_blocks: int = 1
    min_blocks: int = 0
    max_blocks: int = 10
    parallelism: float = 1
    walltime: str | None = None
    worker_init: str = ""
    cmd_timeout: float = 30
    launcher: object = None
    cores_per_node: int | None = None
    mem_per_node: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("nodes_per_block", 1), ("init_blocks", 0), ("min_blocks", 0), ("cores_per_node", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise BadOption(f"option {name}={value!r} must be at least {least}")
        if self.max_blocks < self.min_blocks:
            raise BadOption(f"option max_blocks={self.max_blocks} must be at least min_blocks={self.min_blocks}")
        if self.parallelism < 0:
            raise BadOption(f"option parallelism={self.parallelism!r} must not be negative")
        for name in ("cmd_timeout", "mem_per_node"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise BadOption(f"option {name}={value!r} must be more than 0")

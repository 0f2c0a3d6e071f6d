"""WorkQueueExecutor and TaskVineExecutor: tasks on workers that share nothing with the script."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

from flow_core.interfaces.context import RunContext
from flow_core.option_records import about, documented
from flow_executors.engines.cctools import CctoolsEngine
from flow_executors.engines.cctools_options import CctoolsExecutor
from flow_executors.engines.engine import Engine


@documented
@dataclass(eq=False, repr=False)
class WorkQueueExecutor(CctoolsExecutor):
    """Runs tasks on workers of Work Queue: in blocks of a provider, or those that users start on any machine.

    Workers share nothing with the script but a connection. Work Queue brings them Flow's own code for nodes, tasks and
    their files; a Python is all they need.

    Raises:
        ConfigurationError: an option has an impossible value.
    """

    engine_name = "Work Queue"
    label: str = field(default="WorkQueueExecutor", metadata=about("Name of the executor, unique in a Config."))
    _: KW_ONLY
    worker_program: str = field(
        default="work_queue_worker", metadata=about("The worker's program on the nodes: a command or a path there.")
    )

    def _engine(self, context: RunContext) -> Engine:
        return CctoolsEngine(self, "work_queue", context)


@documented
@dataclass(eq=False, repr=False)
class TaskVineExecutor(CctoolsExecutor):
    """Runs tasks on workers of TaskVine, which keep files that several tasks read, and pass them on to each other.

    Raises:
        ConfigurationError: an option has an impossible value.
    """

    engine_name = "TaskVine"
    label: str = field(default="TaskVineExecutor", metadata=about("Name of the executor, unique in a Config."))
    _: KW_ONLY
    worker_program: str = field(
        default="vine_worker", metadata=about("The worker's program on the nodes: a command or a path there.")
    )
    peer_transfers: bool = field(
        default=True, metadata=about("Whether workers get files that others have from these, and not from the script.")
    )

    def ineffective_options(self) -> list[str]:
        """Return a sentence for each option that was given and changes nothing."""
        sentences = super().ineffective_options()
        if not self.full_debug:
            sentences.append("full_debug=False has no effect: TaskVine always writes its debug log")
        return sentences

    def opening(self) -> dict[str, object]:
        """Return what its library is told at its start beside the options that both have."""
        return {"peer_transfers": self.peer_transfers}

    def _engine(self, context: RunContext) -> Engine:
        return CctoolsEngine(self, "taskvine", context)

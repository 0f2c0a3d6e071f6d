"""The interface of providers: submit, watch and cancel batch jobs of schedulers, clouds and hosts alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from flow_providers.interfaces.job_extras import NO_EXTRAS, JobExtras
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.interfaces.locality import Locality
from flow_providers.sequences import listed


@dataclass(frozen=True, slots=True)
class NodeUse:
    """What the command of a job is going to use of each node.

    Attributes:
        cores: Cores; None: not known.
        memory_gb: Memory in GB; None: not known.
    """

    cores: int | None = None
    memory_gb: float | None = None


class ExecutionProvider(ABC):
    """Submits, watches and cancels jobs. Methods may be called from any thread, also at the same time.

    Job ids are strings that mean the same in another process: an equal provider there can query and cancel the jobs.
    ``status`` and ``cancel`` of every subclass refuse a single text, by BadOption, where a list of ids is meant.
    """

    label: str = "provider"
    """Short name for logs and files."""
    nodes_per_block: int = 1
    """Nodes of one job."""
    cores_per_node: int | None = None
    """Cores asked for on each node; the command finds the number in FLOW_CORES. None: no request."""
    mem_per_node: float | None = None
    """Memory asked for on each node in GB; the command finds it in FLOW_MEMORY_GB. None: no request."""
    walltime_s: float | None = None
    """Seconds after which the scheduler ends a job; None: never."""
    init_blocks: int = 1
    """Jobs at the start."""
    min_blocks: int = 0
    """Fewest jobs that executors keep."""
    max_blocks: int = 10
    """Most jobs at a time."""
    parallelism: float = 1.0
    """Wanted slots per active task."""
    appears_within_s: float = 60.0
    """Seconds in which a submission that was under way when its process died may become visible to ``find``."""

    shares_nodes: bool = False
    """Whether a job that asks for no cores gets one core of each node, or as many as copies of its command, not all."""
    asks_for_use: bool = False
    """Whether jobs on shared nodes ask for ``expected_use`` where the provider's own options say nothing."""
    expected_use: NodeUse = NodeUse()
    """What the commands of the coming jobs use of each node; set by who submits them."""
    keeps_ended: bool = False
    """Whether a job that has ended stays at its scheduler until it is cleared, or the provider closed."""
    starts_on_each_node: bool = False
    """Whether the provider itself starts the command on each node of a block, whatever its launcher."""
    delivers_files: bool = False
    """Whether ``submit`` brings the files of ``JobExtras.files`` to the side of the nodes."""

    @property
    def locality(self) -> Locality:
        """What its jobs share with this machine. Does not ask anybody."""
        return Locality.SAME_FILES

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Here, and not in each provider, so that a subclass outside this library is guarded too: cancel("abc") was
        # once taken letter by letter, and the job ran on.
        for verb in ("status", "cancel"):
            method = cls.__dict__.get(verb)
            if callable(method):
                setattr(cls, verb, _of_lists(method))

    @abstractmethod
    def submit(
        self, command: str, tasks_per_node: int, job_name: str = "flow.auto", *, extras: JobExtras = NO_EXTRAS
    ) -> str:
        """Submit a job that runs ``command`` through the launcher, and return its id.

        Blocks up to the provider's ``cmd_timeout``. Not idempotent.

        Args:
            command: Bash code.
            tasks_per_node: Copies of the command on each node.
            job_name: Name shown by the scheduler; made safe for it where needed.
            extras: Tag, environment and secrets.

        Raises:
            SubmitException: surely not submitted.
            SubmitUnknown: not known whether it was submitted; ``find(extras.tag)`` will tell.
            ExecutionProviderException: surely not submitted, for a reason of its own (missing argument, bad path).
        """

    @abstractmethod
    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Return the status of each job, in the order asked, with one query for all of them.

        Blocks up to ``cmd_timeout``. A job that the scheduler does not know is MISSING.

        Raises:
            SchedulerUnavailable: nothing is known now; ask later, states are unchanged.
        """

    @abstractmethod
    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """End jobs; True for each that is gone or going, False where that could not be done.

        Idempotent: cancelling an ended or unknown job is True. Blocks up to ``cmd_timeout``.

        Raises:
            SchedulerUnavailable: nothing was cancelled, or it is not known; do it again.
        """

    @abstractmethod
    def find(self, tag_prefix: str) -> list[str]:
        """Return the ids of the user's jobs whose tag starts with ``tag_prefix``, from whatever process they came.

        Jobs that have ended may be among them. Blocks up to ``cmd_timeout``.

        Raises:
            SchedulerUnavailable: ask later.
        """

    def tail(self, job_id: str, max_bytes: int = 4096) -> tuple[str, str]:
        """Return the ends of standard output and error of a job; empty where there is none. Never raises."""
        return "", ""

    def clear(self, job_ids: Sequence[str]) -> None:
        """Remove what ended jobs have left on another machine: scripts, outputs, records. Never raises.

        Called for jobs that ended well, when nobody will ask for them any more; also what older failures have left
        there may go. Blocks up to ``cmd_timeout``. Does nothing by default.
        """
        return None

    def offer_script_dir(self, path: str) -> None:
        """Offer a directory of this machine for submit scripts of the coming jobs; the user's own choice wins."""
        return None

    @property
    def current_capacity(self) -> int:
        """Jobs submitted through this object and not seen to have ended."""
        return 0

    def close(self) -> None:
        """Close channels and clients. Idempotent. Jobs go on."""
        return None


def _of_lists(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that refuses one id where it wants a list of them: its letters would be unknown jobs."""

    @wraps(method)
    def checking(self: ExecutionProvider, job_ids: Sequence[str]) -> Any:
        return method(self, listed(job_ids, f"{type(self).__name__}.{method.__name__}"))

    return checking

"""Components of a kernel, for those who begin and end it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flow_core.kernel.failure_tally import FailureTally

if TYPE_CHECKING:
    from flow_core.config import Config
    from flow_core.interfaces.executor import Executor
    from flow_core.interfaces.memoizer import Memoizer
    from flow_core.interfaces.sinks import RunInfo
    from flow_core.kernel.backpressure import SubmissionLimiter
    from flow_core.kernel.live import LiveQueries
    from flow_core.kernel.progress import ProgressTicker
    from flow_core.kernel.reactor import Reactor
    from flow_core.kernel.run_record import RunRecord
    from flow_core.kernel.unseen import Unseen
    from flow_core.observe.logging import RunLog
    from flow_core.observe.pump import EventPump
    from flow_core.observe.run_logger import RunLogger
    from flow_core.observe.usage import UsageTracker
    from flow_core.staging.manager import StagingManager


@dataclass(slots=True, eq=False)
class KernelComponents:
    """The parts of one kernel, in the order in which they are made; what is not made yet is None.

    Attributes:
        refusal: Why no calls are taken any more; None while they are.
    """

    # Those with None come later, in ``_assemble``: a kernel that fails half-way ends what is there.
    config: Config
    info: RunInfo
    reactor: Reactor
    logger: RunLogger
    executors: dict[str, Executor] = field(default_factory=dict)
    run_log: RunLog | None = None
    gate: SubmissionLimiter | None = None
    staging: StagingManager | None = None
    memoizer: Memoizer | None = None
    pump: EventPump | None = None
    bodies: Executor | None = None
    usage: UsageTracker | None = None
    live: LiveQueries | None = None
    record: RunRecord | None = None
    ticker: ProgressTicker | None = None
    unseen: Unseen | None = None
    failures: FailureTally = field(default_factory=FailureTally)
    refusal: str | None = None

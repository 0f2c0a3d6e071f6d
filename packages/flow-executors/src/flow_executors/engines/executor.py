"""EngineExecutor: the options that executors on engines share, and the interface that the kernel knows.

What it does once started is ``runtime.EngineRuntime``; what an adapter adds is told in ``engine``.
"""

from __future__ import annotations

import math
import os
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import NoReturn

from flow_core.errors import ConfigurationError, ExecutorClosed, ExecutorError
from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.executor import BlockExecutor, ShutdownReport
from flow_core.interfaces.scaling import Load
from flow_core.interfaces.staging import Staging
from flow_core.interfaces.waiting import Cause
from flow_core.option_records import about, above, at_least, options_of, without_effect
from flow_core.representation import expression
from flow_core.without_effect import reason_of, warn_of
from flow_executors.engines.batching_core import MOST
from flow_executors.engines.engine import Engine, EngineWorker
from flow_executors.engines.runtime import EnginePlan, EngineRuntime
from flow_executors.runtime import import_paths
from flow_executors.scaling.block import Bounds
from flow_executors.scaling.failures import BlockErrorHandler
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.locality import Locality
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.option_checks import check_options

_MOST_PER_BATCH = 10_000


def wrong_resources(value: object) -> str:
    """Return what resources of workers must be instead of a value; empty where it is well."""
    well = value is None or (
        isinstance(value, Mapping)
        and all(isinstance(name, str) and name and "=" not in name and " " not in name for name in value)
        and all(isinstance(amount, int | float) and 0 < amount < math.inf for amount in value.values())
    )
    return "" if well else "must have names without blanks, and amounts above 0, such as {'license': 1}"


@dataclass(eq=False, repr=False)
class EngineOptions:
    """The options that all executors on engines have."""

    label: str = field(default="", metadata=about("Name of the executor, unique in a Config; names its directory."))
    provider: ExecutionProvider | None = field(
        default=None,
        metadata=about(
            "Where the engine's workers come from: its blocks run them. None: a ``LocalProvider`` of one block, or "
            "none at all with an engine that is somebody else's.",
            untyped=True,
        ),
    )
    _: KW_ONLY
    working_dir: str | None = field(default=None, metadata=about("Directory for staged files on the nodes."))
    storage_access: Sequence[Staging] | None = field(
        default=None, metadata=about("Staging methods that replace the defaults.")
    )
    managed: bool = field(default=True, metadata=about("Whether the kernel shuts it down, and scales it."))
    max_batch: int = field(
        default=MOST,
        metadata=about(
            "Most short tasks that the engine gets as one task of its own while many wait; 1 for each by itself.",
            at_least(1),
        ),
    )
    max_workers: float = field(
        default=math.inf,
        metadata=about("Most workers of a node; infinite for as many as its cores allow.", at_least(1)),
    )
    cores_per_worker: float = field(
        default=1.0, metadata=about("Cores of a worker, which runs one task at a time.", above(0))
    )
    mem_per_worker: float | None = field(
        default=None, metadata=about("Memory of a worker in GB; None for no limit of its own.", above(0))
    )
    python: str | None = field(
        default=None,
        metadata=about(
            "Python of the nodes, which has the engine and ``flow_core``: a command or a path there. None for the "
            "script's own."
        ),
    )
    block_error_handler: bool | BlockErrorHandler | None = field(
        default=True,
        metadata=about(
            "False: failed blocks are tried again for ever; or a function that decides, which gets the executor and "
            "the failed blocks, and returns the error of the tasks, or None to go on."
        ),
    )
    block_start_timeout: float = field(
        default=900.0,
        metadata=about("Seconds that the job of a block may run before its first worker connects.", above(0)),
    )
    recovery_timeout: float = field(
        default=600.0,
        metadata=about(
            "Seconds that tasks wait, with no block left, while one attempt to start another after the other fails.",
            above(0),
        ),
    )


_OF_BLOCKS = (
    "max_workers",
    "cores_per_worker",
    "mem_per_worker",
    "python",
    "block_error_handler",
    "block_start_timeout",
    "recovery_timeout",
)
"""Options that say something of blocks, which an executor on an engine of others has not."""


class EngineExecutor(EngineOptions, BlockExecutor):
    """What executors on engines have in common. ``engine`` says what a subclass adds."""

    provider: ExecutionProvider | None  # again, since the interface knows no providers

    @property
    @abstractmethod
    def borrowed(self) -> bool:
        """Whether its engine is somebody else's, which it neither starts nor ends."""

    @abstractmethod
    def _engine(self, context: RunContext) -> Engine:
        """Return the engine of one start, not open yet. Raises ExecutorError: what it needs is not installed."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} {self.label!r} can be neither pickled nor copied: it has threads and locks of its "
            "own. Make another one by the same call, which repr() shows, or hand on a function that does"
        )

    def __post_init__(self) -> None:
        self._runtime: EngineRuntime | None = None
        self._report = ShutdownReport()
        name = f"{type(self).__name__} {self.label!r}"
        check_options(self, name, ConfigurationError)
        if not self.label or os.sep in self.label or self.label in (".", ".."):
            raise ConfigurationError(f"{name}: label must be a name that can be a directory")
        if self.max_batch > _MOST_PER_BATCH:
            raise ConfigurationError(f"{name}: max_batch={self.max_batch!r} must be at most {_MOST_PER_BATCH}")
        if self.borrowed and self.provider is not None:
            raise ConfigurationError(
                f"{name}: its engine is somebody else's, so provider={self.provider!r} would start nothing: leave out "
                "one of both"
            )
        if not self.borrowed:
            if self.provider is None:
                from flow_providers.local.provider import LocalProvider

                self.provider = LocalProvider(max_blocks=1)
            if not isinstance(self.provider, ExecutionProvider):
                raise ConfigurationError(f"{name}: option provider={self.provider!r} is no provider")
            if self.provider.max_blocks < 1:
                raise ConfigurationError(f"{name}: with max_blocks=0 of its provider no task would ever run")
            if self.provider.locality is Locality.ELSEWHERE and not self.carries_files:
                raise ConfigurationError(
                    f"{name}: nodes of {type(self.provider).__name__} share nothing with this machine, and the engine "
                    "brings no files there: use a HighThroughputExecutor"
                )
        warn_of(name, self.ineffective_options())

    def ineffective_options(self) -> list[str]:
        """Return a sentence for each option that was given and changes nothing."""
        sentences = [
            f"{option.name}={getattr(self, option.name)!r} has no effect: {reason_of(option.documentation)}"
            for option in options_of(self)
            if option.name in without_effect(self)
        ]
        if self.borrowed:
            defaults = {option.name: option.default for option in options_of(self)}
            sentences += [
                f"{name}={getattr(self, name)!r} has no effect: its engine has workers of its own"
                for name in _OF_BLOCKS
                if getattr(self, name) != defaults[name]
            ]
        return sentences

    def __repr__(self) -> str:
        return expression(self, [option.name for option in options_of(self)])

    # -- Executor

    def start(self, context: RunContext) -> None:
        """Start the engine, or connect, and ask for the first blocks. Any thread; waits for no block.

        Raises:
            ExecutorError: it is started already, or the engine cannot be started or reached.
        """
        if self._runtime is not None:
            raise ExecutorError(f"executor {self.label!r} is started already: a Config can be loaded once at a time")
        for sentence in self.ineffective_options():
            context.logger.warning("%s: %s", self.label, sentence)
        provider = self.provider
        none = provider is not None and self.managed and max(provider.init_blocks, provider.min_blocks) == 0
        if none and context.scaling.strategy == "none":
            raise ConfigurationError(
                f"{type(self).__name__} {self.label!r}: with strategy='none' and init_blocks=0 of its provider no "
                "block would ever come, and tasks would wait for ever"
            )
        bounds = Bounds(start_s=self.block_start_timeout, recovery_s=self.recovery_timeout)
        plan = EnginePlan(
            self.label,
            self._engine,
            provider,
            self.working_dir,
            self.max_batch,
            self.node_workers(),
            self.block_error_handler,
            bounds,
            import_paths() if provider is not None else (),
        )
        self._runtime = EngineRuntime(plan, context)

    def submit(self, key: TryKey, call: Call, /) -> None:
        """Take one try. Any thread; does not wait for the engine. Raises ExecutorClosed, ExecutorBroken."""
        self._started().submit(key, call)

    def cancel(self, keys: Sequence[TryKey], /, *, kill: bool = False) -> None:
        """Ask to cancel tries; their outcomes tell what became of it. Any thread."""
        if self._runtime is not None:
            self._runtime.cancel(keys, kill)

    def withdraw(self, key: TryKey, /) -> bool | None:
        """Cancel a try that has not begun; False if it has, None where nobody says so in time."""
        return None if self._runtime is None else self._runtime.withdraw(key)

    def load(self) -> Load:
        """Return how many tries wait and run, and the slots and blocks there are."""
        return Load() if self._runtime is None else self._runtime.load()

    def why_waiting(self, key: TryKey, /, *, timeout_s: float = 2.0) -> Sequence[Cause]:
        """Say what keeps a try from being done."""
        return () if self._runtime is None else self._runtime.why_waiting(key)

    def shutdown(self, timeout_s: float) -> ShutdownReport:
        """End the engine, or leave it as it was, and cancel all blocks."""
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            self._report = runtime.close(timeout_s)
        return self._report

    # -- BlockExecutor

    def scale_out(self, blocks: int = 1) -> Sequence[str]:
        """Ask the provider for blocks; return their ids."""
        return self._started().scaler.scale_out(blocks)

    def scale_in(self, blocks: int, *, max_idletime_s: float | None = None, timeout_s: float = 60.0) -> Sequence[str]:
        """Give back up to so many blocks that have nothing to do; return their ids."""
        return self._started().scaler.scale_in(blocks, max_idletime_s=max_idletime_s, timeout_s=timeout_s)

    # -- what there is

    def status(self) -> dict[str, JobState]:
        """Return the state of every block by its id."""
        runtime = self._runtime
        return dict(runtime.scaler.blocks()) if runtime is not None and runtime.has_blocks else {}

    def connected_workers(self) -> list[EngineWorker]:
        """Return the engine's workers."""
        return self._runtime.workers() if self._runtime is not None else []

    def node_workers(self) -> int:
        """Return how many workers a node of a block has, as far as that is known here; 1 where it is not."""
        provider = self.provider
        cores = provider.cores_per_node if provider is not None else None
        if cores is None and provider is not None and provider.locality is Locality.THIS_MACHINE:
            cores = os.cpu_count() or 1
        limits = [self.max_workers] if self.max_workers != math.inf else []
        if cores is not None and not limits:
            limits.append(max(1.0, cores // self.cores_per_worker))
        return int(min(limits, default=1))

    # -- for adapters

    def _python(self) -> str:
        """Return the Python of the nodes."""
        return self.python or sys.executable

    def _started(self) -> EngineRuntime:
        if self._runtime is None:
            raise ExecutorClosed(f"the executor {self.label} is not started, or was shut down")
        return self._runtime

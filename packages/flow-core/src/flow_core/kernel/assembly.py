"""Assembly of a kernel from a Config: its executors, its sinks, its memoizer, its log."""

from __future__ import annotations

import concurrent.futures
import getpass
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

import flow_core
from flow_core.errors import ConfigurationError, ExecutorError
from flow_core.executors.futures import FuturesExecutor, SubmitExecutor, SubmitStyle
from flow_core.futures.callbacks import packing_calls
from flow_core.graph.resolver import DEEP
from flow_core.guard import attribute, called, is_a, one_line, pass_signal
from flow_core.hooks import BEGIN, Calling, Noted, is_own
from flow_core.interfaces.clock import SystemClock
from flow_core.interfaces.context import RunContext, WithDriver
from flow_core.interfaces.events import EventKind, RunStarted
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.sampler import SamplerSpec
from flow_core.interfaces.scaling import ScalingSettings
from flow_core.interfaces.sinks import RunInfo, SamplingSink
from flow_core.kernel.honouring import check_honours
from flow_core.observe.logging import level_number, open_run_log
from flow_core.observe.run_logger import RunLogger
from flow_core.observe.usage import UsageTracker

if TYPE_CHECKING:
    from flow_core.config import Config
    from flow_core.interfaces.memoizer import Memoizer, MemoKey
    from flow_core.interfaces.outcome import TryListener
    from flow_core.interfaces.sinks import EventPort, EventSink
    from flow_core.observe.logging import RunLog
    from flow_core.observe.pump import EventPump

_START_TIMEOUT_S = 60.0  # seconds for one executor; only the magnitude matters, far above what a start takes


def wrapped_executors(given: Iterable[object], there: Mapping[str, Executor] | None = None) -> dict[str, Executor]:
    """Return executors by label: ours as they are, stdlib pools and those in the seeds' style wrapped.

    ``there`` are those that have their labels already.

    Raises:
        ConfigurationError: two have the same label, or one is no executor, or declares impossible things.
    """
    executors: dict[str, Executor] = {}
    for candidate in given:
        known = {**(there or {}), **executors}
        executor = _wrapped(candidate, known)
        if executor.label in known:
            raise ConfigurationError(f"two executors have the label {executor.label!r}: give each its own label=")
        executors[executor.label] = executor
    check_honours(executors)
    return executors


def _wrapped(candidate: object, known: dict[str, Executor]) -> Executor:
    if isinstance(candidate, Executor):
        return candidate
    if isinstance(candidate, concurrent.futures.Executor):
        # A pool has no label, and two of one class are common: so they are numbered.
        return FuturesExecutor(_free_label(type(candidate).__name__, known), candidate)
    if callable(getattr(candidate, "submit", None)) and hasattr(candidate, "label"):
        return SubmitExecutor(cast("SubmitStyle", candidate))
    raise ConfigurationError(f"{candidate!r} is no executor")


def _free_label(name: str, known: dict[str, Executor]) -> str:
    label, number = name, 1
    while label in known:
        number += 1
        label = f"{name}_{number}"
    return label


def all_sinks(config: Config) -> list[EventSink]:
    """Return all sinks of a Config."""
    # Monitoring first: the sampler is that of the first sink that wants samples.
    first = [] if config.monitoring is None else [config.monitoring]
    return [*first, *config.sinks]


def sampler_of(sinks: Iterable[object]) -> SamplerSpec | None:
    """Return the sampler of the first sink that wants samples; None where none does. Raises HookError."""
    for sink in sinks:
        if not isinstance(sink, SamplingSink):
            continue
        with Calling(BEGIN, "event sink", sink, "sampler") as calling:
            spec: object = sink.sampler()
            if spec is not None and not is_a(spec, SamplerSpec):
                calling.gave(spec, "a SamplerSpec")
        if spec is not None:
            return spec
    return None


def watched_begin(hooks: Iterable[object]) -> AbstractContextManager[None]:
    """Return a context in which the log says if hooks of the user's do not return, for which the run's begin waits."""
    if all(map(is_own, hooks)):
        return nullcontext()
    return packing_calls.watched(lambda: "the begin of the run")


def run_name(config: Config) -> str:
    """Return the workflow's name: the Config's, or the script's."""
    if config.name:
        return config.name
    script = sys.argv[0] if sys.argv else ""
    return Path(script).name or "interactive"


def run_info(config: Config, run_id: str, epoch: int, run_dir: Path) -> RunInfo:
    """Return the record of the run that sinks are given."""
    return RunInfo(run_id, epoch, run_dir, run_name(config), time.time_ns())


def make_memoizer(config: Config, run_dir: Path, logger: logging.Logger) -> Memoizer | None:
    """Return the run's memoizer; None if memoization is off for all apps."""
    if not config.app_cache:
        return None
    # Checked by Config.validate, so it has the methods of one.
    if config.memoizer is not None:
        return config.memoizer
    # Imported here: a run without memoization does not pay for it.
    from flow_core.memo.memoizer import BasicMemoizer

    return BasicMemoizer(
        checkpoint_mode=config.checkpoint_mode,
        checkpoint_period=config.checkpoint_period,
        checkpoint_dir=run_dir / "checkpoint",
        checkpoint_files=config.checkpoint_files or (),
        trust_owner=config.trust_owner,
        logger=logger.getChild("memo"),
    )


def users_hooks(config: Config, executors: dict[str, Executor]) -> tuple[str, ...]:
    """Return the names of those of a Config's hooks that are the user's and that tasks wait for."""
    methods = [*(config.staging or ()), *(one for each in executors.values() for one in each.storage_access or ())]
    # Sinks and retry handlers are not among them: no task waits for those before it runs.
    given: list[tuple[str, object]] = [
        ("executor_chooser", config.executor_chooser),
        ("dependency_resolver", None if config.dependency_resolver is DEEP else config.dependency_resolver),
        ("memoizer", config.memoizer),
        *(("staging method", method) for method in methods),
    ]
    of_users = [(role, hook) for role, hook in given if hook is not None]
    return tuple(dict.fromkeys(f"{role} {called(hook)}" for role, hook in of_users if not is_own(hook)))


def noting_failures(memoizer: Memoizer | None) -> Callable[[MemoKey, int, str], None] | None:
    """Return the method by which Flow's own memoizer notes a failed call (key, task id, a line); else None."""
    noting: Callable[[MemoKey, int, str], None] | None = getattr(memoizer, "failed", None)
    return noting if memoizer is not None and is_own(memoizer) else None


def usage_tracker(config: Config) -> UsageTracker:
    """Return the tracker that sends anonymous usage, which it does only if the user asked for that."""
    return UsageTracker(config.usage_tracking, config.usage_address, version=flow_core.__version__)


def executor_context(
    config: Config,
    label: str,
    info: RunInfo,
    listener: TryListener,
    events: EventPort,
    sampler: SamplerSpec | None,
) -> RunContext:
    """Return the context that an executor gets when it starts."""
    return RunContext(
        run_id=info.run_id,
        epoch=info.epoch,
        run_dir=info.run_dir,
        executor_dir=info.run_dir / label,
        listener=listener,
        events=events,
        scaling=ScalingSettings(
            config.strategy if config.strategy is not None else "none", config.strategy_period, config.max_idletime
        ),
        lifetime=WithDriver(),
        sampler=sampler,
        logger=RunLogger(f"flow.executors.{label}", info.run_id),
        clock=SystemClock(),
        start_timeout_s=_START_TIMEOUT_S,
    )


def open_log(config: Config, info: RunInfo) -> RunLog | None:
    """Begin the run's log if the Config asks for it."""
    if not config.initialize_logging:
        return None
    return open_run_log(info.run_dir, config.log_format, level_number(config.log_level), info.run_id)


def report_start(pump: EventPump, info: RunInfo, executors: Iterable[str]) -> None:
    """Post the event of a run's begin, if a sink wants it."""
    if EventKind.RUN not in pump.wants:
        return
    pump.post(
        RunStarted(
            time_ns=info.started_ns,
            run_id=info.run_id,
            epoch=info.epoch,
            name=info.name,
            script=sys.argv[0] if sys.argv else "",
            version=flow_core.__version__,
            python=sys.version.split()[0],
            host=socket.gethostname(),
            user=_user(),
            run_dir=str(info.run_dir),
            executors=tuple(executors),
        )
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def start_executors(executors: Iterable[tuple[Executor, RunContext]]) -> None:
    """Start executors one after the other; if one fails, shut down those that were started and raise its error."""
    started: list[Executor] = []
    try:
        for executor, context in executors:
            # Before its start: the error names the last one, which ends itself; those before it are shut down.
            started.append(executor)
            with watched_begin([executor]), Noted(BEGIN, "executor", attribute(executor, "wrapped", executor), "start"):
                executor.start(context)
    except BaseException as error:
        shut_down(reversed(started[:-1]))
        if not (is_a(error, ExecutorError) or is_a(error, ConfigurationError)):
            pass_signal(error)
            raise ExecutorError(f"executor {started[-1].label!r} could not be started: {one_line(error)}") from error
        raise


def shut_down(executors: Iterable[Executor]) -> None:
    """Shut executors down that nobody needs; what they raise is logged."""
    for executor in executors:
        _shut_down(executor)


def _shut_down(executor: Executor) -> None:
    try:
        # Five seconds: it has run nothing yet, so there is little to wait for.
        executor.shutdown(5.0)
    except BaseException as error:
        pass_signal(error)
        told = "Executor %r could not be shut down: %s"
        logging.getLogger("flow.kernel").error(told, executor.label, one_line(error))

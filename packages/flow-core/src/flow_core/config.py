"""Configuration of a run. Options are checked here, so that every error names the option and says what to do."""

from __future__ import annotations

import concurrent.futures
import copy
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal, Self, get_args

from flow_core.apps.special import LONGEST_S
from flow_core.checkpoint.period import period_seconds
from flow_core.errors import ConfigurationError
from flow_core.guard import attribute
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.memoizer import Memoizer
from flow_core.interfaces.staging import Staging
from flow_core.option_names import did_you_mean
from flow_core.own_files import owners
from flow_core.representation import expression

if TYPE_CHECKING:
    from flow_core.interfaces.scaling import Strategy
    from flow_core.interfaces.sinks import EventSink

CheckpointMode = Literal["task_exit", "periodic", "dfk_exit", "manual"]
ExitMode = Literal["cleanup", "skip", "wait"]
LogFormat = Literal["text", "json"]
ConflictMode = Literal["warn", "refuse", "allow"]
UnseenMode = Literal["report", "raise", "ignore"]
RunDirMode = Literal["private", "group", "umask"]

RetryHandler = Callable[..., float]
"""``handler(exception, task) -> cost``: what one failure takes off the task's ``retries``; 1 is the usual cost."""

DependencyResolver = Callable[..., object]
"""Finds and replaces futures in arguments; ``None`` looks at arguments themselves and into ``inputs``."""

ExecutorChooser = Callable[..., str]
"""``chooser(labels, ...) -> label``: which of several allowed executors runs a task; ``None`` chooses at random."""

AnyExecutor = Executor | concurrent.futures.Executor
"""Items of ``executors=``; besides, objects with ``label``, ``start()``, ``submit(func, *args, **kwargs)`` that
gives a Future, and ``shutdown()`` are taken."""

STRATEGIES: Final = ("none", "simple", "htex_auto_scale")


class _KnownOptions:
    """Refuses unknown options by our own error before the constructor could raise a bare TypeError."""

    _options: tuple[str, ...] = ()

    def __new__(cls, *args: object, **options: object) -> Self:
        # In __new__, which comes before __init__ could raise a TypeError that lists no options.
        for name in options:
            if name not in cls._options:
                raise ConfigurationError(f"Config has no option {name!r}{did_you_mean(name, cls._options)}")
        if len(args) > len(cls._options):
            raise ConfigurationError(f"Config takes at most {len(cls._options)} options, not {len(args)}")
        return super().__new__(cls)

    if not TYPE_CHECKING:  # else type checkers would take it that any attribute may be set

        def __setattr__(self, name: str, value: object) -> None:
            if name not in self._options:
                raise ConfigurationError(f"Config has no option {name!r}{did_you_mean(name, self._options)}")
            super().__setattr__(name, value)


class Config(_KnownOptions):
    """Configuration of a run: where and how a program runs. Loading it does not change it; it may be loaded again.

    Options are attributes of the same name, which may be changed until the Config is loaded. ``repr`` gives an
    expression that makes an equal one.

    Args:
        executors: What runs the apps; None means one ThreadPoolExecutor labelled ``threads``. Labels must differ.
        app_cache: Whether apps with ``cache=True`` are memoized (and checkpointed) at all.
        checkpoint_files: Directories of checkpoints to start from, as given by ``get_all_checkpoints()``.
        checkpoint_mode: When results are written to a checkpoint: ``task_exit``, ``periodic``, ``dfk_exit``,
            ``manual`` (by ``dfk.checkpoint()`` only); None is manual too.
        checkpoint_period: Time between two checkpoints in mode ``periodic``, as ``"HH:MM:SS"`` or seconds.
        data_management_max_threads: How many tasks' files are moved at once on the submit side from or to one host.
        initialize_logging: Whether ``flow.log`` is written in the run's directory.
        lazy_errors: Whether the rest of the program goes on when a task fails. With False the first failure is
            raised by the next call of an app.
        max_idletime: Seconds after which an idle block may be given back.
        monitoring: A sink of events such as a MonitoringHub, or None.
        retries: How often a failed task is tried again. Tries lost with a machine do not count.
        run_dir: Directory in which each run makes its own numbered one.
        strategy: How executors scale: ``simple``, ``htex_auto_scale``, ``none`` (None), or a function from
            ScalingView to blocks to add or release.
        strategy_period: Seconds between two looks of the strategy.
        usage_tracking: Whether anonymous usage is sent to ``usage_address``. Off by default.
        usage_address: ``host:port`` that usage goes to by UDP; None means that of ``FLOW_TRACKING_ADDRESS``.
        retry_handler: Gives the cost of a failure; None means 1 each.
        infrastructure_retries: How often a try lost with its worker, node or block is made again.
        max_worker_kills: After how many workers that died under it a task is stopped and named.
        max_pending: How many unfinished tasks there may be before a call of an app blocks; None is no limit.
        exit_mode: What leaving ``with flow.load(config):`` normally does: ``cleanup`` cancels what is unfinished,
            ``wait`` waits for all tasks first, ``skip`` leaves the kernel running. After an exception it is always
            ``cleanup``.
        memoizer: A Memoizer that replaces the built-in one.
        dependency_resolver: How futures are found in arguments; None means in arguments and ``inputs``.
        executor_chooser: Chooses among the executors that may run a task; None means at random.
        sinks: More sinks of events.
        log_format: ``text`` or ``json`` (one object a line).
        name: Name of the workflow; None means the script's.
        staging: Staging methods that replace the defaults for executors without their own.
        unseen_failures: What becomes of failures that nobody looked at (see docs/errors.md): ``report`` tells of them
            on standard error when the script ends, ``raise`` raises UnseenFailures where the run ends, ``ignore`` does
            neither.
        output_conflicts: What becomes of a call that declares an output of an unfinished task which it does not wait
            for: ``warn`` logs a warning, ``refuse`` raises OutputConflict, ``allow`` says nothing.
        run_dir_mode: Who may look into the directories of runs: ``private`` the user alone, ``group`` the user's group
            too, ``umask`` those whom the umask lets. Nobody else may write there, and keys are closed, in any case.
        hook_timeout: Seconds after which a hook of the user's that has not returned (a retry handler, a chooser, a
            resolver, a method of a memoizer, of a staging method or of an executor) is not waited for any more: its
            task fails with HookError, or goes on without it (see docs/errors.md). None waits for ever.
        trust_owner: Users, by name or number, whose checkpoints are read, too, and in whose directory runs may have
            theirs: reading a checkpoint runs what its writer put in.

    Raises:
        ConfigurationError: an option is unknown or has an impossible value.
    """

    def __init__(
        self,
        executors: Iterable[AnyExecutor] | None = None,
        app_cache: bool = True,
        checkpoint_files: Sequence[str | os.PathLike[str]] | None = None,
        checkpoint_mode: CheckpointMode | None = None,
        checkpoint_period: str | float | None = None,
        data_management_max_threads: int = 10,
        initialize_logging: bool = True,
        lazy_errors: bool = True,
        max_idletime: float = 120.0,
        monitoring: EventSink | None = None,
        retries: int = 0,
        run_dir: str | os.PathLike[str] = "runinfo",
        strategy: str | Strategy | None = "simple",
        strategy_period: float = 5,
        usage_tracking: bool = False,
        usage_address: str | None = None,
        retry_handler: RetryHandler | None = None,
        infrastructure_retries: int = 5,
        max_worker_kills: int = 3,
        max_pending: int | None = None,
        exit_mode: ExitMode = "cleanup",
        memoizer: Memoizer | None = None,
        dependency_resolver: DependencyResolver | None = None,
        executor_chooser: ExecutorChooser | None = None,
        sinks: Sequence[EventSink] = (),
        log_format: LogFormat = "text",
        name: str | None = None,
        staging: Sequence[Staging] | None = None,
        unseen_failures: UnseenMode = "report",
        output_conflicts: ConflictMode = "warn",
        run_dir_mode: RunDirMode = "private",
        trust_owner: Sequence[str | int] = (),
        hook_timeout: float | None = 600.0,
    ) -> None:
        self.executors = _executors(executors)
        self.app_cache = app_cache
        self.checkpoint_files = checkpoint_files
        self.checkpoint_mode = checkpoint_mode
        self.checkpoint_period = checkpoint_period
        self.data_management_max_threads = data_management_max_threads
        self.initialize_logging = initialize_logging
        self.lazy_errors = lazy_errors
        self.max_idletime = max_idletime
        self.monitoring = monitoring
        self.retries = retries
        self.run_dir = run_dir
        self.strategy = strategy
        self.strategy_period = strategy_period
        self.usage_tracking = usage_tracking
        self.usage_address = usage_address
        self.retry_handler = retry_handler
        self.infrastructure_retries = infrastructure_retries
        self.max_worker_kills = max_worker_kills
        self.max_pending = max_pending
        self.exit_mode = exit_mode
        self.memoizer = memoizer
        self.dependency_resolver = dependency_resolver
        self.executor_chooser = executor_chooser
        self.sinks = sinks
        self.log_format = log_format
        self.name = name
        self.staging = staging
        self.unseen_failures = unseen_failures
        self.output_conflicts = output_conflicts
        self.run_dir_mode = run_dir_mode
        self.trust_owner = trust_owner
        self.hook_timeout = hook_timeout
        # Here too, so that the error shows the line of the script that made the Config; ``load`` checks once more.
        self.validate()

    def copy(self) -> Config:
        """Return a Config with the same values and lists of its own; executors and sinks are the same objects."""
        # Lists are copied, so that what the script appends later does not reach a run; executors are the script's own.
        twin = copy.copy(self)
        twin.executors = list(self.executors)
        twin.sinks = tuple(self.sinks)
        return twin

    def validate(self) -> None:
        """Check all options, also those changed since the Config was made.

        Raises:
            ConfigurationError: naming the first option that is wrong.
        """
        _check_executors(self.executors)
        for option in ("app_cache", "initialize_logging", "lazy_errors", "usage_tracking"):
            _check_bool(option, getattr(self, option))
        for option, least in _LEAST_INTEGERS.items():
            _check_integer(option, getattr(self, option), least)
        if self.max_pending is not None:
            _check_integer("max_pending", self.max_pending, 1)
        _check_seconds("max_idletime", self.max_idletime)
        _check_seconds("strategy_period", self.strategy_period, above_0=True)
        # A longer one would overflow the waits of the scaler's thread.
        if self.strategy_period > LONGEST_S:
            raise ConfigurationError(f"strategy_period must be at most {LONGEST_S:.0e} s, not {self.strategy_period!r}")
        if self.hook_timeout is not None:
            _check_seconds("hook_timeout", self.hook_timeout, above_0=True)
        _check_choice("checkpoint_mode", self.checkpoint_mode, (None, *get_args(CheckpointMode)))
        _check_choice("exit_mode", self.exit_mode, get_args(ExitMode))
        _check_choice("log_format", self.log_format, get_args(LogFormat))
        _check_choice("unseen_failures", self.unseen_failures, get_args(UnseenMode))
        _check_choice("output_conflicts", self.output_conflicts, get_args(ConflictMode))
        _check_choice("run_dir_mode", self.run_dir_mode, get_args(RunDirMode))
        _check_users("trust_owner", self.trust_owner)
        _check_period(self.checkpoint_period)
        _check_checkpoint_files(self.checkpoint_files)
        _check_strategy(self.strategy)
        _check_texts(self)
        _check_callables(self)
        _check_plugins(self)

    def __repr__(self) -> str:
        return expression(self, self._options)


# The parameters are the one list of options: attributes, repr and messages follow it.
Config._options = tuple(name for name in Config.__init__.__code__.co_varnames[1 : Config.__init__.__code__.co_argcount])

_LEAST_INTEGERS: Final = {
    "data_management_max_threads": 1,
    "retries": 0,
    "infrastructure_retries": 0,
    "max_worker_kills": 1,
}


def checked_config(config: object) -> Config:
    """Return the argument of ``load`` if it is a Config.

    Raises:
        ConfigurationError: it is something else; the message says what, and what to do.
    """
    if isinstance(config, Config):
        return config
    hint = "write flow.Config(executors=[...]) instead of the old dictionaries"
    if not isinstance(config, dict):
        hint = "make one with flow.Config(executors=[...])"
        if isinstance(config, type):
            hint = f"did you mean {config.__name__}()?"
    raise ConfigurationError(
        f"expected a Config, received {_kind(config)}: {hint}; see 'Configuration' in the user guide"
    )


# -- the checks


def _kind(value: object) -> str:
    names = {dict: "a dictionary", list: "a list", str: "text", type(None): "None"}
    return names.get(type(value), f"an object of type {type(value).__name__}")


def _executors(given: Iterable[AnyExecutor] | None) -> list[AnyExecutor]:
    if given is None:
        # Imported here: a Config that names its executors does not need it.
        from flow_core.executors.threads import ThreadPoolExecutor

        return [ThreadPoolExecutor()]
    if isinstance(given, (Executor, concurrent.futures.Executor)):
        raise ConfigurationError("executors must be a list: write executors=[...] around the one executor")
    # All three can be iterated over, and would give letters or names as executors.
    if isinstance(given, (str, bytes, dict)) or not isinstance(given, Iterable):
        raise ConfigurationError(f"executors must be a list of executors, not {_kind(given)}")
    return list(given)


def _check_executors(executors: object) -> None:
    if not isinstance(executors, (list, tuple)):
        raise ConfigurationError(f"executors must be a list of executors, not {_kind(executors)}")
    if not executors:
        raise ConfigurationError(
            "executors=[] leaves nothing to run apps on: leave the option out for local threads, or name an executor"
        )
    # Executors of the standard library have no label here: the kernel gives them one that is free.
    labels: set[str] = set()
    for position, executor in enumerate(executors):
        _check_executor(position, executor)
        label = getattr(executor, "label", None)
        if label is None:
            continue
        if not isinstance(label, str) or not label:
            raise ConfigurationError(f"executors[{position}]: its label must be text, not {label!r}")
        # A label is the name of a directory in the run's, and "all" means all executors where apps name labels.
        if label == "all" or "/" in label or label in (".", ".."):
            raise ConfigurationError(f"executors[{position}]: {label!r} cannot be a label; choose a plain word")
        if label in labels:
            raise ConfigurationError(f"two executors have the label {label!r}: give each its own label=")
        labels.add(label)


def _check_executor(position: int, executor: object) -> None:
    if isinstance(executor, type):
        raise ConfigurationError(
            f"executors[{position}] is the class {executor.__name__}: did you mean {executor.__name__}()?"
        )
    if isinstance(executor, (Executor, concurrent.futures.Executor)):
        return
    if not (callable(getattr(executor, "submit", None)) and hasattr(executor, "label")):
        raise ConfigurationError(
            f"executors[{position}] is {_kind(executor)}, which is no executor: it must be one of flow.executors, "
            "a concurrent.futures.Executor, or have label, start, submit and shutdown"
        )


def _check_bool(option: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{option} must be True or False, not {value!r}")


def _check_integer(option: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{option} must be a whole number of at least {least}, not {value!r}")


def _check_seconds(option: str, value: object, *, above_0: bool = False) -> None:
    # True and False are ints to Python, and mean a slip here.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not isinstance(value, (int, float)) or math.isnan(value) or value < 0 or (above_0 and value == 0):
        least = "above 0" if above_0 else "of at least 0"
        raise ConfigurationError(f"{option} must be a number of seconds {least}, not {value!r}")


def _check_choice(option: str, value: object, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        known = tuple(choice for choice in choices if choice is not None)
        raise ConfigurationError(f"{option} cannot be {value!r}{did_you_mean(value, known)}")


def _check_period(value: str | float | None) -> None:
    if value is not None:
        period_seconds(value)


def _check_checkpoint_files(value: object) -> None:
    if value is None:
        return
    if isinstance(value, (str, os.PathLike)) or not isinstance(value, Sequence):
        raise ConfigurationError(f"checkpoint_files must be a list of directories, not {value!r}")
    for item in value:
        if not isinstance(item, (str, os.PathLike)):
            raise ConfigurationError(f"checkpoint_files must hold directories as paths, not {item!r}")


def _check_users(option: str, value: object) -> None:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ConfigurationError(f"{option} must be a list of users, not {value!r}: [{value!r}]")
    for user in value:
        if isinstance(user, bool) or not isinstance(user, (str, int)):
            raise ConfigurationError(f"{option} must hold users by name or number, not {user!r}")
    # Looked up now, since a name that is no user would only show when a checkpoint is read.
    owners(value)


def _check_strategy(value: object) -> None:
    if value is None or callable(value):
        return
    if value not in STRATEGIES:
        raise ConfigurationError(f"strategy cannot be {value!r}{did_you_mean(value, STRATEGIES)}, or a function")


def _check_texts(config: Config) -> None:
    if not isinstance(config.run_dir, (str, os.PathLike)) or not os.fspath(config.run_dir):
        raise ConfigurationError(f"run_dir must be a path, not {config.run_dir!r}")
    for option in ("name", "usage_address"):
        value = getattr(config, option)
        if value is not None and (not isinstance(value, str) or not value):
            raise ConfigurationError(f"{option} must be text or None, not {value!r}")


def _check_callables(config: Config) -> None:
    for option in ("retry_handler", "dependency_resolver", "executor_chooser"):
        value = getattr(config, option)
        if value is not None and not callable(value):
            raise ConfigurationError(f"{option} must be a function or None, not {value!r}")


def _check_plugins(config: Config) -> None:
    sinks: object = config.sinks
    if isinstance(sinks, str) or not isinstance(sinks, Sequence):
        raise ConfigurationError(f"sinks must be a list of event sinks, not {_kind(sinks)}")
    named = [("monitoring", config.monitoring)] if config.monitoring is not None else []
    for option, sink in [*named, *((f"sinks[{index}]", sink) for index, sink in enumerate(sinks))]:
        _check_methods(option, sink, "an event sink", ("start", "emit", "close"))
        _check_wants(option, sink)
    if config.memoizer is not None:
        _check_methods("memoizer", config.memoizer, "a memoizer", tuple(sorted(Memoizer.__abstractmethods__)))
    _check_staging("staging", config.staging)
    for position, executor in enumerate(config.executors):
        _check_staging(f"executors[{position}]: storage_access", getattr(executor, "storage_access", None))


def _check_wants(option: str, sink: object) -> None:
    """Check that a sink says which events it wants, now or by the time it is started."""
    kinds = [vars(kind) for kind in type(sink).__mro__]  # it is not asked: a property may do anything
    declared = any("wants" in kind or "wants" in kind.get("__annotations__", ()) for kind in kinds)
    if not declared and attribute(sink, "wants") is None:
        raise ConfigurationError(
            f"{option} must be an event sink, not {_kind(sink)}: it has no wants, the EventKinds that it takes"
        )


def _check_staging(option: str, methods: object) -> None:
    if methods is None:
        return
    if isinstance(methods, str) or not isinstance(methods, Sequence):
        raise ConfigurationError(f"{option} must be a list of staging methods, not {_kind(methods)}")
    named = (name for name, value in vars(Staging).items() if callable(value) and not name.startswith("_"))
    # The three that are left out are optional: the protocol has defaults for them.
    needed = tuple(name for name in named if name not in ("look", "pin", "wrong_with"))
    for index, method in enumerate(methods):
        _check_methods(f"{option}[{index}]", method, "a staging method", needed)


def _check_methods(option: str, value: object, what: str, methods: tuple[str, ...]) -> None:
    if isinstance(value, type):
        raise ConfigurationError(f"{option} is the class {value.__name__}: did you mean {value.__name__}()?")
    missing = [method for method in methods if not callable(attribute(value, method))]
    if missing:
        raise ConfigurationError(f"{option} must be {what}, not {_kind(value)}: it has no {', '.join(missing)}()")

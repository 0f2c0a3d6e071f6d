"""Configuration of a run. Options are checked here, so that every error names the option and says what to do."""

from __future__ import annotations

import concurrent.futures
import copy
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, get_args

from flow_core.apps.definition import StdStream
from flow_core.apps.special import LONGEST_S
from flow_core.checkpoint.period import period_seconds
from flow_core.config_effects import ineffective_options
from flow_core.errors import ConfigurationError
from flow_core.guard import attribute
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.memoizer import Memoizer
from flow_core.interfaces.scaling import Strategy
from flow_core.interfaces.sinks import EventSink
from flow_core.interfaces.staging import Staging
from flow_core.observe.logging import LEVELS, wrong_format
from flow_core.option_names import did_you_mean
from flow_core.option_records import Check, about, documented, options_of
from flow_core.own_files import owners
from flow_core.representation import expression, html_text
from flow_core.without_effect import warn_of

CheckpointMode = Literal["task_exit", "periodic", "dfk_exit", "manual"]
ExitMode = Literal["cleanup", "skip", "wait"]
LogLevel = int | Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
ConflictMode = Literal["warn", "refuse", "allow"]
UnseenMode = Literal["report", "raise", "ignore"]
RunDirMode = Literal["private", "group", "umask"]

RetryHandler = Callable[..., float]
"""``handler(exception, task: TaskView) -> cost``: what one failure takes off the task's ``retries``; 1 is usual."""

DependencyResolver = Callable[..., object]
"""Finds and replaces futures in arguments; ``None`` looks at arguments themselves and into ``inputs``."""

ExecutorChooser = Callable[..., str]
"""``chooser(labels, task: TaskView) -> label``: which of several allowed executors runs a task; ``None`` at random."""

StdAutopath = Callable[..., StdStream]
"""``autopath(task: TaskView, stream) -> path``: the file of AUTO_LOGNAME for ``"stdout"`` or ``"stderr"``."""

AnyExecutor = Executor | concurrent.futures.Executor
"""Items of ``executors=``; besides, objects with ``label``, ``start()``, ``submit(func, *args, **kwargs)`` that
gives a Future, and ``shutdown()`` are taken."""

STRATEGIES: Final = ("none", "simple", "htex_auto_scale")


# -- the checks of options: each returns what is wrong with a value, to follow the option's name, or nothing.
# The value is in the text, since some name a part of it alone.


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


def _check_executors(executors: object) -> str:
    """Raise ConfigurationError unless they are executors, with labels that differ."""
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
    return ""


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


def _or_none(check: Check) -> Check:
    return lambda value: "" if value is None else check(value)


def _truth(value: object) -> str:
    return "" if isinstance(value, bool) else f"must be True or False, not {value!r}"


def _whole(least: int) -> Check:
    """Return a check for whole numbers of at least one; True and False are ints to Python, and mean a slip here."""
    return lambda value: (
        f"must be a whole number of at least {least}, not {value!r}"
        if isinstance(value, bool) or not isinstance(value, int) or value < least
        else ""
    )


def _seconds(*, above_0: bool = False, most: float = math.inf) -> Check:
    def check(value: object) -> str:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not isinstance(value, (int, float)) or not (value > 0 if above_0 else value >= 0):
            return f"must be a number of seconds {'above 0' if above_0 else 'of at least 0'}, not {value!r}"
        return f"must be at most {most:.0e} s, not {value!r}" if value > most else ""

    return check


def _choice(kind: object) -> Check:
    """Return a check for one of a Literal."""
    known = get_args(kind)
    return lambda value: "" if _among(value, known) else f"cannot be {value!r}{did_you_mean(value, known)}"


def _among(value: object, known: tuple[object, ...]) -> bool:
    """Return whether it is one of them; an array, which has no one truth, is not even compared."""
    return any(isinstance(value, type(one)) and value == one for one in known)


def _period(value: object) -> str:
    """Raise ConfigurationError unless it is a time."""
    period_seconds(value)  # type: ignore[arg-type]  # it refuses everything else
    return ""


def _directories(value: object) -> str:
    if isinstance(value, (str, os.PathLike)) or not isinstance(value, Sequence):
        return f"must be a list of directories, not {value!r}"
    wrong = [item for item in value if not isinstance(item, (str, os.PathLike))]
    return f"must hold directories as paths, not {wrong[0]!r}" if wrong else ""


def _users(value: object) -> str:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return f"must be a list of users, not {value!r}: [{value!r}]"
    wrong = [user for user in value if isinstance(user, bool) or not isinstance(user, (str, int))]
    if wrong:
        return f"must hold users by name or number, not {wrong[0]!r}"
    # Looked up now, since a name that is no user would only show when a checkpoint is read.
    owners(value)
    return ""


def _strategy(value: object) -> str:
    if value is None or callable(value) or _among(value, STRATEGIES):
        return ""
    return f"cannot be {value!r}{did_you_mean(value, STRATEGIES)}, or a function"


def _path(value: object) -> str:
    return "" if isinstance(value, (str, os.PathLike)) and os.fspath(value) else f"must be a path, not {value!r}"


def _text(value: object) -> str:
    return "" if isinstance(value, str) and value else f"must be text or None, not {value!r}"


def _log_format(value: object) -> str:
    return wrong_format(value) if isinstance(value, str) else f"cannot be {value!r}; did you mean 'text'?"


def _log_level(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return ""
    if isinstance(value, str) and value in LEVELS:
        return ""
    return f"cannot be {value!r}{did_you_mean(value, LEVELS)}, or a number above 0"


def _function(value: object) -> str:
    return "" if callable(value) else f"must be a function or None, not {value!r}"


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


@documented
class Config(_KnownOptions):
    """Configuration of a run: where and how a program runs. Loading it does not change it; it may be loaded again.

    Options are attributes of the same name, which may be changed until the Config is loaded. ``repr`` gives an
    expression that makes an equal one.

    Raises:
        ConfigurationError: an option is unknown or has an impossible value.
    """

    def __init__(
        self,
        executors: Annotated[
            Iterable[AnyExecutor] | None,
            about(
                "What runs the apps; None means one ThreadPoolExecutor labelled ``threads``. Labels must differ.",
                _check_executors,
            ),
        ] = None,
        app_cache: Annotated[
            bool, about("Whether apps with ``cache=True`` are memoized (and checkpointed) at all.", _truth)
        ] = True,
        checkpoint_files: Annotated[
            Sequence[str | os.PathLike[str]] | None,
            about(
                "Directories of checkpoints to start from, as given by ``get_all_checkpoints()``.",
                _or_none(_directories),
            ),
        ] = None,
        checkpoint_mode: Annotated[
            CheckpointMode | None,
            about(
                "When results are written to a checkpoint: ``task_exit``, ``periodic``, ``dfk_exit``, "
                "``manual`` (by ``dfk.checkpoint()`` only); None is manual too.",
                _or_none(_choice(CheckpointMode)),
            ),
        ] = None,
        checkpoint_period: Annotated[
            str | float | None,
            about(
                'Time between two checkpoints in mode ``periodic``, as ``"HH:MM:SS"`` or seconds.', _or_none(_period)
            ),
        ] = None,
        data_management_max_threads: Annotated[
            int | None,
            about(
                "How many tasks' files are moved at once on the submit side from or to one host; None means as many as "
                "their staging method moves at once (its ``threads``), 10 where that does not say.",
                _or_none(_whole(1)),
            ),
        ] = None,
        initialize_logging: Annotated[
            bool, about("Whether ``flow.log`` is written in the run's directory.", _truth)
        ] = True,
        lazy_errors: Annotated[
            bool,
            about(
                "Whether the rest of the program goes on when a task fails. With False the first failure is "
                "raised by the next call of an app.",
                _truth,
            ),
        ] = True,
        max_idletime: Annotated[
            float, about("Seconds after which an idle block may be given back.", _seconds())
        ] = 120.0,
        monitoring: Annotated[EventSink | None, about("A sink of events such as a MonitoringHub, or None.")] = None,
        retries: Annotated[
            int, about("How often a failed task is tried again. Tries lost with a machine do not count.", _whole(0))
        ] = 0,
        run_dir: Annotated[
            str | os.PathLike[str], about("Directory in which each run makes its own numbered one.", _path)
        ] = "runinfo",
        strategy: Annotated[
            str | Strategy | None,
            about(
                "How executors scale: ``simple``, ``htex_auto_scale``, ``none`` (None), or a function from "
                "ScalingView to blocks to add or release.",
                _strategy,
            ),
        ] = "simple",
        strategy_period: Annotated[
            float, about("Seconds between two looks of the strategy.", _seconds(above_0=True, most=LONGEST_S))
        ] = 5,
        usage_tracking: Annotated[
            bool, about("Whether anonymous usage is sent to ``usage_address``. Off by default.", _truth)
        ] = False,
        usage_address: Annotated[
            str | None,
            about(
                "``host:port`` that usage goes to by UDP; None means that of ``FLOW_TRACKING_ADDRESS``.",
                _or_none(_text),
            ),
        ] = None,
        retry_handler: Annotated[
            RetryHandler | None, about("Gives the cost of a failure; None means 1 each.", _or_none(_function))
        ] = None,
        infrastructure_retries: Annotated[
            int, about("How often a try lost with its worker, node or block is made again.", _whole(0))
        ] = 5,
        max_worker_kills: Annotated[
            int, about("After how many workers that died under it a task is stopped and named.", _whole(1))
        ] = 3,
        max_pending: Annotated[
            int | None,
            about(
                "How many unfinished tasks there may be before a call of an app blocks; None is no limit.",
                _or_none(_whole(1)),
            ),
        ] = None,
        exit_mode: Annotated[
            ExitMode,
            about(
                "What leaving ``with flow.load(config):`` normally does: ``cleanup`` cancels what is "
                "unfinished, ``wait`` waits for all tasks first, ``skip`` leaves the kernel running and loaded, until "
                "``flow.clear()`` or the end of the script. After an exception it is always ``cleanup``.",
                _choice(ExitMode),
            ),
        ] = "cleanup",
        memoizer: Annotated[Memoizer | None, about("A Memoizer that replaces the built-in one.")] = None,
        dependency_resolver: Annotated[
            DependencyResolver | None,
            about("How futures are found in arguments; None means in arguments and ``inputs``.", _or_none(_function)),
        ] = None,
        executor_chooser: Annotated[
            ExecutorChooser | None,
            about("Chooses among the executors that may run a task; None means at random.", _or_none(_function)),
        ] = None,
        sinks: Annotated[Sequence[EventSink], about("More sinks of events.")] = (),
        log_format: Annotated[
            str,
            about(
                "Lines of ``flow.log``: ``text``, ``json`` (one object a line), or a format of the logging module.",
                _log_format,
            ),
        ] = "text",
        name: Annotated[str | None, about("Name of the workflow; None means the script's.", _or_none(_text))] = None,
        staging: Annotated[
            Sequence[Staging] | None,
            about("Staging methods that replace the defaults for executors without their own."),
        ] = None,
        unseen_failures: Annotated[
            UnseenMode,
            about(
                "What becomes of failures that nobody looked at (see docs/errors.md): ``report`` tells of "
                "them on standard error when the script ends, ``raise`` raises UnseenFailures where the run "
                "ends, ``ignore`` does neither.",
                _choice(UnseenMode),
            ),
        ] = "report",
        output_conflicts: Annotated[
            ConflictMode,
            about(
                "What becomes of a call that declares an output of an unfinished task which it does not wait "
                "for: ``warn`` logs a warning, ``refuse`` raises OutputConflict, ``allow`` says nothing.",
                _choice(ConflictMode),
            ),
        ] = "warn",
        run_dir_mode: Annotated[
            RunDirMode,
            about(
                "Who may look into the directories of runs: ``private`` the user alone, ``group`` the user's "
                "group too, ``umask`` those whom the umask lets. Nobody else may write there, and keys are "
                "closed, in any case.",
                _choice(RunDirMode),
            ),
        ] = "private",
        trust_owner: Annotated[
            Sequence[str | int],
            about(
                "Users, by name or number, whose checkpoints are read, too, and in whose directory runs may "
                "have theirs: reading a checkpoint runs what its writer put in.",
                _users,
            ),
        ] = (),
        hook_timeout: Annotated[
            float | None,
            about(
                "Seconds after which a hook of the user's that has not returned (a retry handler, a chooser, "
                "a resolver, a method of a memoizer, of a staging method or of an executor) is not waited for"
                " any more: its task fails with HookError, or goes on without it (see docs/errors.md). None "
                "waits for ever.",
                _or_none(_seconds(above_0=True)),
            ),
        ] = 600.0,
        warn_before_end_s: Annotated[
            float | None,
            about(
                "Seconds before the end of its block at which each call is told of it, of apps that do not say "
                "how long before; all executors must honour that. None: those apps are not told.",
                _or_none(_seconds(above_0=True, most=LONGEST_S)),
            ),
        ] = None,
        log_level: Annotated[
            LogLevel,
            about(
                "Least level of lines in ``flow.log``, by name or number of the logging module; with ``DEBUG`` "
                "each task has a line.",
                _log_level,
            ),
        ] = "INFO",
        std_autopath: Annotated[
            StdAutopath | None,
            about(
                "Names the files of ``AUTO_LOGNAME``; None means ``task_logs/NNNN/task_NNNN_app[_label].stdout`` in "
                "the directory of the run.",
                _or_none(_function),
            ),
        ] = None,
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
        self.warn_before_end_s = warn_before_end_s
        self.log_level = log_level
        self.std_autopath = std_autopath
        # Here too, so that the error shows the line of the script that made the Config; ``load`` checks once more.
        self.validate()
        warn_of("Config", ineffective_options(self))

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
        for option in _OPTIONS:
            if option.check is not None and (wrong := option.check(getattr(self, option.name))):
                raise ConfigurationError(f"{option.name} {wrong}")
        _check_plugins(self)

    def __repr__(self) -> str:
        return expression(self, self._options)

    def _repr_html_(self) -> str:
        return html_text(repr(self))


_OPTIONS: Final = tuple(options_of(Config))
Config._options = tuple(option.name for option in _OPTIONS)


def checked_executors(given: Iterable[AnyExecutor]) -> list[AnyExecutor]:
    """Return executors that are to be added to those of a Config. Raises ConfigurationError: one is none."""
    executors = _executors(given)
    _check_executors(executors)
    _check_storage_access(executors)
    return executors


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


# -- the checks that need more than one option


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
    _check_storage_access(config.executors)


def _check_storage_access(executors: Sequence[AnyExecutor]) -> None:
    for position, executor in enumerate(executors):
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

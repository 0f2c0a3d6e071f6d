"""Apps: functions whose call makes a task and gives a future at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import update_wrapper
from inspect import iscoroutinefunction
from types import MethodType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, ParamSpec, Self, TypedDict, TypeVar, cast, overload

from flow_core import active
from flow_core.active import Submitter
from flow_core.apps.definition import (
    CACHE_FILES,
    CACHE_GLOBALS,
    NO_OPTIONS,
    SNAPSHOTS,
    AppDefinition,
    AppKind,
    CallOptions,
    StdStream,
)
from flow_core.apps.fitting import Fitting
from flow_core.apps.parameters import Parameters, checked_outputs, parameters_of
from flow_core.apps.special import (
    SPECIAL_KEYWORDS,
    check_grows,
    checked_growth,
    checked_signal,
    checked_stream,
    task_spec,
)
from flow_core.errors import ConfigurationError, FlowError, InvalidAppTypeError
from flow_core.interfaces.call import DEFAULT_SPEC
from flow_core.interfaces.container import Container
from flow_core.interfaces.memoizer import AppIdentity
from flow_core.option_names import did_you_mean, known_options
from flow_core.option_records import about, documented

if TYPE_CHECKING:
    from flow_core.files import File
    from flow_core.futures.app_future import AppFuture

P = ParamSpec("P")
R = TypeVar("R")

Executors = str | Iterable[str]
"""``"all"``, one label, or several labels of executors."""

# The options of apps: each stands here with its type and its documentation, and in the constructor with its default.
KernelOption = Annotated[
    Submitter | None, about("The kernel that runs the calls; None means the one loaded when the app is called.")
]
WalltimeOption = Annotated[
    float | None, about("Seconds after which a call is ended with AppTimeout; None means no limit.")
]
ExecutorsOption = Annotated[Executors, about('``"all"``, or the labels of the executors that may run it.')]
CacheOption = Annotated[bool, about("Whether results are memoized.")]
IgnoreOption = Annotated[Iterable[str] | None, about("Names of parameters that do not make two calls different.")]
RerunOption = Annotated[bool, about("Whether a try that was lost with its worker may be run again.")]
SnapshotOption = Annotated[
    str,
    about(
        'When what the function names is looked at, for executors in other processes and for the cache: ``"call"``, at '
        'each call, of large values of uncached apps only samples; ``"whole"``, at each call all; ``"once"``, at the '
        "first call of a run."
    ),
]
CacheFilesOption = Annotated[
    str,
    about(
        'What of the Files that a cached call reads makes it another call: ``"contents"``, what they hold, or '
        '``"names"``, their names alone.'
    ),
]
CacheGlobalsOption = Annotated[
    str,
    about(
        'Which globals make a cached call another call: ``"all"``, so that no result is remembered where code takes '
        'some by names that show only as it runs, or ``"named"``, those that the code names.'
    ),
]
WarnOption = Annotated[
    float | None,
    about(
        "Seconds before the end of its block at which a call is told of it, so that it can save its work; None means "
        "that it is not told."
    ),
]
WarnSignalOption = Annotated[
    str | int | None,
    about('Signal by which the command of a bash app is told so, by name or number; None means ``"SIGTERM"``.'),
]
GrowthOption = Annotated[
    Mapping[str, float] | None,
    about(
        'Factors by which what ran out grows before a try is repeated, such as ``{"memory": 2, "walltime": 1.5}``, '
        "up to what the executor's nodes and blocks have; None means that nothing grows."
    ),
]


RanksOption = Annotated[int | None, about("MPI ranks, anywhere in one block; beside ``nodes`` all of them.")]
NodesOption = Annotated[int | None, about("Nodes of one block, over which the ranks are spread evenly.")]
RanksPerNodeOption = Annotated[int | None, about("Ranks on each node.")]
CoresPerRankOption = Annotated[float | None, about("Cores of each rank.")]
GpusPerRankOption = Annotated[float | None, about("Accelerators of each rank.")]
ExclusiveOption = Annotated[bool | None, about("Whether the task has its nodes to itself.")]
GatherOption = Annotated[bool, about("Whether the result is the list of what all ranks return, not what rank 0 does.")]


class JoinAppOptions(TypedDict, total=False):
    """The options of join apps, which run in no executor of their own."""

    data_flow_kernel: KernelOption
    walltime: WalltimeOption
    cache: CacheOption
    ignore_for_cache: IgnoreOption
    cache_files: CacheFilesOption
    cache_globals: CacheGlobalsOption


class AppOptions(JoinAppOptions, total=False):
    """The options of python and bash apps."""

    executors: ExecutorsOption
    rerun_on_loss: RerunOption
    snapshot: SnapshotOption
    warn_before_end_s: WarnOption
    grow_on_retry: GrowthOption


class BashAppOptions(AppOptions, total=False):
    """The options of bash apps."""

    warn_signal: WarnSignalOption


class MpiAppOptions(AppOptions, total=False):
    """The options of apps whose function runs on ranks."""

    ranks: RanksOption
    nodes: NodesOption
    ranks_per_node: RanksPerNodeOption
    cores_per_rank: CoresPerRankOption
    gpus_per_rank: GpusPerRankOption
    exclusive: ExclusiveOption
    gather: GatherOption


_KEY_RULES = 1  # a version; part of each app's cache tag; another number makes all remembered results unknown
_UNCACHED = tuple(
    f"{option} has no effect without cache=True" for option in ("ignore_for_cache", "cache_files", "cache_globals")
)
_UNSEEN = ("stdout", "stderr")  # calls that differ only in these are the same call


@documented
class AppBase(Generic[P, R]):
    """A decorated function, ``func``. It keeps its name, signature and docstring; ``__wrapped__`` is the function.

    A call returns an AppFuture at once, from any thread. The kernel is looked up at each call, so apps may be defined
    before any Config is loaded. In a task that runs in a worker process there is no kernel: there a call raises
    NoDataFlowKernelError, and the way is a join app.

    Raises:
        InvalidAppTypeError: ``func`` cannot be an app.
        ConfigurationError: an argument has an impossible value.
    """

    kind: ClassVar[AppKind]
    _example: ClassVar[str] = "@python_app(cache=True)"
    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]

    def __init__(
        self,
        func: Callable[..., object],
        data_flow_kernel: KernelOption = None,
        walltime: WalltimeOption = None,
        executors: ExecutorsOption = "all",
        cache: CacheOption = False,
        ignore_for_cache: IgnoreOption = None,
        rerun_on_loss: RerunOption = True,
        snapshot: SnapshotOption = "call",
        cache_files: CacheFilesOption = "contents",
        cache_globals: CacheGlobalsOption = "all",
        warn_before_end_s: WarnOption = None,
        warn_signal: WarnSignalOption = None,
        grow_on_retry: GrowthOption = None,
    ) -> None:
        _check_function(func, self._example)
        update_wrapper(self, func)
        name = getattr(func, "__name__", type(func).__name__)
        if cache is False:
            given = (ignore_for_cache is not None, cache_files != "contents", cache_globals != "all")
            if any(given):
                # Imported here: nodes load apps, and need no warnings.
                from flow_core.without_effect import warn_of

                warn_of(f"app {name!r}", (_UNCACHED[number] for number, one in enumerate(given) if one))
        if self.kind is AppKind.JOIN:
            _refuse_for_joins(
                name,
                executors=executors != "all",
                rerun_on_loss=rerun_on_loss is False,
                warn_before_end_s=warn_before_end_s is not None,
                grow_on_retry=grow_on_retry is not None,
            )
        if warn_signal is not None and self.kind is not AppKind.BASH:
            raise ConfigurationError(
                f"app {name!r}: warn_signal is for the commands of bash apps; a python app has a function called: "
                "flow.on_block_end"
            )
        self._kernel = data_flow_kernel
        self._walltime = walltime
        self._resources: dict[str, object] = {}
        if warn_before_end_s is not None:
            self._resources["warn_before_end_s"] = warn_before_end_s
        self._parameters = Parameters(func, name, self.kind)
        self._watched = self._parameters.watched
        self._definition = AppDefinition(
            func=func,
            name=name,
            kind=self.kind,
            executors=_labels(executors, name),
            cache=_boolean("cache", cache, name),
            identity=_identity(func, name, self.kind, ignore_for_cache),
            rerun_on_loss=_boolean("rerun_on_loss", rerun_on_loss, name),
            takes=self._parameters.takes,
            snapshot=_one_of(SNAPSHOTS, "snapshot", snapshot, name),
            cache_files=_one_of(CACHE_FILES, "cache_files", cache_files, name),
            cache_globals=_one_of(CACHE_GLOBALS, "cache_globals", cache_globals, name),
            warn_signal=checked_signal(warn_signal, name),
            growth=checked_growth(grow_on_retry, name),
        )
        spec = task_spec(name, walltime, self._resources)
        self._options = NO_OPTIONS if spec is DEFAULT_SPEC else CallOptions(spec=spec)
        # Calls of apps that grow are looked at: they must say what there is to grow.
        self._plain = self._parameters.plain and not self._definition.growth
        # What each call asks is bound to attributes of the app: a look through another object costs each of them.
        self._fitting = Fitting(func, name, self._parameters.special)
        self._least, self._most, self._fits = self._fitting.least, self._fitting.most, self._fitting.fits

    @property
    def definition(self) -> AppDefinition:
        """The definition of this app, which the kernel gets with each call."""
        return self._definition

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> AppFuture[R]: ...
    @overload
    def __call__(self, /, *args: Any, **kwargs: Any) -> AppFuture[R]: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> AppFuture[R]:
        """Make a task of one call; any argument may be a future.

        Besides the function's own parameters it takes ``inputs``, ``outputs``, ``stdout``, ``stderr``, ``walltime``,
        ``label`` and ``resource_specification``.

        Raises:
            NoDataFlowKernelError: no Config is loaded.
            ConfigurationError: a special keyword has an impossible value, or an executor is not known.
            TaskRefused: it asks for what its executors do not honour.
            TypeError: the arguments do not fit the function.
        """
        # Looked up at each call: apps are defined at import, before any Config is loaded.
        kernel = self._kernel or active.kernel or active.get_active()
        options = self._options
        # Calls with positional arguments alone, which are most, pay for two comparisons here.
        if kwargs or not self._plain or not self._least <= len(args) <= self._most:
            if (len(args), *kwargs) not in self._fits:
                wrong = self._fitting.error(args, kwargs)
                if wrong is not None:
                    raise wrong
            if not (self._plain and self._watched.isdisjoint(kwargs)):
                args, kwargs, options = self._parameters.read(args, kwargs, options, self._walltime, self._resources)
                if self._definition.growth:
                    check_grows(self._definition, options.spec)
        # not cast(), which is a call: the module of the active kernel is below apps and cannot name AppFuture
        try:
            return kernel.submit_call(self._definition, args, kwargs, options)  # type: ignore[return-value]
        except FlowError as error:
            from flow_core.remote.tracebacks import fold

            fold(error)  # the caller's own line is what matters
            raise

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., AppFuture[R]]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Self | Callable[..., AppFuture[R]]:
        return self if instance is None else MethodType(self, instance)

    @known_options
    def options(
        self,
        *,
        walltime: float | None = None,
        label: str | None = None,
        resource_specification: Mapping[str, object] | None = None,
        executors: Executors | None = None,
        environment: Mapping[str, str] | None = None,
        container: str | Container | None = None,
        priority: int | None = None,
        warn_before_end_s: float | None = None,
        stdout: StdStream | None = None,
        stderr: StdStream | None = None,
        outputs: Sequence[str | os.PathLike[str] | File] | None = None,
    ) -> Self:
        """Return the same app with other settings for its calls; None leaves a setting as it is.

        These are always Flow's, also where the function has parameters of these names. Keywords of a call come first.

        Raises:
            ConfigurationError: a setting has an impossible value.
            BadStdStreamFile: the same of a stream.
        """
        name = self._definition.name
        if self.kind is AppKind.JOIN:
            _refuse_for_joins(name, executors=executors is not None, warn_before_end_s=warn_before_end_s is not None)
        extras = {
            "environment": environment,
            "container": container,
            "priority": priority,
            "warn_before_end_s": warn_before_end_s,
        }
        resources = {**self._resources, **(resource_specification or {})}
        resources.update({key: value for key, value in extras.items() if value is not None})
        before = self._options
        twin = self._twin()
        twin._walltime = self._walltime if walltime is None else walltime
        twin._resources = resources
        twin._options = CallOptions(
            spec=self._parameters.spec(twin._walltime, resources),
            outputs=before.outputs if outputs is None else checked_outputs(outputs, name),
            stdout=before.stdout if stdout is None else checked_stream(stdout, "stdout", name),
            stderr=before.stderr if stderr is None else checked_stream(stderr, "stderr", name),
            label=before.label if label is None else label,
            executors=before.executors if executors is None else _labels(executors, name) or ("all",),
        )
        files = (twin._options.stdout, twin._options.stderr, *twin._options.outputs)
        twin._plain = self._plain and files == (None, None)
        return twin

    def of_kernel(self, kernel: Submitter) -> Self:
        """Return the same app, whose calls that kernel runs."""
        twin = self._twin()
        twin._kernel = kernel
        return twin

    def _twin(self) -> Self:
        twin = type(self).__new__(type(self))
        # Not by __init__: the function was looked at, and options checked, when the app was made.
        twin.__dict__.update(self.__dict__)
        return twin

    def __repr__(self) -> str:
        return f"<{self.kind.value}_app {self._definition.identity.name}>"

    def __reduce__(self) -> str | tuple[object, ...]:
        """Travel by name where the name leads here, else with the function but without the kernel."""
        module = sys.modules.get(self.__module__) if self.__module__ != "__main__" else None
        found: object = module
        for part in self.__qualname__.split("."):
            found = getattr(found, part, None)
        # By name, so that a worker uses its own module's app and the function is not sent.
        if found is self and not _by_value(self.__module__):
            return self.__qualname__
        # A kernel has threads and sockets, and means nothing in another process.
        return _blank, (type(self),), {**self.__dict__, "_kernel": None}


def _by_value(module: str) -> bool:
    """Return whether what is of a module travels by value: it, or a package that it is in, is registered for that."""
    cloudpickle = sys.modules.get("cloudpickle")
    registered = cloudpickle.list_registry_pickle_by_value() if cloudpickle is not None else ()
    while registered and module:
        if module in registered:
            return True
        module = module.rpartition(".")[0]
    return False


class PythonApp(AppBase[P, R]):
    """An app that is a Python function; the future holds what it returns."""

    kind = AppKind.PYTHON


class MpiApp(PythonApp[P, R]):
    """A Python function that runs on every rank of its task, where ``mpi4py.MPI.COMM_WORLD`` is the task's own.

    The future holds what rank 0 returns, or with ``gather`` the list of what all return. What a rank raises ends all.
    """

    _example = "@mpi_app(ranks=2)"

    def __init__(
        self,
        func: Callable[..., object],
        ranks: RanksOption = None,
        nodes: NodesOption = None,
        ranks_per_node: RanksPerNodeOption = None,
        cores_per_rank: CoresPerRankOption = None,
        gpus_per_rank: GpusPerRankOption = None,
        exclusive: ExclusiveOption = None,
        gather: GatherOption = False,
        **options: Any,
    ) -> None:
        super().__init__(func, **options)
        name = self._definition.name
        if "warn_before_end_s" in self._resources:
            raise ConfigurationError(
                f"app {name!r}: warn_before_end_s means nothing for a function that runs on ranks, which cannot be "
                "told that their block ends; have a bash app run the ranks, whose command gets a signal"
            )
        gathers = _boolean("gather", gather, name)
        identity = self._definition.identity
        # Remembered results of both are not the same.
        identity = replace(identity, cache_tag=f"{identity.cache_tag}:{'ranks' if gathers else 'rank 0'}")
        self._definition = replace(self._definition, gather=gathers, identity=identity)
        asked = {
            "ranks": ranks,
            "nodes": nodes,
            "ranks_per_node": ranks_per_node,
            "cores_per_rank": cores_per_rank,
            "gpus_per_rank": gpus_per_rank,
            "exclusive": exclusive,
        }
        self._resources |= {key: value for key, value in asked.items() if value is not None}
        # One rank where none are asked for: a function that was written for ranks needs MPI in any case.
        self._parameters.on_ranks = True
        self._options = replace(self._options, spec=self._parameters.spec(self._walltime, self._resources))


class BashApp(AppBase[P, R]):
    """An app whose function returns a command line for bash; the future holds 0."""

    kind = AppKind.BASH
    _example = "@bash_app(cache=True)"


class JoinApp(AppBase[P, R]):
    """An app whose function calls apps and returns their futures; the future holds their results.

    The function runs in the process of the kernel. It may return a future, or a list, tuple or dict of futures and
    values, nested.
    """

    kind = AppKind.JOIN


def _blank(cls: type[AppBase[..., Any]]) -> AppBase[..., Any]:
    return cls.__new__(cls)


def _check_function(func: object, example: str) -> None:
    if isinstance(func, AppBase):
        raise InvalidAppTypeError(f"{func!r} is an app already: decorate a function once")
    if not callable(func):
        raise InvalidAppTypeError(
            f"an app is made of a function, not of {func!r}; options are given by name, such as {example}"
        )
    if isinstance(func, (staticmethod, classmethod)):
        raise InvalidAppTypeError("put @staticmethod above the app's decorator, not below it")
    if iscoroutinefunction(func):
        raise InvalidAppTypeError(f"{func!r} is an async function: an app is made of an ordinary one")


def _labels(executors: object, app: str) -> tuple[str, ...] | None:
    if executors == "all" or executors is None:
        return None
    labels = (executors,) if isinstance(executors, str) else executors
    if not isinstance(labels, Iterable):
        raise ConfigurationError(f"app {app!r}: executors must be 'all' or a list of labels, not {executors!r}")
    chosen = tuple(dict.fromkeys(labels))
    if not chosen or not all(isinstance(label, str) and label for label in chosen):
        raise ConfigurationError(f"app {app!r}: executors must be 'all' or a list of labels, not {executors!r}")
    return None if "all" in chosen else cast("tuple[str, ...]", chosen)


def _refuse_for_joins(app: str, **given: bool) -> None:
    for option, is_given in given.items():
        if is_given:
            raise ConfigurationError(
                f"app {app!r}: {option} means nothing for a join app, whose function runs in the script's own process; "
                "give it to the apps that it calls"
            )


def _boolean(option: str, value: object, app: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"app {app!r}: {option} must be True or False, not {value!r}")
    return value


def _one_of(known: Sequence[str], option: str, value: object, app: str) -> str:
    if not isinstance(value, str) or value not in known:
        names = ", ".join(map(repr, known))
        raise ConfigurationError(f"app {app!r}: {option} must be one of {names}, not {value!r}")
    return value


def _ignored(func: Callable[..., object], app: str, ignore: Iterable[str] | None) -> tuple[str, ...]:
    """Return the names in ``ignore_for_cache``, all of which must be of parameters: others would change nothing."""
    if ignore is None:
        return ()
    if isinstance(ignore, str) or not isinstance(ignore, Iterable):
        raise ConfigurationError(f"app {app!r}: ignore_for_cache must be a list of parameter names, not {ignore!r}")
    names = tuple(ignore)
    known = parameters_of(func)
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f"app {app!r}: ignore_for_cache must hold names of parameters, not {name!r}")
        if known is not None and name not in known and name not in SPECIAL_KEYWORDS:
            raise ConfigurationError(
                f"app {app!r}: ignore_for_cache names {name!r}, which is no parameter of it{did_you_mean(name, known)}"
            )
    return names


def _identity(func: Callable[..., object], name: str, kind: AppKind, ignore: Iterable[str] | None) -> AppIdentity:
    # As a dict, since the order in which the user named them is kept and each counts once.
    ignored = dict.fromkeys((*_ignored(func, name, ignore), *_UNSEEN))
    module = getattr(func, "__module__", "") or ""
    qualname = getattr(func, "__qualname__", name)
    return AppIdentity(
        name=f"{module}.{qualname}" if module else qualname,
        func=func,
        cache_tag=f"{kind.value}:{_KEY_RULES}",
        ignore=tuple(ignored),
    )

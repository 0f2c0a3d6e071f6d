"""Decorators that make apps of functions, with and without parentheses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, Unpack, overload

from flow_core.apps.app import (
    AppBase,
    AppOptions,
    BashApp,
    BashAppOptions,
    Executors,
    JoinApp,
    JoinAppOptions,
    MpiApp,
    MpiAppOptions,
    PythonApp,
)
from flow_core.errors import InvalidAppTypeError
from flow_core.option_names import known_options

if TYPE_CHECKING:
    from concurrent.futures import Future

    from flow_core.active import Submitter

P = ParamSpec("P")
R = TypeVar("R")
K = TypeVar("K")


# Protocols with a generic __call__, since a Callable would fix the function's types when the options are given.
class MakesPythonApp(Protocol):
    """The decorator that ``python_app(...)`` with options returns."""

    def __call__(self, function: Callable[P, R], /) -> PythonApp[P, R]:
        """Return the app of a function. Raises InvalidAppTypeError, ConfigurationError as AppBase does."""
        ...


class MakesMpiApp(Protocol):
    """The decorator that ``mpi_app(...)`` with options returns."""

    def __call__(self, function: Callable[P, R], /) -> MpiApp[P, R]:
        """Return the app of a function. Raises InvalidAppTypeError, ConfigurationError as AppBase does."""
        ...


class MakesBashApp(Protocol):
    """The decorator that ``bash_app(...)`` with options returns."""

    def __call__(self, function: Callable[P, object], /) -> BashApp[P, int]:
        """Return the app of a function. Raises InvalidAppTypeError, ConfigurationError as AppBase does."""
        ...


class MakesJoinApp(Protocol):
    """The decorator that ``join_app(...)`` with options returns."""

    @overload
    def __call__(self, function: Callable[P, Future[R]], /) -> JoinApp[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # a tuple is a Sequence too; the first match decides
        self, function: Callable[P, tuple[Future[R], ...]], /
    ) -> JoinApp[P, tuple[R, ...]]: ...
    @overload
    def __call__(self, function: Callable[P, Sequence[Future[R]]], /) -> JoinApp[P, list[R]]: ...
    @overload
    def __call__(self, function: Callable[P, Mapping[K, Future[R]]], /) -> JoinApp[P, dict[K, R]]: ...
    @overload
    def __call__(self, function: Callable[P, object], /) -> JoinApp[P, Any]: ...


def _takes(
    options: type[Any], made: type[AppBase[..., Any]] = AppBase, meant: Mapping[str, str] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a decorator show, and take, the options of a record with the defaults of the apps' constructor."""

    def marked(function: Callable[P, R]) -> Callable[P, R]:
        own = next(iter(inspect.signature(function).parameters.values()))
        known = {**inspect.signature(AppBase.__init__).parameters, **inspect.signature(made.__init__).parameters}
        named = [
            known[name].replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name in known
            if name in options.__annotations__
        ]
        function.__signature__ = inspect.Signature([own, *named])  # type: ignore[attr-defined]  # what inspect looks for
        return known_options(function, meant)

    return marked


@overload
def python_app(function: Callable[P, R], /) -> PythonApp[P, R]: ...
@overload
def python_app(
    function: None = None,
    /,
    **options: Unpack[AppOptions],
) -> MakesPythonApp: ...
@_takes(AppOptions)
def python_app(
    function: Callable[P, R] | None = None,
    /,
    **options: Unpack[AppOptions],
) -> Any:
    """Make an app of a Python function; see AppBase for the options."""

    def make(function: Callable[P, R], /) -> PythonApp[P, R]:
        return PythonApp(function, **options)

    return make if function is None else make(function)


@overload
def bash_app(function: Callable[P, object], /) -> BashApp[P, int]: ...
@overload
def bash_app(
    function: None = None,
    /,
    **options: Unpack[BashAppOptions],
) -> MakesBashApp: ...
@_takes(BashAppOptions)
def bash_app(
    function: Callable[P, object] | None = None,
    /,
    **options: Unpack[BashAppOptions],
) -> Any:
    """Make an app of a function that returns a command line for bash; see AppBase for the options."""

    def make(function: Callable[P, object], /) -> BashApp[P, int]:
        return BashApp(function, **options)

    return make if function is None else make(function)


@overload
def join_app(function: Callable[P, Future[R]], /) -> JoinApp[P, R]: ...
@overload
def join_app(  # type: ignore[overload-overlap]  # a tuple is a Sequence too; the first match decides
    function: Callable[P, tuple[Future[R], ...]], /
) -> JoinApp[P, tuple[R, ...]]: ...
@overload
def join_app(function: Callable[P, Sequence[Future[R]]], /) -> JoinApp[P, list[R]]: ...
@overload
def join_app(function: Callable[P, Mapping[K, Future[R]]], /) -> JoinApp[P, dict[K, R]]: ...
@overload
def join_app(function: Callable[P, object], /) -> JoinApp[P, Any]: ...
@overload
def join_app(
    function: None = None,
    /,
    **options: Unpack[JoinAppOptions],
) -> MakesJoinApp: ...
@_takes(JoinAppOptions)
def join_app(
    function: Callable[P, Any] | None = None,
    /,
    **options: Unpack[JoinAppOptions],
) -> Any:
    """Make an app of a function that calls apps and returns their futures; see AppBase for the options."""

    def make(function: Callable[P, Any], /) -> JoinApp[P, Any]:
        return JoinApp(function, **options)

    return make if function is None else make(function)


@overload
def mpi_app(function: Callable[P, R], /) -> MpiApp[P, R]: ...
@overload
def mpi_app(
    function: None = None,
    /,
    **options: Unpack[MpiAppOptions],
) -> MakesMpiApp: ...
@_takes(MpiAppOptions, MpiApp, {"cores": "cores_per_rank", "gpus": "gpus_per_rank"})
def mpi_app(
    function: Callable[P, R] | None = None,
    /,
    **options: Unpack[MpiAppOptions],
) -> Any:
    """Make an app of a Python function that runs on every rank of its task; see MpiApp, and AppBase for the options.

    What it asks for, a ``resource_specification`` of a call replaces key by key.
    """

    def make(function: Callable[P, R], /) -> MpiApp[P, R]:
        return MpiApp(function, **options)

    return make if function is None else make(function)


_KINDS: dict[str, type[AppBase[..., Any]]] = {"python": PythonApp, "bash": BashApp, "join": JoinApp}


def App(  # noqa: N802  (the name scripts know)
    apptype: str,
    data_flow_kernel: Submitter | None = None,
    walltime: float | None = None,
    cache: bool = False,
    executors: Executors = "all",
) -> Callable[[Callable[..., Any]], AppBase[..., Any]]:
    """The decorator of old scripts: ``@App('python')`` or ``@App('bash')``. New ones use python_app and bash_app.

    Raises:
        InvalidAppTypeError: the kind is not known.
    """
    if apptype not in _KINDS:
        raise InvalidAppTypeError(f"there are no apps of type {apptype!r}: use 'python', 'bash' or 'join'")
    cls = _KINDS[apptype]

    def make(function: Callable[..., Any]) -> AppBase[..., Any]:
        return cls(function, data_flow_kernel, walltime, executors, cache)

    return make

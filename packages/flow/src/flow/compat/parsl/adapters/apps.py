"""Decorators and apps with Parsl's arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from flow.compat.parsl.adapters.command_lines import filled_in
from flow.compat.parsl.adapters.errors import InvalidResourceSpecification
from flow.compat.parsl.adapters.futures import AppFuture, as_in_parsl
from flow_core.apps import app as flow_apps
from flow_core.errors import (
    BadStdStreamFile,
    ConfigurationError,
    InvalidAppTypeError,
    NoDataFlowKernelError,
    TaskRefused,
)
from flow_core.interfaces.call import TaskSpec
from flow_core.remote.run import execute

_SPECIFICATION = "parsl_resource_specification"
_DROPPED = ("launcher_options",)


def resources_in_flow(specification: Mapping[str, object]) -> dict[str, object]:
    """Return a resource specification for Flow, where a higher priority runs first and not a lower one."""
    found = {key: value for key, value in specification.items() if key not in _DROPPED}
    priority = found.get("priority")
    if isinstance(priority, int | float):
        found["priority"] = int(-priority)
    return found


def _failed(app: object, error: BaseException) -> AppFuture[Any]:
    """Return the future of a call that could not be made, which in Parsl fails as a task does."""
    future: AppFuture[Any] = AppFuture(-1)
    future.set_exception(error)
    return future


class _App:
    """What the three kinds share; mixed in before Flow's class."""

    _takes_specification = False

    def __init__(
        self,
        func: Callable[..., Any],
        data_flow_kernel: Any = None,
        cache: Any = False,
        executors: Any = "all",
        ignore_for_cache: Sequence[str] | None = None,
        *,
        walltime: float | None = None,
        **more: Any,
    ) -> None:
        if not isinstance(cache, bool) and isinstance(cache, int | float | None):
            # Parsl 0.9: (func, data_flow_kernel, walltime, executors, cache).
            walltime, cache = cache, bool(ignore_for_cache) if isinstance(ignore_for_cache, bool) else False
            ignore_for_cache = None
        options: dict[str, Any] = {"data_flow_kernel": data_flow_kernel, "walltime": walltime, **more}
        options["cache"] = cache
        if cache and ignore_for_cache is not None:
            options["ignore_for_cache"] = ignore_for_cache
        if executors != "all":
            options["executors"] = executors
        super().__init__(func, **options)  # type: ignore[call-arg]  # of the app it is mixed into
        declared = _declared(func, _SPECIFICATION)
        self._takes_specification = declared is not None
        self._specification = declared.default if declared is not None and isinstance(declared.default, Mapping) else {}

    def __call__(self, /, *args: Any, **kwargs: Any) -> AppFuture[Any]:
        """Make a task of one call. What is wrong with the call is raised by its future, as in Parsl."""
        try:
            if self._takes_specification or _SPECIFICATION in kwargs:
                given = (
                    kwargs.get(_SPECIFICATION, self._specification)
                    if self._takes_specification
                    else kwargs.pop(_SPECIFICATION)
                )
                if given:
                    kwargs["resource_specification"] = resources_in_flow(given)
            return as_in_parsl(super().__call__(*args, **kwargs))  # type: ignore[misc]  # of the app it is mixed into
        except NoDataFlowKernelError:
            raise
        except TaskRefused as error:
            return _failed(self, InvalidResourceSpecification.of(error))
        except ConfigurationError as error:
            if _SPECIFICATION in kwargs or "resource_specification" in kwargs:
                return _failed(self, InvalidResourceSpecification.of(error))
            raise
        except (TypeError, BadStdStreamFile) as error:
            return _failed(self, error)

    @property
    def func(self) -> Callable[..., Any]:
        """The function."""
        return self.__wrapped__  # type: ignore[attr-defined, no-any-return]  # of the app it is mixed into

    @property
    def data_flow_kernel(self) -> Any:
        """The kernel that runs its calls; None: the one that is loaded."""
        return self._kernel  # type: ignore[attr-defined]

    @property
    def executors(self) -> str | list[str]:
        """The labels of the executors that may run it, or ``"all"``."""
        labels = self.definition.executors  # type: ignore[attr-defined]
        return "all" if labels is None else list(labels)

    @property
    def cache(self) -> bool:
        """Whether results are remembered."""
        return bool(self.definition.cache)  # type: ignore[attr-defined]


def _declared(func: Callable[..., Any], name: str) -> inspect.Parameter | None:
    try:
        return inspect.signature(func).parameters.get(name)
    except (TypeError, ValueError):
        return None


class PythonApp(_App, flow_apps.PythonApp[..., Any]):
    """An app of a Python function."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Return an app, a join app where ``join=True`` says so."""
        if options.get("join"):
            return JoinApp(*args, **{name: value for name, value in options.items() if name != "join"})
        return super().__new__(cls)

    def __init__(self, func: Callable[..., Any], *args: Any, join: bool = False, **options: Any) -> None:
        super().__init__(func, *args, **options)


class BashApp(_App, flow_apps.BashApp[..., Any]):
    """An app of a function that returns a command line; ``{outputs[0]}`` and the like in it are filled in as in 0.9."""

    def __init__(self, func: Callable[..., Any], *args: Any, **options: Any) -> None:
        super().__init__(filled_in(func), *args, **options)


class JoinApp(_App, flow_apps.JoinApp[..., Any]):
    """An app of a function that returns futures."""


AppBase = flow_apps.AppBase
"""The base of all apps."""


def _decorated(kind: Callable[..., Any], function: Callable[..., Any] | None, options: dict[str, Any]) -> Any:
    def make(func: Callable[..., Any]) -> Any:
        return kind(func, **options)

    return make if function is None else make(function)


def python_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: Any = None,
    cache: bool = False,
    executors: Any = "all",
    ignore_for_cache: Sequence[str] | None = None,
    **more: Any,
) -> Any:
    """Make an app of a Python function; as a decorator with or without arguments."""
    given = {"data_flow_kernel": data_flow_kernel, "cache": cache, "executors": executors}
    return _decorated(PythonApp, function, {**given, "ignore_for_cache": ignore_for_cache, **more})


def bash_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: Any = None,
    cache: bool = False,
    executors: Any = "all",
    ignore_for_cache: Sequence[str] | None = None,
    **more: Any,
) -> Any:
    """Make an app of a function that returns a command line; as a decorator with or without arguments."""
    given = {"data_flow_kernel": data_flow_kernel, "cache": cache, "executors": executors}
    return _decorated(BashApp, function, {**given, "ignore_for_cache": ignore_for_cache, **more})


def join_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: Any = None,
    cache: bool = False,
    ignore_for_cache: Sequence[str] | None = None,
    **more: Any,
) -> Any:
    """Make an app of a function that returns futures; as a decorator with or without arguments."""
    given = {"data_flow_kernel": data_flow_kernel, "cache": cache, "ignore_for_cache": ignore_for_cache}
    return _decorated(JoinApp, function, {**given, **more})


def App(  # noqa: N802 - as it was called
    apptype: str, data_flow_kernel: Any = None, walltime: float | None = None, cache: bool = False,
    executors: Any = "all",
) -> Any:  # fmt: skip
    """Make an app as up to Parsl 0.9: ``@App('python')``, ``@App('bash')``."""
    kinds: dict[str, Callable[..., Any]] = {"python": PythonApp, "bash": BashApp, "join": JoinApp}
    if apptype not in kinds:
        raise InvalidAppTypeError(f"App({apptype!r}): there are 'python', 'bash' and 'join'")
    return lambda func: kinds[apptype](func, data_flow_kernel, cache, executors, walltime=walltime)


def timeout(f: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """Return a function that ends with AppTimeout after so many seconds."""

    @wraps(f)
    def limited(*args: Any, **kwargs: Any) -> Any:
        return execute(f, args, kwargs, TaskSpec(walltime_s=seconds), (), None)  # type: ignore[arg-type]

    return limited

"""Errors that Flow has under other names, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from flow_core.errors import (
    ConfigurationError,
    DependencyError,
    ExecutorError,
    FlowError,
    JoinError,
    StagingError,
    TaskRefused,
)

P = ParamSpec("P")
R = TypeVar("R")


def _with_tasks(error: DependencyError | JoinError) -> list[tuple[BaseException, str]]:
    """Return how the dependencies failed: the exception and the name of the task, in the order of the arguments."""
    return [
        (one.exception, one.who if one.task_id is None else f"task {one.task_id}") for one in error.dependent_failures
    ]


for _kind in (DependencyError, JoinError):
    # An attribute that Parsl's errors have besides: the errors are raised by the kernel, which knows no other classes.
    setattr(_kind, "dependent_exceptions_tids", property(_with_tasks))  # noqa: B010 - type checkers know no such name


class InvalidResourceSpecification(ExecutorError):
    """A call asks for resources that are none, or that its executor does not have.

    Attributes:
        invalid_keys: Keys that are wrong, where they are known.
    """

    def __init__(self, invalid_keys: object = (), message: str = "") -> None:
        keys = set(invalid_keys) if isinstance(invalid_keys, set | frozenset | list | tuple) else set()
        super().__init__(message or f"invalid resource specification: {', '.join(map(str, sorted(keys, key=str)))}")
        self.invalid_keys = keys
        self.message = message

    @classmethod
    def of(cls, error: TaskRefused | ConfigurationError) -> InvalidResourceSpecification:
        """Return the error for one of Flow's, which is its cause."""
        made = cls((), str(error))
        made.__cause__ = error
        return made


class InternalConsistencyError(FlowError):
    """Something is not as Flow itself left it."""


class UnsupportedFeatureError(ExecutorError):
    """An executor does not offer what is asked of it."""


class BadMessage(ExecutorError):
    """A message between processes cannot be read."""


class VersionMismatch(FlowError):
    """Script and node run versions that do not fit."""


class ControllerError(ExecutorError):
    """The controller of IPython engines failed; Flow has none."""


class InsufficientMPIRanks(ExecutorError):
    """A job of MPI has too few ranks."""


class MonitoringRouterStartError(FlowError):
    """Monitoring could not be started."""


class RadioRequiredError(FlowError):
    """An executor has no way for messages about tasks; Flow's always have one."""


class DeserializerPluginError(FlowError):
    """Bytes were made by a serializer that is not known here."""


class ZipAuthorityError(StagingError):
    """The URL of a file in an archive names a host."""


class TooManyJobFailuresError(ExecutorError):
    """Too many blocks failed."""


class RemoteExceptionWrapper:
    """An exception that travels as a value, and is raised where it arrives."""

    def __init__(self, e_type: type, e_value: BaseException, traceback: object = None) -> None:
        self.e_type, self.e_value, self.traceback = e_type, e_value, traceback

    def get_exception(self) -> BaseException:
        """Return the exception."""
        return self.e_value

    def reraise(self) -> None:
        """Raise the exception."""
        raise self.e_value


def wrap_error(func: Callable[P, R]) -> Callable[P, R | RemoteExceptionWrapper]:
    """Decorate a function so that it returns what it would raise, as a RemoteExceptionWrapper."""

    @wraps(func)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R | RemoteExceptionWrapper:
        try:
            return func(*args, **kwargs)
        except Exception as error:
            return RemoteExceptionWrapper(type(error), error, error.__traceback__)

    return wrapped

"""Errors that one task's failure gives to others: they name the root cause, and carry it as ``__cause__``."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from flow_core.errors import (
    AppTimeout,
    BashExitFailure,
    DeadlockError,
    DependencyError,
    FailedDependency,
    JoinError,
    StagingError,
)
from flow_core.file_names import masked
from flow_core.futures.app_future import AppFuture
from flow_core.futures.data_future import DataFuture
from flow_core.graph.task import SharedParents
from flow_core.guard import is_a, one_line, text_of

if TYPE_CHECKING:
    from flow_core.graph.effects import Failure
    from flow_core.graph.task import Task

_NAMED = 3  # failed parents that a message names; the others are counted, and in the exception


def root_cause(error: BaseException) -> BaseException:
    """Return the exception of the first task that really failed. One step: roots are never chained through others."""
    # Made so by the functions below, each of which sets the root itself as the cause.
    if (is_a(error, DependencyError) or is_a(error, JoinError)) and error.__cause__ is not None:
        return error.__cause__
    return error


def cancellation(who: object) -> CancelledError:
    """Return the error of a cancelled task."""
    return CancelledError(f"{who} was cancelled")


def named_timeout(task: Task, error: BaseException) -> BaseException:
    """Return the error of a task, and name the task in that of its walltime: where it ran its name was not known."""
    if is_a(error, AppTimeout) and error.walltime_s is not None:
        # Changed in place, so that its type and traceback stay; an error that is used again is not named twice.
        error.args = (f"{task} {text_of(error).removeprefix('the app ').removeprefix(f'{task} ')}",)
    return error


def after_retries(error: BaseException, failures: int) -> BaseException:
    """Return the last error of a task, and tell that of a command how often it was tried again."""
    if is_a(error, BashExitFailure):
        error.retries = max(failures - 1, 0)
    return error


def is_final(error: BaseException) -> bool:
    """Return whether another try of a task would surely end the same way."""
    return is_a(error, DeadlockError) or (is_a(error, StagingError) and error.final is True)


def other_version(task: Task, name: str, version: str, pinned: str) -> StagingError:
    """Return the error of a try that was given another version of a file than tasks before."""
    url = masked(name.rpartition("\n")[2])
    return StagingError(
        f"{task} was given {url} in the version {version!r}, and other tasks of the run in the version {pinned!r}: it "
        "has changed meanwhile. Tasks see one version in a run; File(url, refresh='task') lets each see its own",
        url,
    )


def dependency_error(task: Task, failures: Sequence[Failure]) -> DependencyError:
    """Return the error of a task whose parents failed.

    Of parents that were not run either only the root cause is kept, so a chain of any length costs nothing more.
    """
    error = DependencyError(
        f"{task} was not run: {_described(failures)}", _roots(failures), [file.url for file in task.options.outputs]
    )
    error.dependent_failures = _failed(failures)
    error.__cause__ = _roots(failures)[0]
    return error


def halted_error(task: Task, failure: Failure) -> DependencyError:
    """Return the error of a task not run since another failed and errors are not lazy."""
    root = root_cause(failure[1])
    error = DependencyError(f"{task} was not run: lazy_errors=False, and {_described([failure])}", [root])
    error.dependent_failures = _failed([failure])
    error.__cause__ = root
    return error


def join_error(task: Task, failures: Sequence[Failure]) -> JoinError:
    """Return the error of a join app of whose futures some failed."""
    error = JoinError(f"{task} failed: {_described(failures)}", _roots(failures))
    error.dependent_failures = _failed(failures)
    error.__cause__ = _roots(failures)[0]
    return error


def circle_error(task: Task, parent: Task) -> JoinError:
    """Return the error of a join app that would wait for itself."""
    what = "its own future" if parent is task else f"the future of {parent}, which waits for {task} itself"
    return JoinError(f"{task} returned {what}: neither could ever end")


def _roots(failures: Sequence[Failure]) -> list[BaseException]:
    roots: dict[int, BaseException] = {}
    for _who, error, _future in failures:
        root = root_cause(error)
        # By identity: exceptions of users may define equality as they like.
        roots.setdefault(id(root), root)
    return list(roots.values())


def _failed(failures: Sequence[Failure]) -> list[FailedDependency]:
    return [
        FailedDependency(root_cause(error), tid := tid_of(future), who, _root_tid(tid, error))
        for who, error, future in failures
    ]


def tid_of(future: object) -> int | None:
    """Return the id of the task that a future belongs to, None for futures that are none of ours."""
    return future.tid if isinstance(future, (AppFuture, DataFuture)) else None


def _root_tid(tid: int | None, error: BaseException) -> int | None:
    """Return the task whose failure is the root cause of an error, given the task that has it."""
    if root_cause(error) is error or not (is_a(error, DependencyError) or is_a(error, JoinError)):
        return tid
    return error.dependent_failures[0].root_task_id if error.dependent_failures else None


def _described(failures: Sequence[Failure]) -> str:
    parts = [_one(who, error) for who, error, _future in failures[:_NAMED]]
    if len(failures) > _NAMED:
        parts.append(f"{len(failures) - _NAMED} more failed")
    return "; ".join(parts)


def _one(who: str, error: BaseException) -> str:
    if is_a(error, CancelledError):
        return f"{who} was cancelled"
    if is_a(error, DependencyError):
        return f"{who} was not run; the root cause is {one_line(root_cause(error))}"
    return f"{who} failed with {one_line(root_cause(error))}"


def failures_of(parent: Task | SharedParents) -> Sequence[Failure]:
    """Return how a parent that has ended failed."""
    if isinstance(parent, SharedParents):
        return parent.failures
    return () if parent.error is None else ((str(parent), parent.error, parent.future),)

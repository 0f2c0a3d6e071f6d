"""Errors of the core: one hierarchy under FlowError.

Each says what happened, to which task, where, and what to do. All of them survive pickling with their attributes, since
many are raised on another machine. Standard library only: this module is loaded by every worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flow_core.loss import Loss


def _rebuild(cls: type[FlowError], args: tuple[object, ...], state: dict[str, object]) -> FlowError:
    # Not by __init__, whose arguments differ between classes: args and attributes are all that an error is.
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class FlowError(Exception):
    """Root of the errors of Flow's core."""

    def __reduce__(
        self,
    ) -> tuple[Callable[..., FlowError], tuple[type[FlowError], tuple[object, ...], dict[str, object]]]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


# -- errors of apps, raised in the task or about its call


class AppException(FlowError):
    """An app failed for a reason that Flow can name."""


class AppBadFormatting(AppException):
    """The command line of a bash app could not be composed: formatting the string raised."""


class AppTimeout(AppException):
    """The app ran longer than its walltime.

    Attributes:
        walltime_s: The limit in seconds, where Flow raised the error for it.
    """

    walltime_s: float | None = None

    @classmethod
    def after(cls, walltime_s: float, then: str, who: object = "the app") -> AppTimeout:
        """Return the error for a limit; ``then`` says what became of ``who``, a task where that is known."""
        error = cls(f"{who} ran longer than its walltime of {walltime_s:g} s and {then}")
        error.walltime_s = walltime_s
        return error


class BashExitFailure(AppException):
    """The command of a bash app exited with a code other than 0.

    Attributes:
        reason: The message.
        exitcode: The exit code; negative for a signal (-9 is SIGKILL).
        retries: How often the task was tried again before; None in an error of a try that was not the last.
        stderr_tail: The last lines of its standard error, where captured.
    """

    def __init__(self, reason: str, exitcode: int, retries: int | None = None, *, stderr_tail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.exitcode = exitcode
        self.retries = retries
        self.stderr_tail = stderr_tail


# A name of the predecessor, which scripts catch.
AppFailure = BashExitFailure


class ContainerError(AppException):
    """The container of a task could not be started, or ended without a result of its task.

    Attributes:
        exitcode: The exit code of a container that ended before its task did (137 and -9 are SIGKILL); else None.
    """

    exitcode: int | None = None


class Requeue(AppException):
    """Raised by a task that was told that its block ends: it is to be run again, on a block with enough time.

    That costs nothing of its budgets. A task that was not told fails with it as with any other exception.

    Attributes:
        told: Whether the task was told so; set where it runs.
    """

    told: bool = False


class BadStdStreamFile(AppException):
    """The file for standard output or error could not be opened, or its specification is wrong."""


class BashAppNoReturn(AppException):
    """The function of a bash app did not return a string."""


class OutputConflict(AppException):
    """A call declares an output that an unfinished task makes, with ``Config(output_conflicts="refuse")``."""


class MissingOutputs(AppException):
    """Declared output files do not exist after the app ended.

    Attributes:
        reason: The message.
        outputs: The missing files, as paths.
    """

    def __init__(self, reason: str, outputs: Sequence[object]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.outputs = list(outputs)


class MissingInputs(AppException):
    """Local files given as ``inputs=`` do not exist where the task was to start.

    Attributes:
        reason: The message.
        inputs: The missing files, as paths.
    """

    def __init__(self, reason: str, inputs: Sequence[object]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.inputs = list(inputs)


class RemoteError(AppException):
    """An exception that could not be brought over as itself; its type name, text and traceback could.

    Attributes:
        type_name: Qualified name of the original exception's type.
        text: ``str`` of the original exception.
        remote_traceback: The formatted traceback of where it was raised.
    """

    def __init__(self, type_name: str, text: str, remote_traceback: str = "") -> None:
        super().__init__(f"{type_name}: {text}")
        self.type_name = type_name
        self.text = text
        self.remote_traceback = remote_traceback


class InvalidAppTypeError(FlowError):
    """An app of an unknown kind was asked for."""


class NotFutureError(FlowError, TypeError):
    """Something that is no future stands where a future is needed."""


# -- errors of the dataflow


class DataFlowException(FlowError):
    """The dataflow kernel cannot do what was asked."""


class ConfigurationError(DataFlowException):
    """A configuration is wrong; the message names the option and says what to do."""


class NoDataFlowKernelError(ConfigurationError):
    """An app was called, or the kernel asked for, with no Config loaded."""


class KernelClosedError(NoDataFlowKernelError):
    """An app was called, or the kernel asked for, though it was cleaned up; or an app was called in a forked child."""


class RunNotLive(FlowError):
    """A run was asked from another process, and nobody answers for it: it has ended, or runs elsewhere."""


class DuplicateTaskError(DataFlowException):
    """A task was launched twice: a bug of Flow."""


class MissingFutError(DataFlowException):
    """A future is not known to the kernel."""


class IllegalTransition(DataFlowException):
    """A task was moved between states that are not connected: a bug of Flow."""


class BadCheckpoint(DataFlowException):
    """A checkpoint cannot be read; the message names the file and says how."""


class NotACheckpoint(BadCheckpoint):
    """The bytes of a file are no checkpoint, or its header is damaged: nothing of it can be read."""


class Unhashable(DataFlowException):
    """An argument of a cached app cannot be part of its key; the message names the argument and says what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class FailedDependency:
    """What one of the futures that a task waited for came to.

    Attributes:
        exception: What it failed with; of a task that was itself not run, or that joins others, the root cause.
        task_id: Id of its task; None for a future that is none of Flow's.
        who: What it is called in messages, such as ``task 3 (parse)``.
        root_task_id: Id of the task whose failure ``exception`` is; ``task_id`` unless that one was not run, or joins.
    """

    exception: BaseException
    task_id: int | None
    who: str
    root_task_id: int | None


class DependencyError(DataFlowException):
    """A task was not run because one it depends on failed.

    ``__cause__`` is the root cause: the exception of the first task that really failed.

    Attributes:
        dependent_exceptions: The root causes of the failed dependencies, each once.
        dependent_failures: The failed dependencies themselves, each with its task, in the order of the arguments.
        reason: The message.
        outputs: The outputs that will not be made.
    """

    dependent_failures: Sequence[FailedDependency] = ()

    def __init__(
        self, reason: str, dependent_exceptions: Sequence[BaseException] = (), outputs: Sequence[object] = ()
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.dependent_exceptions = list(dependent_exceptions)
        self.outputs = list(outputs)


class HookError(DataFlowException):
    """Something of the user's that Flow calls raised, or returned what cannot be used: a handler, a memoizer ...

    What it raised is ``__cause__``; for a retry handler that is the failure which it was asked about.

    Attributes:
        hook: Name of the hook that was called.
    """

    def __init__(self, message: str, hook: str = "") -> None:
        super().__init__(message)
        self.hook = hook


class HiddenFutureError(DataFlowException):
    """A future is hidden in an argument where it is not waited for; the message names the path."""


class JoinError(DataFlowException):
    """Futures returned by a join app failed.

    Attributes:
        reason: The message.
        dependent_exceptions: The root causes, each once.
        dependent_failures: The futures that failed, each with its task, in the order in which they were returned.
    """

    dependent_failures: Sequence[FailedDependency] = ()

    def __init__(self, reason: str, dependent_exceptions: Sequence[BaseException] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.dependent_exceptions = list(dependent_exceptions)


class UnseenFailures(DataFlowException):
    """Tasks failed and nobody looked at their futures, with ``Config(unseen_failures="raise")``.

    Attributes:
        count: Number of tasks that failed unseen.
        examples: One line for a failure of each kind.
    """

    def __init__(self, message: str, count: int = 0, examples: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.count = count
        self.examples = list(examples)


class CleanupIncomplete(DataFlowException):
    """A run has ended without some of what belongs to its end, such as a checkpoint on a disk that is full.

    Attributes:
        steps: Steps of the shutdown that were given up, such as ``write the checkpoint``, and what else could not be
            done.
    """

    def __init__(self, message: str, steps: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.steps = list(steps)


class StagingError(DataFlowException):
    """A file could not be brought in or out; the message names the URL and the task.

    Attributes:
        url: The file's URL.
        final: Whether another try of the task would surely end the same way, so that there is none: the file is not
            there, or has a name that the other side cannot have.
    """

    final: bool = False

    def __init__(self, message: str, url: str = "") -> None:
        super().__init__(message)
        self.url = url


class WrongDigest(StagingError):
    """The content of a file has another digest than its ``File(sha256=...)`` or ``digest=`` says.

    Attributes:
        url: The file's URL or path.
        expected: The digest that it was to have, as ``algorithm:digits``.
        found: The one that it has, likewise.
    """

    def __init__(self, message: str, url: str = "", expected: str = "", found: str = "") -> None:
        super().__init__(message, url)
        self.expected = expected
        self.found = found


class NoStagingError(StagingError):
    """No staging method of the executor can handle a file."""


# -- errors of executors


class ExecutorError(FlowError):
    """An executor cannot do what was asked."""


class ExecutorClosed(ExecutorError):
    """The executor was not started, or was shut down."""


class ExecutorBroken(ExecutorError):
    """The executor cannot run anything any more; the message says what died and where to look."""


class ScalingFailed(ExecutorError):
    """The provider failed to give or take blocks; the provider's own error is ``__cause__``."""


class DeadlockError(ExecutorError):
    """A task waited inside itself for what could never end: the message says which tasks wait for which.

    The task is not tried again, whatever ``retries`` is.
    """


class TaskRefused(ExecutorError):
    """A task can never run on its executor: it does not fit, or cannot be sent."""


class SerializationError(TaskRefused):
    """A function or an argument cannot be pickled; the message names it."""


class DeserializationError(ExecutorError):
    """A task or a result could not be unpickled where it arrived."""


class TaskLost(ExecutorError):
    """A task was lost with what ran it.

    Attributes:
        loss: Record of what died, where and how, with the tail of its standard error; None where nothing is known.
    """

    def __init__(self, message: str, loss: Loss | None = None) -> None:
        super().__init__(message)
        self.loss = loss


class WorkerLost(TaskLost):
    """The worker process that ran the task died."""


class ManagerLost(TaskLost):
    """The manager of the node that ran the task died or fell silent."""


class BlockLost(TaskLost):
    """The batch job that ran the task ended."""


class InterchangeLost(TaskLost):
    """The interchange died and the task could not be recovered."""


class TaskExceedsBlock(TaskLost):
    """The task was lost twice to the walltime of a block that it had used most of: it needs a longer block."""


class TaskKillsWorkers(TaskLost):
    """The task was stopped since several workers died under it."""

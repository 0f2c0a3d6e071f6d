"""What the kernel tells of its tasks: tuples for the event pump, and lines for the log."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Final, Protocol

from flow_core.apps.definition import NO_OPTIONS
from flow_core.files import File, masked
from flow_core.graph.failures import root_cause
from flow_core.graph.retry import describe
from flow_core.graph.states import State
from flow_core.guard import attribute, is_a, one_line, pass_signal, traceback_of
from flow_core.interfaces.events import (
    EventKind,
    FileStaged,
    TaskChanged,
    TaskEnded,
    TaskJoined,
    TaskSubmitted,
    TryEnded,
    TryLaunched,
    TryStarted,
)
from flow_core.interfaces.outcome import Loss
from flow_core.kernel.directory import directory_of
from flow_core.remote.tracebacks import formatted

if TYPE_CHECKING:
    from collections.abc import Callable

    from flow_core.apps.definition import StdStream
    from flow_core.graph.task import Task
    from flow_core.interfaces.events import Event
    from flow_core.interfaces.outcome import Outcome, Place
    from flow_core.interfaces.staging import Transfer


_NO_FILES: Final[tuple[tuple[str, ...], tuple[str, ...], str, str]] = ((), (), "", "")


class Pump(Protocol):
    """What is needed of the event pump."""

    wants: EventKind
    append: Callable[[tuple[object, ...] | Event], None]


class Teller:
    """Tells what happens to tasks, as far as anybody wants to know. Any thread; never blocks.

    Attributes:
        tasks: Whether submissions and ends of tasks are wanted.
        tries: Whether launches, starts and ends of tries are wanted.
        states: Whether other changes of state are wanted.
        files: Whether moves of files are wanted.
    """

    def __init__(self, pump: Pump, logger: logging.Logger) -> None:
        """Take a started pump; what it wants is read once."""
        self.tasks = EventKind.TASK in pump.wants
        self.tries = EventKind.TRY in pump.wants
        self.states = EventKind.STATE in pump.wants
        self.files = EventKind.FILE in pump.wants
        self._append = pump.append
        self._logger = logger
        self._told: set[str] = set()
        self._warned: set[tuple[object, str]] = set()

    @property
    def debug(self) -> bool:
        """Whether a log takes a line a task now; asked once a batch."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def once(self, message: str, *args: object) -> None:
        """Log something that may happen to very many tasks: the first of a run at INFO, the others at DEBUG."""
        level = logging.DEBUG if message in self._told else logging.INFO
        self._told.add(message)
        self._logger.log(level, message, *args)

    def warn_once(self, about: object, message: str, *args: object) -> None:
        """Log a warning, the first time only that it is about this."""
        if (about, message) not in self._warned:
            self._warned.add((about, message))
            self._logger.warning(message, *args)

    def submitted(self, task: Task, depends: Sequence[int], executors: tuple[str, ...], parent: int | None) -> None:
        """An app was called."""
        app, options = task.app, task.options
        inputs, outputs, stdout, stderr = _NO_FILES
        if options is not NO_OPTIONS or "inputs" in task.kwargs:
            inputs, outputs, stdout, stderr = _files_of(task)
        self._append(
            (
                TaskSubmitted,
                time.time_ns(),
                task.tid,
                app.name,
                app.kind._value_,
                options.label,
                executors,
                tuple(depends),
                inputs,
                outputs,
                stdout,
                stderr,
                app.cache,
                parent,
            )
        )

    def launched(self, task: Task, key: int) -> None:
        """A try was handed to an executor."""
        label = "" if task.executor is None else task.executor.label
        self._append((TryLaunched, time.time_ns(), task.tid, task.tries - 1, key, label))

    def started(self, task: Task, time_ns: int, place: Place) -> None:
        """A try began to run."""
        if self.tries:
            self._append((TryStarted, time_ns, task.tid, task.tries - 1, place))

    def try_ended(self, task: Task, outcome: Outcome) -> None:
        """A try ended."""
        if not self.tries:
            return
        error = "" if outcome.error is None else one_line(outcome.error)
        if outcome.loss is not None:
            error = f"{outcome.loss.kind.name.lower()} lost: {outcome.loss.reason}"
        label = "" if task.executor is None else task.executor.label
        self._append(
            (
                TryEnded,
                time.time_ns(),
                task.tid,
                task.tries - 1,
                outcome.verdict._name_,
                outcome.started_ns,
                outcome.ended_ns,
                label,
                outcome.place,
                outcome.usage,
                error,
            )
        )

    def changed(self, task: Task, state: State, failure: object) -> None:
        """A task entered a state by itself, perhaps because a try failed."""
        if self.states:
            self._append((TaskChanged, time.time_ns(), task.tid, state.name))
        if is_a(failure, Loss):
            self._retried(task, describe(failure).partition("\n")[0])
        elif is_a(failure, BaseException):
            self._retried(task, one_line(failure))

    def _retried(self, task: Task, reason: str) -> None:
        if task.spent is not None:
            task.spent.last = reason
        self._logger.info("%s is tried again (try %d failed): %s", task, task.tries, reason)

    def joined(self, task: Task, waits_for: Sequence[int]) -> None:
        """The body of a join app returned futures of tasks."""
        if self.tasks:
            self._append((TaskJoined, time.time_ns(), task.tid, tuple(waits_for)))

    def moved(self, transfer: Transfer, digest: str, error: BaseException | None) -> None:
        """A file was moved on the submit side, or could not be."""
        if self.files:
            self._append(_file_record(transfer, _size(transfer) if error is None else -1, digest, error))

    def ended(self, task: Task) -> None:
        """A task ended."""
        if task.rare is not None and task.state is State.exec_done:
            for transfer in task.rare.on_node:
                self._append(_file_record(transfer, -1, "", None))
        if task.state is State.failed and task.error is not None:
            self._logger.info("%s failed: %s", task, one_line(task.error))
        elif self.debug:
            self._logger.debug("%s ended as %s", task, task.state.name)
        if self.tasks:
            self._append(self._end_record(task))

    def _end_record(self, task: Task) -> tuple[object, ...]:
        error = task.error
        spent = task.spent
        rare = task.rare
        return (
            TaskEnded,
            time.time_ns(),
            task.tid,
            task.state._name_,
            "" if rare is None or rare.memo_key is None else rare.memo_key.digest.hex(),
            task.state is State.memo_done,
            task.tries,
            0 if spent is None else spent.failures + spent.losses,
            0.0 if spent is None else spent.cost,
            "" if error is None else one_line(root_cause(error)),
            "" if error is None or task.state is not State.failed else traceback_text(error),
        )


def _file_record(transfer: Transfer, size: int, digest: str, error: BaseException | None) -> tuple[object, ...]:
    told = "" if error is None else one_line(error)
    path, way = str(transfer.local_path), transfer.direction.value
    return (FileStaged, time.time_ns(), transfer.task_id, masked(transfer.file.url), path, way, size, digest, told)


def _size(transfer: Transfer) -> int:
    try:
        return os.path.getsize(transfer.local_path)
    except OSError:
        return -1


def traceback_text(error: BaseException) -> str:
    """Return the traceback of where an exception was raised: the remote one, if it came from another process.

    Frames of Flow are left out.
    """
    remote = attribute(error, "remote_traceback")
    if is_a(remote, str) and remote:
        return remote
    try:
        return formatted(error)
    except BaseException as failure:  # odd attributes of the user's
        pass_signal(failure)
        return traceback_of(error)


def _files_of(task: Task) -> tuple[tuple[str, ...], tuple[str, ...], str, str]:
    """Return the names of a call's inputs and outputs, and of its standard output and error."""
    options = task.options
    inputs = task.kwargs.get("inputs", ())
    named = [_file_name(item) for item in inputs] if isinstance(inputs, (list, tuple)) else []
    return (
        tuple(name for name in named if name),
        tuple(masked(file.url) for file in options.outputs),
        masked(_stream_place(options.stdout, task)),
        masked(_stream_place(options.stderr, task)),
    )


def stream_name(stream: StdStream | None) -> str:
    """Return the path or URL that a standard stream goes to, empty for none."""
    if stream is None:
        return ""
    if isinstance(stream, tuple):
        return fspath(stream[0])
    return stream.url if isinstance(stream, File) else fspath(stream)


def _stream_place(stream: StdStream | None, task: Task) -> str:
    """Return the absolute path of a standard stream, so that it is found from anywhere; a URL as it is."""
    name = stream_name(stream)
    return name if not name or (isinstance(stream, File) and stream.scheme != "file") else _absolute(name, task)


def _absolute(name: str, task: Task) -> str:
    return name if name.startswith("file:") else os.path.join(directory_of(task), name)


def _file_name(item: object) -> str:
    file = getattr(item, "file_obj", None) if type(item).__name__ == "DataFuture" else item
    if isinstance(file, File):
        return masked(file.url)
    return masked(str(fspath(item))) if isinstance(item, (str, PathLike)) else ""

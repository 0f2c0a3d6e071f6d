"""Task events: the records that the kernel gives to the event pump, and its log lines about tasks."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Final, Protocol

from flow_core.apps.definition import NO_OPTIONS
from flow_core.errors import Requeue
from flow_core.files import File, masked
from flow_core.futures.app_future import AppFuture
from flow_core.graph.failures import root_cause, tid_of
from flow_core.graph.retry import describe
from flow_core.graph.states import State
from flow_core.guard import attribute, is_a, one_line, traceback_by
from flow_core.interfaces.events import (
    EventKind,
    EventRecord,
    FileMoving,
    FileStaged,
    TaskChanged,
    TaskEnded,
    TaskJoined,
    TaskSubmitted,
    TryEnded,
    TryLaunched,
    TryStarted,
    record_maker,
)
from flow_core.interfaces.outcome import Loss
from flow_core.kernel.directory import directory_of
from flow_core.remote.tracebacks import formatted

if TYPE_CHECKING:
    from collections.abc import Callable

    from flow_core.apps.definition import StdStream
    from flow_core.graph.task import Task
    from flow_core.interfaces.call import FileMoved, FileProgress
    from flow_core.interfaces.events import Event
    from flow_core.interfaces.outcome import Outcome, Place
    from flow_core.interfaces.staging import Transfer


_NO_FILES: Final[tuple[tuple[str, ...], tuple[str, ...], str, str]] = ((), (), "", "")


class Pump(Protocol):
    """The part of the event pump that the emitter uses."""

    wants: EventKind
    append: Callable[[EventRecord | Event], None]


# The only makers of these records: mypy compares with the fields of its class.
_task_submitted = record_maker(TaskSubmitted)
_task_changed = record_maker(TaskChanged)
_task_joined = record_maker(TaskJoined)
_task_ended = record_maker(TaskEnded)
_try_launched = record_maker(TryLaunched)
_try_started = record_maker(TryStarted)
_try_ended = record_maker(TryEnded)
_file_staged = record_maker(FileStaged)
_file_moving = record_maker(FileMoving)


class TaskEventEmitter:
    """Emits the events of tasks that a sink wants, and logs their failures. Any thread; never blocks.

    Attributes:
        tasks: Whether submissions and ends of tasks are wanted.
        tries: Whether launches, starts and ends of tries are wanted.
        states: Whether other changes of state are wanted.
        files: Whether moves of files are wanted.
    """

    def __init__(self, pump: Pump, logger: logging.Logger) -> None:
        """Take a started pump; what it wants is read once."""
        # As plain booleans: to test a Flag costs a call of Python, and each task asks several times.
        self.tasks = EventKind.TASK in pump.wants
        self.tries = EventKind.TRY in pump.wants
        self.states = EventKind.STATE in pump.wants
        self.files = EventKind.FILE in pump.wants
        # Bound once: the deque's own append, which each event of the hot path calls.
        self._append = pump.append
        self._logger = logger
        self._reported: set[str] = set()
        self._warned: set[tuple[object, str]] = set()

    def once(self, message: str, *args: object) -> None:
        """Log something that may happen to very many tasks: the first of a run at INFO, the others at DEBUG."""
        # Two threads may both log the first: harmless, and a lock here would be one for all tasks.
        level = logging.DEBUG if message in self._reported else logging.INFO
        self._reported.add(message)
        self._logger.log(level, message, *args)

    def warn_once(self, about: object, message: str, *args: object) -> None:
        """Log a warning, the first time only that it is about this."""
        self.once_about(about, message, *args, level=logging.WARNING)

    def once_about(self, about: object, message: str, *args: object, level: int = logging.INFO) -> None:
        """Log something, the first time only that it is about this."""
        # By app and message: a sweep of a million calls gets one line, and another app its own.
        if (about, message) not in self._warned:
            self._warned.add((about, message))
            self._logger.log(level, message, *args)

    def submitted(self, task: Task, depends: Sequence[int], executors: tuple[str, ...], parent: int | None) -> None:
        """Emit that an app was called, with the files and the dependencies of the call."""
        app, options = task.app, task.options
        inputs, outputs, stdout, stderr = _NO_FILES
        items: tuple[str, ...] = ()
        if options is not NO_OPTIONS or "inputs" in task.kwargs:
            inputs, outputs, stdout, stderr = _files_of(task)
            items = _items_of(task, inputs)
        self._append(
            _task_submitted(
                time_ns=time.time_ns(),
                task_id=task.tid,
                app=app.name,
                app_kind=app.kind._value_,
                label=options.label,
                executors=executors,
                depends=tuple(depends),
                inputs=inputs,
                outputs=outputs,
                stdout=stdout,
                stderr=stderr,
                cache=app.cache,
                parent=parent,
                items=items,
            )
        )

    def launched(self, task: Task, key: int) -> None:
        """Emit that a try was handed to an executor."""
        label = "" if task.executor is None else task.executor.label
        self._append(
            _try_launched(time_ns=time.time_ns(), task_id=task.tid, try_id=task.tries - 1, key=key, executor=label)
        )

    def started(self, task: Task, time_ns: int, place: Place) -> None:
        """Emit that a try began to run, at a time in int64 ns UTC, if sinks want tries."""
        if self.tries:
            self._append(_try_started(time_ns=time_ns, task_id=task.tid, try_id=task.tries - 1, place=place))

    def try_ended(self, task: Task, outcome: Outcome) -> None:
        """Emit how a try ended, if sinks want tries. Any thread; called before the task's own end is emitted."""
        if not self.tries:
            return
        error = "" if outcome.error is None else one_line(outcome.error)
        if outcome.loss is not None:
            error = f"{outcome.loss.kind.name.lower()} lost: {outcome.loss.reason}"
        label = "" if task.executor is None else task.executor.label
        self._append(
            _try_ended(
                time_ns=time.time_ns(),
                task_id=task.tid,
                try_id=task.tries - 1,
                verdict=outcome.verdict._name_,
                started_ns=outcome.started_ns,
                ended_ns=outcome.ended_ns,
                executor=label,
                place=outcome.place,
                usage=outcome.usage,
                error=error,
            )
        )

    def changed(self, task: Task, state: State, failure: object) -> None:
        """Emit that a task entered a state; a failed try, which is the reason, is logged at INFO in any case."""
        if self.states:
            self._append(_task_changed(time_ns=time.time_ns(), task_id=task.tid, state=state.name))
        if is_a(failure, Loss):
            self._retried(task, describe(failure).partition("\n")[0])
        elif is_a(failure, Requeue) and task.spent is not None and task.spent.requeues:
            task.spent.last = one_line(failure)
            told = "%s is run again: its block was about to end in try %d, as it was told (%s)"
            self._logger.info(told, task, task.tries, task.spent.last)
        elif is_a(failure, BaseException):
            self._retried(task, one_line(failure))

    def _retried(self, task: Task, reason: str) -> None:
        # Kept for why(): the last reason is what a person asks for while the next try waits.
        if task.spent is not None:
            task.spent.last = reason
        self._logger.info("%s is tried again (try %d failed): %s", task, task.tries, reason)

    def joined(self, task: Task, waits_for: Sequence[int]) -> None:
        """Emit for which tasks a join waits, whose futures its body returned."""
        if self.tasks:
            self._append(_task_joined(time_ns=time.time_ns(), task_id=task.tid, waits_for=tuple(waits_for)))

    def moved(self, transfer: Transfer, digest: str, error: BaseException | None) -> None:
        """Emit that a file was moved on the submit side, or could not be."""
        if self.files:
            self._append(_file_record(transfer, _size(transfer) if error is None else -1, digest, error))

    def moving(self, task_id: int, file: FileProgress) -> None:
        """Emit how far a file is that has been moving for some seconds."""
        if self.files and not file.done:
            self._append(
                _file_moving(
                    time_ns=time.time_ns(),
                    task_id=task_id,
                    url=file.url,
                    direction=file.direction,
                    moved=file.moved,
                    total=file.total,
                    speed=round(file.speed),
                )
            )

    def staged(self, task_id: int, file: FileMoved) -> None:
        """Emit that an executor itself has moved a file, or could not."""
        if self.files:
            self._append(
                _file_staged(
                    time_ns=time.time_ns(),
                    task_id=task_id,
                    url=file.url,
                    local_path=file.path,
                    direction=file.direction,
                    size=file.size,
                    digest="",
                    error=file.error,
                )
            )

    def ended(self, task: Task) -> None:
        """Emit the end of a task and the files that its node moved; log a failure at INFO, other ends at DEBUG."""
        if self.files and task.details is not None and task.state is State.exec_done:
            # Files that a node moves have no event on the submit side: they were moved if the task ended well.
            for transfer in task.details.on_node:
                self._append(_file_record(transfer, -1, "", None))
        if task.state is State.failed and task.error is not None:
            self._logger.info("%s failed: %s", task, one_line(task.error))
        elif self._logger.isEnabledFor(logging.DEBUG):
            self._logger.debug("%s ended as %s", task, task.state.name)
        if self.tasks:
            self._append(self._end_record(task))

    def _end_record(self, task: Task) -> EventRecord:
        error = task.error
        spent = task.spent
        details = task.details
        return _task_ended(
            time_ns=time.time_ns(),
            task_id=task.tid,
            state=task.state._name_,
            hashsum="" if details is None or details.memo_key is None else details.memo_key.digest.hex(),
            memoized=task.state is State.memo_done,
            tries=task.tries,
            fail_count=0 if spent is None else spent.failures + spent.losses,
            fail_cost=0.0 if spent is None else spent.cost,
            # The root cause: pages group failures by it, and a chain of a thousand tasks failed once.
            error="" if error is None else one_line(root_cause(error)),
            # Of tasks that were not run the traceback would be that of the parent, which has its own event.
            traceback="" if error is None or task.state is not State.failed else traceback_text(error),
        )


def _file_record(transfer: Transfer, size: int, digest: str, error: BaseException | None) -> EventRecord:
    return _file_staged(
        time_ns=time.time_ns(),
        task_id=transfer.task_id,
        url=masked(transfer.file.url),
        local_path=str(transfer.local_path),
        direction=transfer.direction.value,
        size=size,
        digest=digest,
        error="" if error is None else one_line(error),
    )


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
    return traceback_by(error, lambda: formatted(error))


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


_LONGEST_ITEM = 200  # characters of a value that is told
_MOST_ITEMS = 1000  # values that are told of one call; the others are counted


def _items_of(task: Task, files: Sequence[str]) -> tuple[str, ...]:
    """Return what ``inputs`` holds as texts; nothing where that is files and tasks, which are told elsewhere."""
    inputs = task.kwargs.get("inputs", ())
    if not isinstance(inputs, (list, tuple)) or len(inputs) == len(files):
        return ()
    if len(files) + sum(map(_is_of_task, inputs)) >= len(inputs):
        return ()
    told = [_item(value) for value in inputs[:_MOST_ITEMS]]
    if len(inputs) > _MOST_ITEMS:
        told.append(f"{len(inputs) - _MOST_ITEMS} more")
    return tuple(told)


def _is_of_task(value: object) -> bool:
    return isinstance(value, AppFuture)  # DataFutures are among the files


def _item(value: object) -> str:
    tid = tid_of(value)
    name = f"task {tid}" if tid is not None else _file_name(value)
    if name:
        return name
    # Of types that surely run no code of the user's: others are told by their type.
    if type(value) in (int, float, complex, bool, bytes, type(None)):
        text = repr(value) if not isinstance(value, (int, bytes)) or _is_short(value) else f"<{type(value).__name__}>"
        return text[:_LONGEST_ITEM]
    return f"<{type(value).__name__}>"


def _is_short(value: int | bytes) -> bool:
    return len(value) <= _LONGEST_ITEM if isinstance(value, bytes) else value.bit_length() <= 4 * _LONGEST_ITEM


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

"""Progress of file transfers: reports of nodes on files that they move, and events of all that take long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flow_core.bounded_calls import start_unless_ending
from flow_core.files import masked
from flow_core.graph.task import Task
from flow_core.interfaces.call import Call, FileMoved, FileProgress, TryKey
from flow_core.interfaces.staging import Progress
from flow_core.staging.batch import Moving

if TYPE_CHECKING:
    from flow_core.kernel.task_events import TaskEventEmitter

EVERY_S = 5.0
"""Seconds between reports on one file; files that are moved in less are not reported, so most cost nothing."""
_MANY = 1000  # tries that are known until those that have ended are looked for: their end is not reported here
_REST_S = 60.0  # seconds; a bound for each wait, after which the idle thread waits on


class NodeFiles:
    """The last reports of nodes on the files that their tasks move. Any thread.

    Args:
        task_of: Gives the task of a try that is out, None for any other.
        emitter: Given each report.
    """

    def __init__(self, task_of: Callable[[TryKey], Task | None], emitter: TaskEventEmitter) -> None:
        self._task_of = task_of
        self._emitter = emitter
        self._lock = threading.Lock()
        self._by_key: dict[TryKey, dict[tuple[str, str], tuple[int, FileProgress]]] = {}

    def moving(self, key: TryKey, files: Sequence[FileProgress]) -> None:
        """Take the report of a node; never raises."""
        task = self._task_of(key)
        if task is None:  # it has ended meanwhile
            return
        now = time.time_ns()
        with self._lock:
            if len(self._by_key) >= _MANY:
                self._by_key = {each: told for each, told in self._by_key.items() if self._task_of(each) is not None}
            known = self._by_key.setdefault(key, {})
            for file in files:
                begun = known.get((file.url, file.direction), (now - round(file.since_s * 1e9), file))[0]
                known[file.url, file.direction] = begun, file
        for file in files:
            self._emitter.moving(task.tid, file)

    def moved(self, call: Call, files: Sequence[FileMoved]) -> None:
        """Take the report of an executor on files that it has moved itself; never raises."""
        if isinstance(call, Task):
            for file in files:
                self._emitter.staged(call.tid, file)

    def all(self) -> list[Moving]:
        """Return the files that tasks move on nodes, those begun first first."""
        with self._lock:
            told = [(key, dict(files)) for key, files in self._by_key.items()]
        found: list[Moving] = []
        for key, files in told:
            task = self._task_of(key)
            if task is None:
                with self._lock:
                    self._by_key.pop(key, None)
            else:
                found += _of_task(task, files)
        return sorted(found, key=lambda one: one.since_ns or 0)

    def of_task(self, task: Task) -> list[Moving]:
        """Return the files that the node of one task moves, as far as it has reported. Any thread."""
        with self._lock:
            files = dict(self._by_key.get(TryKey(task.key), {}))
        return _of_task(task, files)


def _of_task(task: Task, files: dict[tuple[str, str], tuple[int, FileProgress]]) -> list[Moving]:
    transfers = {
        (masked(transfer.file.url), transfer.direction.value): transfer
        for transfer in (() if task.details is None else task.details.on_node)
    }
    found = []
    for name, (begun, file) in files.items():
        transfer = transfers.get(name)
        if transfer is not None and not file.done:
            total = file.total if file.total >= 0 else None
            found.append(Moving(transfer, None, begun, Progress(file.moved, total, file.speed)))
    return found


class ProgressTicker:
    """Emits every few seconds how far files are that the submit side has been moving for longer.

    Its thread rests while there are none.

    Args:
        moving: Gives all files that are being moved.
        emitter: Given those that have been moving for ``every_s``.
        every_s: Seconds between reports on a file.
    """

    def __init__(
        self, moving: Callable[[], Sequence[Moving]], emitter: TaskEventEmitter, every_s: float = EVERY_S
    ) -> None:
        self._moving = moving
        self._emitter = emitter
        self._every_s = every_s
        self._some = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def begun(self) -> None:
        """Note that files begin to be moved; cheap. Any thread."""
        if not self._some.is_set():
            self._some.set()
            # Started by the first file: most runs move none.
            if self._thread is None:
                self._start()

    def close(self) -> None:
        """Have the thread end, without waiting for it. Idempotent."""
        self._closed.set()
        self._some.set()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="flow-file-progress", daemon=True)
        if start_unless_ending(thread):
            self._thread = thread

    def _run(self) -> None:
        while not self._closed.wait(self._every_s):
            self._some.clear()  # before the look: what begins from now on sets it again
            moving = self._moving()
            if not moving:
                while not self._some.wait(_REST_S):
                    pass
                continue
            latest = time.time_ns() - round(self._every_s * 1e9)
            for one in moving:
                if one.progress is not None and one.since_ns is not None and one.since_ns <= latest:
                    self._emitter.moving(one.transfer.task_id, _as_event(one, one.progress))


def _as_event(moving: Moving, progress: Progress) -> FileProgress:
    transfer = moving.transfer
    total = -1 if progress.total is None else progress.total
    return FileProgress(masked(transfer.file.url), transfer.direction.value, progress.moved, total, progress.speed)

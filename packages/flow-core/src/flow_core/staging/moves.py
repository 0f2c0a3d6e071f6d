"""Transfers on the submit side: so many at once, the others in turn."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from flow_core.errors import FlowError, StagingError
from flow_core.files import masked
from flow_core.futures.callbacks import hook_calls
from flow_core.guard import is_a, name_of, pass_signal, shown, text_of
from flow_core.hooks import hook_name, is_own
from flow_core.interfaces.staging import Digests, Direction, Staging, Transfer

Work = Sequence[tuple[Staging, Sequence[Transfer]]]
"""Methods and what each of them moves: the files of one task and one direction."""

Moved = Callable[[Transfer, str, BaseException | None], None]
"""Told of each file that was moved, with its digest if one was learnt, or could not be; any thread; must not raise."""


@dataclass(frozen=True, slots=True)
class Moving:
    """A file that is not at its place yet: since when it is being moved (int64 ns UTC), None before its turn."""

    transfer: Transfer
    method: Staging
    since_ns: int | None = None


class Moves:
    """Starts work as long as less than ``limit`` is going on, and the rest as that ends. Any thread; never blocks.

    With ``apart`` methods that are not Flow's own are called by the thread of hooks: they may block, though they must
    not.
    """

    def __init__(self, limit: int, moved: Moved | None = None, *, apart: bool = False) -> None:
        self._apart = apart
        self.limit = limit
        self._moved = moved
        self._lock = threading.Lock()
        self._going = 0
        self._beginning = False
        self._waiting: deque[tuple[Work, Future[None]]] = deque()
        self._batches: set[_Batch] = set()
        self._closed = False

    def start(self, work: Work) -> Future[None]:
        """Move files; the future ends when all have been moved, with the first error if there was one. Never raises."""
        future: Future[None] = Future()
        with self._lock:
            closed = self._closed
            if not closed:
                self._waiting.append((work, future))
        if closed:
            future.set_exception(_ended(work))
        else:
            self._go_on()
        return future

    def of_task(self, task_id: int) -> list[Moving]:
        """Return the files of a task that are being moved, and those that wait for their turn."""
        with self._lock:
            batches, waiting = list(self._batches), list(self._waiting)
        going = [moving for batch in batches for moving in batch.going() if moving.transfer.task_id == task_id]
        queued = [(method, one) for work, _ in waiting for method, transfers in work for one in transfers]
        return [*going, *(Moving(one, method) for method, one in queued if one.task_id == task_id)]

    def close(self) -> None:
        """Fail what has not begun; nothing begins any more. Idempotent."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
        for work, future in waiting:
            future.set_exception(_ended(work))

    def _go_on(self) -> None:
        """Begin what may begin. One thread at a time, in a loop: work that ends at once must not nest."""
        with self._lock:
            if self._beginning:  # by another thread, or further down this one's stack; that one looks again
                return
            self._beginning = True
        while True:
            with self._lock:
                if not self._waiting or self._going >= self.limit:
                    self._beginning = False
                    return
                self._going += 1
                work, future = self._waiting.popleft()
                batch = _Batch(work, self._moved)
                self._batches.add(batch)
            batch.together.add_done_callback(partial(self._finished, batch, future))
            if not self._apart or all(is_own(method) for method, _ in work):
                batch.begin()
            else:
                hook_calls.soon(lambda batch: batch.begin(), batch, lambda _call, batch: str(batch))

    def _finished(self, batch: _Batch, future: Future[None], together: Future[None]) -> None:
        with self._lock:
            self._going -= 1
            self._batches.discard(batch)
        error = together.exception()
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        self._go_on()


class _Batch:
    """One future over the transfers of several methods."""

    def __init__(self, work: Work, moved: Moved | None) -> None:
        self.together: Future[None] = Future()
        self._tell = moved
        self._lock = threading.Lock()
        self._work = work
        self._since_ns = time.time_ns()
        self._over: set[int] = set()  # ids of the lists of transfers that have ended
        self._left = len(work) + 1  # one for the loop itself, so that it ends after all were begun
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Hand the transfers to their methods; once."""
        for method, transfers in self._work:
            self._begin(method, transfers)
        self._count_down()

    def __str__(self) -> str:
        return "; ".join(
            f"{hook_name('staging method', method, 'stage')}, called for task {transfers[0].task_id},"
            for method, transfers in self._work
        )

    def going(self) -> list[Moving]:
        """Return what has not been moved yet: methods tell of all files of theirs together."""
        with self._lock:
            over = set(self._over)
        left = [part for part in self._work if id(part[1]) not in over]
        return [Moving(one, method, self._since_ns) for method, transfers in left for one in transfers]

    def _begin(self, method: Staging, transfers: Sequence[Transfer]) -> None:
        try:
            _make_folders(transfers)
            moving = method.stage(transfers)
            if moving is None:
                self._ended(method, transfers, None)
            elif isinstance(moving, Future):
                moving.add_done_callback(partial(self._moved, method, transfers))
            else:
                raise TypeError(f"its stage() returned {shown(moving)}, which is neither a Future nor None")
        except BaseException as error:
            pass_signal(error)
            self._ended(method, transfers, error)

    def _moved(self, method: Staging, transfers: Sequence[Transfer], moving: Future[None] | Future[Digests]) -> None:
        learnt: object = None
        try:
            error = RuntimeError("it was cancelled") if moving.cancelled() else moving.exception()
            learnt = None if error is not None else moving.result()
        except BaseException as failure:  # of a class of the user's
            pass_signal(failure)
            error = failure
        self._ended(method, transfers, error, learnt)

    def _ended(
        self, method: Staging, transfers: Sequence[Transfer], error: BaseException | None, learnt: object = None
    ) -> None:
        if error is not None:
            error = _named(error, method, transfers)
            with self._lock:
                self._error = error if self._error is None else self._error
        with self._lock:
            self._over.add(id(transfers))
        if self._tell is not None:
            for transfer, digest in zip(transfers, _digests(learnt, len(transfers)), strict=True):
                self._tell(transfer, digest, error)
        self._count_down()

    def _count_down(self) -> None:
        with self._lock:
            self._left -= 1
            last, error = self._left == 0, self._error
        if last and error is not None:
            self.together.set_exception(error)
        elif last:
            self.together.set_result(None)


def _digests(learnt: object, count: int) -> Digests:
    """Return one digest a transfer: methods of the user's own may return anything."""
    if isinstance(learnt, (list, tuple)) and len(learnt) == count and all(isinstance(one, str) for one in learnt):
        return learnt
    return ("",) * count


def _named(error: BaseException, method: Staging, transfers: Sequence[Transfer]) -> BaseException:
    """Return an error that names task and URL: the method's own if it is one of Flow's, else one around it."""
    if is_a(error, FlowError):
        return error
    way = "bring in" if transfers[0].direction is Direction.IN else "bring out"
    reason = text_of(error)
    for transfer in transfers:
        reason = reason.replace(transfer.file.url, masked(transfer.file.url))
    named = StagingError(
        f"task {transfers[0].task_id} on executor {transfers[0].executor}: {name_of(method)} could not {way} "
        f"{_urls(transfers)}: {name_of(error)}: {reason}",
        masked(transfers[0].file.url),
    )
    named.__cause__ = error
    return named


def _make_folders(transfers: Sequence[Transfer]) -> None:
    """Make the directories of files that come in."""
    for transfer in transfers:
        if transfer.direction is Direction.IN:
            transfer.local_path.parent.mkdir(parents=True, exist_ok=True)


def _urls(transfers: Sequence[Transfer]) -> str:
    return ", ".join(masked(transfer.file.url) for transfer in transfers)


def _ended(work: Work) -> StagingError:
    urls = ", ".join(_urls(transfers) for _, transfers in work)
    return StagingError(f"{urls} was not moved: the run ended before its turn")

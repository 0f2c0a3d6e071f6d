"""Batch of transfers: the files of one task and one direction, with one future over the methods that move them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from flow_core.errors import AppTimeout, FlowError, HookError, StagingError
from flow_core.files import File, masked
from flow_core.folders import make_directory
from flow_core.futures.callbacks import Limit, hook_calls
from flow_core.futures.lean import Future as LeanFuture
from flow_core.guard import attribute, is_a, name_of, pass_signal, shown, text_of
from flow_core.hooks import Noted, hook_name, is_own
from flow_core.interfaces.staging import Digests, Direction, Progress, Staging, StagingFuture, Transfer

Work = Sequence[tuple[Staging, Sequence[Transfer]]]
"""Methods and what each of them moves: the files of one task and one direction."""

Moved = Callable[[Transfer, str, BaseException | None], None]
"""Called for each file that was moved, with its digest if known, or could not be. Any thread; must not raise."""


@dataclass(frozen=True, slots=True)
class Moving:
    """A file that is not at its place yet.

    Attributes:
        transfer: Which one.
        method: What moves it; None where a node does, within the task.
        since_ns: Since when it is being moved (int64 ns UTC), None before its turn.
        progress: How far it is, None where not known.
    """

    transfer: Transfer
    method: Staging | None
    since_ns: int | None = None
    progress: Progress | None = None

    def __str__(self) -> str:
        far = "" if self.progress is None else f" ({self.progress})"
        return f"{masked(self.transfer.file.url)}{far}"


class Batch:
    """Hands transfers to their methods, ends when all of these have, and stops them.

    There may be very many that wait for their turn, so each is small until then.

    Attributes:
        future: Ends with the first error if there was one; with AppTimeout before its methods have ended.
        hosts: What a slow transfer of it may hold up: its servers, or where there is none the scheme.
        since_ns: When it had its turn, int64 ns UTC; None before.
        most: How many may be going on at once for its hosts, 0 while that was not asked.
    """

    __slots__ = (
        "_begun",
        "_ended",
        "_error",
        "_going",
        "_isolated",
        "_left",
        "_lock",
        "_over",
        "_settled",
        "_stopped",
        "_tell",
        "_who",
        "future",
        "hosts",
        "most",
        "since_ns",
        "walltime_s",
        "work",
    )  # fmt: skip

    def __init__(self, work: Work, moved: Moved | None, walltime_s: float | None = None, who: str = "") -> None:
        """Take the work, and for messages the task, with the longest time that it may take."""
        self.future: LeanFuture[None] = LeanFuture()
        self.work = work
        self.hosts = _hosts_of(work)
        self.walltime_s = walltime_s
        self.most = 0
        self.since_ns: int | None = None
        self._who = who
        self._tell = moved
        self._lock = threading.Lock()
        self._going: dict[int, Future[None] | Future[Digests]] = {}
        self._over: set[int] = set()  # places in the work of what has ended
        self._left = len(work) + 1  # one for the loop itself, so that it ends after all were begun
        self._error: BaseException | None = None
        self._stopped = False
        self._isolated = True
        self._settled = False
        self._begun = False
        self._ended: Callable[[Batch, BaseException | None], None]

    def begin(
        self,
        ended: Callable[[Batch, BaseException | None], None],
        *,
        apart: bool,
        hook_timeout_s: float | None = None,
    ) -> None:
        """Hand the transfers to their methods; once. ``ended`` is called when nothing is moved any more, to ``settle``.

        With ``apart`` methods that are not Flow's own are called by the thread of hooks. If they have not returned
        after ``hook_timeout_s`` the batch no longer waits for them.
        """
        self._ended = ended
        self._isolated = apart
        self.since_ns = time.time_ns()
        if not apart or all(is_own(method) for method, _ in self.work):
            self._begin_all()
        else:
            # Nothing of the user's may hold up the thread that plans tasks.
            limit = None if hook_timeout_s is None else Limit(hook_timeout_s, self._give_up)
            hook_calls.soon(lambda batch: batch._begin_all(), self, lambda _call, batch: batch._named(), limit)

    def stop(self) -> None:
        """Stop what is being moved; the future ends with an error. Any thread, also before it began; never blocks."""
        with self._lock:
            # Set before the futures are taken: a thread that begins one after that sees it and stops it itself.
            self._stopped = True
            going = list(self._going.items())
        for place, moving in going:
            self._cancel(place, moving)

    def time_out(self) -> None:
        """Fail since the walltime has passed, and stop what is being moved."""
        files = ", ".join(str(moving) for moving in self.moving()) or urls_of(self.work)
        way = "in" if self.work[0][1][0].direction is Direction.IN else "out"
        limit_s = self.walltime_s or 0.0
        error = AppTimeout(
            f"{self._who}: its files were not brought {way} within its walltime of {limit_s:g} s: {files}"
        )
        error.walltime_s = limit_s
        # The future first: the task need not wait until its transfers have really ended.
        self.settle(error)
        self.stop()

    def settle(self, error: BaseException | None) -> None:
        """End the future, unless it has ended."""
        with self._lock:
            first, self._settled = not self._settled, True
        # Outside of the lock: callbacks of the future run here.
        if first and error is not None:
            self.future.set_exception(error)
        elif first:
            self.future.set_result(None)

    def moving(self) -> list[Moving]:
        """Return what has not been moved yet: methods tell of all files of theirs together."""
        with self._lock:
            left = [place for place in range(len(self.work)) if place not in self._over]
            going = dict(self._going)
        told = []
        for place in left:
            method, transfers = self.work[place]
            far = _progress(going.get(place), len(transfers))
            told += [Moving(one, method, self.since_ns, how) for one, how in zip(transfers, far, strict=True)]
        return told

    # -- how

    def _begin_all(self) -> None:
        for place in range(len(self.work)):
            self._begin(place)
        self._all_begun()

    def _all_begun(self) -> None:
        with self._lock:
            first, self._begun = not self._begun, True
        if first:
            self._count_down()

    def _give_up(self, hook: str, told: str) -> None:
        """Fail, since a method does not come back; stop what others have begun."""
        error = HookError(f"{self._task}: {told}", hook)
        self.stop()
        with self._lock:
            idle = [place for place in range(len(self.work)) if place not in self._going]
        for place in idle:
            self._part_ended(place, error)
        self._all_begun()
        self.settle(error)

    def _begin(self, place: int) -> None:
        method, transfers = self.work[place]
        try:
            if self._is_stopped():
                raise _stopped(transfers)
            if attribute(method, "makes_directories") is not True:
                _make_directories(transfers)
            moving = self._moving_by(method, transfers)
            if moving is None:
                self._part_ended(place, None)
            elif isinstance(moving, Future):
                with self._lock:
                    self._going[place] = moving
                if self._is_stopped():  # while stage() was called
                    self._cancel(place, moving)
                moving.add_done_callback(partial(self._moved, place))
            else:
                raise TypeError(f"its stage() returned {shown(moving)}, which is neither a Future nor None")
        except BaseException as error:
            pass_signal(error)
            self._part_ended(place, error)

    def _moving_by(self, method: Staging, transfers: Sequence[Transfer]) -> object:
        if is_own(method):
            return method.stage(transfers)
        with Noted(self._task, "staging method", method, "stage"):
            return method.stage(transfers)

    @property
    def _task(self) -> str:
        return self._who or f"task {self.work[0][1][0].task_id}"

    def _is_stopped(self) -> bool:
        return self._stopped

    def _cancel(self, place: int, moving: Future[None] | Future[Digests]) -> None:
        if not self._isolated or is_own(self.work[place][0]):
            moving.cancel()
        else:
            hook_calls.soon(lambda future: future.cancel(), moving, lambda _call, _future: self._named())

    def _moved(self, place: int, moving: Future[None] | Future[Digests]) -> None:
        learnt: object = None
        try:
            error = RuntimeError("it was cancelled") if moving.cancelled() else moving.exception()
            learnt = None if error is not None else moving.result()
        except BaseException as failure:  # of a class of the user's
            pass_signal(failure)
            error = failure
        # What a method says of its own cancellation is less than why it was stopped.
        if error is not None and self._stopped:
            error = _stopped(self.work[place][1])
        self._part_ended(place, error, learnt)

    def _part_ended(self, place: int, error: BaseException | None, learnt: object = None) -> None:
        method, transfers = self.work[place]
        if error is not None:
            error = named(error, method, transfers)
        with self._lock:
            self._going.pop(place, None)
            if place in self._over:  # it was given up, and comes back all the same
                return
            self._over.add(place)
            if error is not None:
                # The first error is the cause; later ones often follow from it.
                self._error = error if self._error is None else self._error
        if self._tell is not None:
            for transfer, digest in zip(transfers, _digests(learnt, len(transfers)), strict=True):
                self._tell(transfer, digest, error)
        self._count_down()

    def _count_down(self) -> None:
        with self._lock:
            self._left -= 1
            last, error = self._left == 0, self._error
        if last:
            self._ended(self, error)

    def _named(self) -> str:
        return "; ".join(
            f"{hook_name('staging method', method, 'stage')}, called for task {transfers[0].task_id},"
            for method, transfers in self.work
        )


def _progress(moving: Future[None] | Future[Digests] | None, count: int) -> Sequence[Progress | None]:
    """Return how far files are; a class of the user's may return or raise anything."""
    try:
        far: object = moving.progress() if isinstance(moving, StagingFuture) else ()
    except BaseException as error:
        pass_signal(error)
        far = ()
    known = isinstance(far, (list, tuple)) and len(far) == count
    if known and all(one is None or isinstance(one, Progress) for one in far):  # type: ignore[attr-defined]  # a list
        return far  # type: ignore[return-value]  # of the right type, as was just seen
    return (None,) * count


def _hosts_of(work: Work) -> tuple[str, ...]:
    if len(work) == 1 and len(work[0][1]) == 1:
        return (_host_of(work[0][1][0].file),)
    return tuple(sorted({_host_of(one.file) for _, transfers in work for one in transfers}))


def _host_of(file: File) -> str:
    # Without user and password, so that one server is one host.
    return file.netloc.rpartition("@")[2] or file.scheme


def _stopped(transfers: Sequence[Transfer]) -> StagingError:
    text = f"task {transfers[0].task_id}: {_urls(transfers)} was not moved: it was stopped, since the task has ended"
    return StagingError(text, masked(transfers[0].file.url))


def _digests(learnt: object, count: int) -> Digests:
    """Return one digest a transfer: methods of the user's own may return anything."""
    if isinstance(learnt, (list, tuple)) and len(learnt) == count and all(isinstance(one, str) for one in learnt):
        return learnt
    return ("",) * count


def named(error: BaseException, method: Staging, transfers: Sequence[Transfer]) -> BaseException:
    """Return an error that names task and URL: the method's own if it is one of Flow's, else one around it."""
    if is_a(error, FlowError):
        return error
    way = "bring in" if transfers[0].direction is Direction.IN else "bring out"
    reason = text_of(error)
    for transfer in transfers:
        # Libraries put whole URLs into their errors, passwords included.
        reason = reason.replace(transfer.file.url, masked(transfer.file.url))
    wrapped = StagingError(
        f"task {transfers[0].task_id} on executor {transfers[0].executor}: {name_of(method)} could not {way} "
        f"{_urls(transfers)}: {name_of(error)}: {reason}",
        masked(transfers[0].file.url),
    )
    wrapped.__cause__ = error
    return wrapped


def _make_directories(transfers: Sequence[Transfer]) -> None:
    """Make the directories of files that come in."""
    for transfer in transfers:
        if transfer.direction is Direction.IN:
            folder = os.path.dirname(transfer.local_path)
            make_directory(folder or ".")


def _urls(transfers: Sequence[Transfer]) -> str:
    return ", ".join(masked(transfer.file.url) for transfer in transfers)


def urls_of(work: Work) -> str:
    """Return the URLs of what is moved, as messages show them."""
    return ", ".join(_urls(transfers) for _, transfers in work)

"""Handle and meter of a running transfer: to stop it from other threads, and to read its progress."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType

from flow_core.interfaces.staging import FailedTry, Progress

_MARK_S = 1.0  # seconds between two marks of the speed
_MARKS = 10  # marks, so the speed is a mean of about ten seconds: shorter ones jump
_TELL_S = 5.0  # seconds between reports; the submit side's ticker has the same, short transfers report nothing
# One for all meters: only files of directories need it, and a lock for each meter would cost each transfer.
_parts = threading.Lock()


class Meter:
    """Counts the bytes of one transfer. Counted by the thread that moves it, read by any.

    Attributes:
        moved: Bytes that are there.
        total: Bytes of the whole file, None while that is not known.
        failed: The last try, if it failed and nothing has come or gone since.
        tell: Told how far it is, and since how many seconds it is moved, every few seconds while bytes come or go.
        whole: The meter of the directory that the file is in, which counts its bytes, too.
    """

    __slots__ = (
        "_arrived",
        "_began",
        "_clock",
        "_last",
        "_marks",
        "_reported",
        "failed",
        "moved",
        "tell",
        "total",
        "whole",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._reported = self._last = clock()
        self.tell: Callable[[Progress, float], None] | None = None
        self.whole: Meter | None = None
        self.failed: FailedTry | None = None
        self.moved = 0
        self.total: int | None = None
        self._arrived = 0
        self._marks: deque[tuple[float, int]] | None = None  # made when a second has passed, which few transfers take

    def stand(self, moved: int, total: int | None) -> None:
        """Note where a try begins: after the bytes of earlier ones, or at 0."""
        self.moved, self.total, self.failed = moved, total, None

    def add(self, count: int) -> None:
        """Note bytes that have come or gone."""
        self.moved += count
        self._arrived += count
        now = self._clock()
        if now - self._last >= _MARK_S:
            if self._marks is None:
                self._marks = deque([(self._began, 0)], maxlen=_MARKS)
            self._marks.append((now, self._arrived))
            self._last = now
            if self.tell is not None and now - self._reported >= _TELL_S:
                self._reported = now
                self.tell(self.progress(), now - self._began)
        # The directory's meter is written by several threads.
        if self.whole is not None:
            self.whole.add_part(count)

    def add_part(self, count: int) -> None:
        """Note bytes of one of several files that come or go at once. Any thread."""
        with _parts:
            self.add(count)

    @property
    def was_told(self) -> bool:
        """Whether its progress was reported at least once."""
        return self._reported > self._began

    def progress(self) -> Progress:
        """Return how far it is; the speed is that of the last ten seconds or so, silence counted."""
        marks = self._marks
        began, before = (self._began, 0) if marks is None else marks[0]
        passed_s = self._clock() - began
        speed = (self._arrived - before) / passed_s if passed_s > 0 else 0.0
        return Progress(self.moved, self.total, speed, self.failed)


class Handle:
    """Set to stop one transfer, also where its thread waits for the network. Any thread.

    A ``with`` block of it is where the calling thread works for the transfer; after that nothing of it is cut any more.
    Blocks of one handle are not nested.

    Attributes:
        meter: How far it is.
        resting: Gives a context in which the transfer only waits, so that another may have its turn.
    """

    __slots__ = ("_cuts", "_lock", "_outer", "_set", "_stirred", "meter", "resting")

    def __init__(self, resting: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        self.meter = Meter()
        self.resting = resting
        self._set = False
        self._lock = threading.Lock()
        self._stirred: threading.Condition | None = None
        self._cuts: list[Callable[[], object]] | None = None
        self._outer: Handle | None = None

    def is_set(self) -> bool:
        """Return whether the transfer is to stop."""
        return self._set

    def set(self) -> None:
        """Stop it: what it waits for is cut."""
        with self._lock:  # until it is done the transfer is not over, and gives its connections to no other
            self._set = True
            if self._stirred is not None:
                self._stirred.notify_all()
            cuts, self._cuts = self._cuts, None
            for cut in cuts or ():
                cut()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is to stop, or so long; tell whether it is."""
        with self._lock:
            if self._stirred is None:
                self._stirred = threading.Condition(self._lock)
            return self._stirred.wait_for(self.is_set, timeout_s)

    def cut_by(self, cut: Callable[[], object]) -> None:
        """Note what ends a wait; called at once if the transfer is to stop already. Must not block or raise."""
        with self._lock:
            if self._set:
                cut()
            elif self._cuts is None:
                self._cuts = [cut]
            else:
                self._cuts.append(cut)

    def __enter__(self) -> Handle:
        # A transfer may move others: that of a directory moves its files.
        self._outer = current()
        _here.handle = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _here.handle, self._outer = self._outer, None
        with self._lock:
            self._cuts = None


class _Here(threading.local):
    handle: Handle | None = None


_here = _Here()


def current() -> Handle | None:
    """Return the transfer that the calling thread works for."""
    return _here.handle


@contextmanager
def tidying() -> Iterator[None]:
    """Let the calling thread take away what a transfer has left behind, though that was stopped."""
    outer = current()
    _here.handle = None
    try:
        yield
    finally:
        _here.handle = outer

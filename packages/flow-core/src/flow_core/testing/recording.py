"""Recording listener for tests: keeps what an executor reports and notices breaches; and a context to start with."""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flow_core.interfaces.call import Call, FileMoved, FileProgress, TryKey
from flow_core.interfaces.clock import Clock, SystemClock
from flow_core.interfaces.context import RunContext, WithDriver
from flow_core.interfaces.events import Event, EventKind
from flow_core.interfaces.outcome import Ended, Outcome, Place, TryListener
from flow_core.interfaces.sampler import SamplerSpec
from flow_core.interfaces.scaling import ScalingSettings
from flow_core.interfaces.sinks import EventPort


class RecordingListener:
    """A TryListener for tests: keeps starts and outcomes, lets tests wait for them, and collects breaches.

    Attributes:
        outcomes: Outcomes by key, in order of arrival.
        starts: Reports of starts by key.
        breaches: What the executor did against its contract, as sentences.
        on_finished: Called with each batch after it was recorded, on the executor's thread; a test may submit from it.
    """

    def __init__(self) -> None:
        self.outcomes: dict[TryKey, list[Outcome]] = {}
        self.starts: dict[TryKey, list[tuple[int, Place]]] = {}
        self.files: dict[TryKey, list[FileProgress]] = {}
        self.moved_files: list[tuple[Call, tuple[FileMoved, ...]]] = []
        self.breaches: list[str] = []
        self.on_finished: Callable[[Sequence[Outcome]], None] | None = None
        self._changed = threading.Condition()
        # By thread: other threads may report while one submits, and that is no breach.
        self._submitting = threading.local()
        self._making: list[threading.Thread] = []

    @contextmanager
    def submitting(self) -> Iterator[None]:
        """Mark the calling thread as being inside ``submit()``: a report from it is then a breach."""
        self._submitting.now = True
        try:
            yield
        finally:
            self._submitting.now = False

    def _check_thread(self, what: str) -> None:
        if getattr(self._submitting, "now", False):
            self.breaches.append(f"{what} was called from inside submit()")

    def started(self, tries: Sequence[tuple[TryKey, int, Place]]) -> None:
        """Record starts, and a breach if this is inside ``submit()``. Any thread."""
        with self._changed:
            self._check_thread("started")
            for key, time_ns, place in tries:
                self.starts.setdefault(key, []).append((time_ns, place))
            self._changed.notify_all()

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """Record outcomes, then call ``on_finished``."""
        with self._changed:
            self._check_thread("finished")
            for outcome in outcomes:
                known = self.outcomes.setdefault(outcome.key, [])
                known.append(outcome)
                if len(known) > 1:
                    self.breaches.append(f"try {outcome.key} has {len(known)} outcomes: {known}")
            self._changed.notify_all()
        # Outside of the lock, since it may submit, and wait for records.
        if self.on_finished is not None:
            self.on_finished(outcomes)

    def moving(self, key: TryKey, files: Sequence[FileProgress]) -> None:
        """Record what a task tells of its files."""
        with self._changed:
            self.files.setdefault(key, []).extend(files)
            self._changed.notify_all()

    def moved(self, call: Call, files: Sequence[FileMoved]) -> None:
        """Record what an executor has moved for a task."""
        with self._changed:
            self.moved_files.append((call, tuple(files)))
            self._changed.notify_all()

    def ended(self, tries: Sequence[Ended]) -> None:
        """Make the outcomes, and record them: at once, or where this is inside ``submit()`` on another thread."""
        if not getattr(self._submitting, "now", False):
            self._make(tries)
            return
        # Outcomes may be reported as ended from within submit(); made here they would count as a breach.
        making = threading.Thread(target=self._make, args=(tries,), daemon=True)
        self._making.append(making)
        making.start()

    def _make(self, tries: Sequence[Ended]) -> None:
        self.finished([make() for _, make in tries])

    def wait_made(self, timeout_s: float) -> None:
        """Wait until all that was reported as ended has its outcome."""
        for making in list(self._making):
            making.join(timeout_s)

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until a condition over the records holds; tell whether it came to hold within ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def wait_for(self, keys: Sequence[TryKey], timeout_s: float) -> list[Outcome]:
        """Return the outcomes of the keys, waiting for them. Raises AssertionError naming those that never came."""
        wanted = set(keys)
        if not self.wait_until(lambda: wanted <= self.outcomes.keys(), timeout_s):
            missing = sorted(wanted - self.outcomes.keys())
            raise AssertionError(f"no outcome within {timeout_s} s for {len(missing)} tries: {missing[:10]}")
        return [self.outcomes[key][0] for key in keys]

    def wait_started(self, keys: Sequence[TryKey], timeout_s: float) -> bool:
        """Tell whether all keys are reported as started within ``timeout_s``."""
        wanted = set(keys)
        return self.wait_until(lambda: wanted <= self.starts.keys(), timeout_s)


class RecordingPort:
    """An EventPort for tests: keeps every event.

    Attributes:
        wants: All kinds.
        events: What was posted, in order.
    """

    def __init__(self) -> None:
        self.wants = EventKind.ALL
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def post(self, event: Event) -> None:
        """Keep one event, and wake tests that wait for it. Any thread."""
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until a condition over the events holds; tell whether it came to hold within ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)


def run_id_in(run_dir: Path) -> str:
    """Return the run id of tests in a directory: a search for processes by it finds those of no other test run."""
    # A digest of the whole path: directories of tests have the same last name in several test runs.
    return f"test-{run_dir.name}-{zlib.crc32(os.fsencode(run_dir.absolute())):08x}"


def make_context(
    run_dir: Path,
    listener: TryListener,
    *,
    label: str = "executor",
    events: EventPort | None = None,
    epoch: int = 0,
    scaling: ScalingSettings | None = None,
    clock: Clock | None = None,
    start_timeout_s: float = 60.0,
    sampler: SamplerSpec | None = None,
) -> RunContext:
    """Return the context of a run in a directory of the test's own."""
    return RunContext(
        run_id=run_id_in(run_dir),
        epoch=epoch,
        run_dir=run_dir,
        executor_dir=run_dir / label,
        listener=listener,
        events=events if events is not None else RecordingPort(),
        scaling=scaling if scaling is not None else ScalingSettings(strategy="none"),
        lifetime=WithDriver(),
        sampler=sampler,
        logger=logging.getLogger(f"flow.executors.{label}"),
        clock=clock if clock is not None else SystemClock(),
        start_timeout_s=start_timeout_s,
    )

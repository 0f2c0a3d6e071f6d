"""Tools for tests of sampling: a sampler that measures nothing, a sink that waits for samples, and tasks."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.events import Event, EventKind, Sampled
from flow_core.interfaces.sampler import Sample, SamplerSpec
from flow_core.interfaces.sinks import RunInfo

LAST: Final = 7.0
"""CPU seconds in the last sample of a task; in others it is 1."""


class MadeUpSampler:
    """Gives a sample of each task, and one of the node."""

    def sample(self, running: Mapping[int, TryKey], now_ns: int) -> Sequence[Sample]:
        """Return a made-up sample of the node, and one of each task with 1 s of CPU."""
        return [_sample(None, 0, now_ns, 0.0), *(_sample(key, pid, now_ns, 1.0) for pid, key in running.items())]

    def ended(self, ended: Mapping[int, TryKey], now_ns: int) -> Sequence[Sample]:
        """Return made-up last samples."""
        return [_sample(key, pid, now_ns, LAST) for pid, key in ended.items()]

    def close(self) -> None:
        """Do nothing: such a sampler holds nothing."""


def made_up_sampler(interval_s: float = 0.1) -> SamplerSpec:
    """Return what makes such samplers, for processes and threads."""
    # A dotted name, since workers make their own.
    name = f"{__name__}:{MadeUpSampler.__name__}"
    return SamplerSpec(name, interval_s, thread_factory=name)


def _sample(key: TryKey | None, pid: int, now_ns: int, cpu_s: float) -> Sample:
    return Sample(now_ns, key, pid, 1, 50.0, cpu_s, 0.0, 1 << 20, 0.1, 0, 0)


class SampledTasks:
    """A sink that sets an event once ``tries`` tries were sampled, each ``times`` times.

    Attributes:
        seen: Set from then on.
    """

    def __init__(self, tries: int, times: int = 1) -> None:
        self.wants = EventKind.SAMPLE
        self.seen = threading.Event()
        self._tries, self._times = tries, times
        self._seen: Counter[int] = Counter()

    def start(self, run: RunInfo) -> None:
        """Begin a run; nothing is to be opened."""

    def emit(self, events: Sequence[Event]) -> None:
        """Look for samples of tries."""
        for event in events:
            if isinstance(event, Sampled):
                self._seen.update(sample.key for sample in event.samples if sample.key is not None)
        if sum(times >= self._times for times in self._seen.values()) >= self._tries:
            self.seen.set()

    def close(self, timeout_s: float) -> int:
        """End the run; all events were taken, so none is lost."""
        return 0


def wait_for_file(path: str) -> int:
    """Run until a file is there, or a minute is over; return the pid."""
    # Seconds; a bound for tests that fail before they make the file.
    end = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.01)
    return os.getpid()


def burn(path: str) -> int:
    """Use half a second of CPU, then wait for a file; return the pid."""
    end = time.thread_time() + 0.5
    # CPU time and not wall time: on a busy machine half a second of the clock may hold little work.
    while time.thread_time() < end:
        pass
    return wait_for_file(path)

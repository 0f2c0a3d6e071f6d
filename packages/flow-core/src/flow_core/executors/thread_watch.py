"""Sampling of tasks that run in threads of the driver's own process: no file and no connection is needed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.events import EventKind, Sampled
from flow_core.interfaces.outcome import Outcome, Place
from flow_core.interfaces.sampler import Sample
from flow_core.remote.sampling import Start, TaskWatch
from flow_core.remote.usage import begin_thread, thread_used, usage_between


def watch_threads(context: RunContext, label: str, *, report_starts: bool = False) -> TaskWatch | None:
    """Return the sampler of an executor's threads; None where the run wants no samples, or none of threads.

    ``report_starts``: report the starts of tasks that run for a second, for an executor that does not do so itself.
    """
    spec = context.sampler
    if spec is None or not spec.thread_factory or EventKind.SAMPLE not in context.events.wants:
        return None
    node = socket.gethostname()

    def tell(starts: Sequence[Start], samples: Sequence[Sample]) -> None:
        if report_starts and starts:
            context.listener.started([(key, time_ns, Place(label, node=node)) for key, time_ns, _ in starts])
        if samples:
            context.events.post(Sampled(time.time_ns(), label, "", node, "", tuple(samples)))

    return TaskWatch(replace(spec, factory=spec.thread_factory), tell, f"flow-sampling-{label}")


def watched(watch: TaskWatch, key: TryKey, run: Callable[[], Outcome]) -> Outcome:
    """Run a try in the calling thread, watched, and put what it used into its outcome. ``run`` must not raise."""
    thread, before = threading.get_native_id(), begin_thread()
    watch.begin(thread, key)
    # ``run`` never raises, so the watch needs no try block around each task.
    outcome = run()
    outcome.usage = None if before is None else usage_between(before, thread_used())
    watch.end(thread)
    try:
        return outcome
    finally:
        del outcome, run  # a traceback holds this frame, which must not hold its error

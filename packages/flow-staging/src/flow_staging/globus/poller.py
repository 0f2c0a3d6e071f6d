"""Globus poller: one thread that watches all transfers of a staging method."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from flow_core.bounded_calls import start_unless_ending, within
from flow_staging.globus.batch import Batch, TransferApi

_GROWTH = 1.5  # factor between two pauses: short transfers are noticed soon, long ones asked for seldom
_IDLE_S = 5.0  # seconds after which the thread without batches ends; only the magnitude matters
_CLOSE_S = 5.0  # seconds close() waits for Globus to take the cancels


class Poller:
    """Takes batches through their phases: no thread waits for a transfer, however many are under way.

    Args:
        connect: Makes the client, on the poller's thread; its error fails the batches that wait.
        first_s: Pause before a transfer is looked at for the first time.
        last_s: Longest pause between two looks at one transfer.
    """

    def __init__(self, connect: Callable[[], TransferApi], first_s: float, last_s: float) -> None:
        self._connect = connect
        self._first_s = first_s
        self._last_s = last_s
        self._api: TransferApi | None = None
        self._condition = threading.Condition()
        self._due: list[tuple[float, int, float, float, Batch]] = []
        self._number = itertools.count()
        self._thread: threading.Thread | None = None

    def add(self, batch: Batch) -> None:
        """Take a batch; does not block."""
        now = time.monotonic()
        with self._condition:
            self._push(now, self._first_s, now + batch.timeout_s, batch)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="flow-globus", daemon=True)
                # Else the process ends: its close, which comes next, has the transfers ended.
                if start_unless_ending(thread):
                    self._thread = thread
            self._condition.notify()

    def cancel(self, batches: Iterable[Batch]) -> None:
        """Have batches cancelled by the poller's thread, which asks Globus to end their transfers; does not block."""
        now = time.monotonic()
        with self._condition:
            for batch in batches:
                batch.unwanted = True
                self._push(now, self._first_s, now, batch)  # it may have another place here, too
            self._condition.notify()

    def close(self) -> None:
        """Cancel what is under way; returns within about 5 s."""
        with self._condition:
            batches, self._due = list({id(entry[-1]): entry[-1] for entry in self._due}.values()), []
            thread, self._thread = self._thread, None
            self._condition.notify_all()
        if thread is not None:
            # BoundedCall: a request that hangs must not hold the end of the script.
            with suppress(Exception):
                within(_CLOSE_S, partial(self._stop, batches, thread), "flow-globus-end")
        for batch in batches:
            if not batch.future.done():
                batch.stop(None)

    def _stop(self, batches: list[Batch], thread: threading.Thread) -> None:
        thread.join(_CLOSE_S)
        for batch in batches:
            if not batch.future.done():
                batch.stop(self._api)

    def _push(self, due: float, pause: float, ends: float, batch: Batch) -> None:
        heapq.heappush(self._due, (due, next(self._number), pause, ends, batch))

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            _, _, pause, ends, batch = entry
            if batch.future.done():
                continue
            # Before the client is made: stopping works without one.
            if batch.unwanted:
                batch.stop(self._api)
                continue
            now = time.monotonic()
            try:
                if self._api is None:
                    self._api = self._connect()
            except Exception as error:
                batch.fail(error)
                continue
            if batch.step(self._api, late=now >= ends):
                continue
            with self._condition:
                closed = self._thread is not threading.current_thread()
                if not closed and (batch.hurries or batch.unwanted):
                    self._push(time.monotonic(), pause, ends, batch)
                elif not closed:
                    # Not later than the deadline, so that a batch ends in time.
                    due = min(time.monotonic() + pause, max(ends, time.monotonic()))
                    self._push(due, min(pause * _GROWTH, self._last_s), ends, batch)
            if closed:
                batch.stop(self._api)

    def _next(self) -> tuple[float, int, float, float, Batch] | None:
        with self._condition:
            while self._thread is threading.current_thread():
                now = time.monotonic()
                if self._due and self._due[0][0] <= now:
                    return heapq.heappop(self._due)
                waited = self._condition.wait(self._due[0][0] - now if self._due else _IDLE_S)
                if not waited and not self._due:
                    self._thread = None
            return None

"""The receiver thread of a LowLatencyExecutor: takes messages of managers, reports to listener and owner."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, MutableMapping
from functools import partial

from flow_core.errors import ExecutorBroken
from flow_core.guard import one_line
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.outcome import Outcome, TryListener, Verdict
from flow_core.remote.naming import NamesOthers, loads_at_once
from flow_executors.client.file_service import FileService
from flow_executors.client.managers import ManagerDirectory
from flow_executors.client.node_health_core import LONG_NS
from flow_executors.client.outcomes import outcome_from, outcomes_of
from flow_executors.client.receiver import RESUME_AFTER_S, ReceiverCallbacks
from flow_executors.client.withdrawals import Withdrawals
from flow_executors.direct.in_process_interchange import InProcessInterchange
from flow_executors.errors import BadMessage
from flow_executors.wire.kinds import Buffer, Kind, kind_of
from flow_executors.wire.messages import (
    Credit,
    pack_blob,
    pack_cancel,
    unpack_credit,
    unpack_heartbeat,
    unpack_left,
    unpack_need,
    unpack_register,
    unpack_worker,
)
from flow_executors.wire.results import unpack_results
from flow_executors.wire.tasks import Result, one_result


class DirectReceiver:
    """Serves one exchange on a thread of its own. ``keys`` is shared: the thread that takes a key out reports it."""

    def __init__(
        self,
        exchange: InProcessInterchange,
        keys: MutableMapping[int, bytes],
        directory: ManagerDirectory,
        listener: TryListener,
        hooks: ReceiverCallbacks,
        logger: logging.Logger,
        blob: Callable[[bytes], bytes | None],
        ended: Callable[[TryKey], None],
        files: FileService,
    ) -> None:
        self.credit = Credit(0, 0, 0, 0)
        self.inbox: deque[Outcome] = deque()
        """Outcomes made by other threads, to be reported by this one."""
        self.cancelled: dict[int, bool] = {}
        """Keys that are to be cancelled, and whether to kill; sent again to a manager that comes back."""
        self.withdrawals = Withdrawals(self.cancelled)
        self.dropped = 0
        """Results for keys that are not known (any more)."""
        self._exchange = exchange
        self._keys = keys
        self._directory = directory
        self._listener = listener
        self._hooks = hooks
        self._logger = logger
        self._blob = blob
        self._ended = ended
        self._files = files
        self._stopping = False
        self._thread = self._new_thread()
        self._handlers: dict[int, Callable[[Buffer], None]] = {
            Kind.RESULTS: self._results,
            Kind.STARTED: self._started,
            Kind.CREDIT: self._credited,
            Kind.REGISTER: self._registered,
            Kind.WORKER: self._replaced,
            Kind.LEFT: self._left,
            Kind.NEED: self._need,
            Kind.EVENTS: hooks.events,
            Kind.FILE: files.take,
            Kind.NOTICE: lambda message: directory.notice(message, logger),
        }

    def begin(self) -> None:
        """Start the receiver thread; once, see ``resume`` for later."""
        self._thread.start()

    def resume(self) -> bool:
        """Go on after ``broken`` was called; False where the thread has not ended yet. One thread at a time."""
        if self._stopping or self._thread.is_alive():
            return False
        self._exchange.slept()
        self._thread = self._new_thread()
        self._thread.start()
        return True

    @property
    def on_thread(self) -> bool:
        """Whether the caller is the receiver thread."""
        return threading.current_thread() is self._thread

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=f"flow-{self._directory.label}-receiver", daemon=True)

    def stop(self, timeout_s: float) -> bool:
        """End the thread; True if it ended within the time, or is the caller's own."""
        self._stopping = True
        self._exchange.wake()
        if threading.current_thread() is self._thread:
            return True
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        exchange = self._exchange
        try:
            while not self._stopping:
                for message in exchange.take():
                    self._take(message)
                if self.inbox:
                    self._report_inbox()
                if self.withdrawals.waiting:
                    self.withdrawals.settle(self._keys)
        except Exception as error:
            self._logger.exception("the receiver thread failed")
            again = f"A call after {RESUME_AFTER_S:g} s makes a fresh attempt."
            self._hooks.broken(ExecutorBroken(f"an internal error of the executor: {one_line(error)}. {again}"))
            self._report_inbox()

    def _take(self, message: Buffer) -> None:
        one = one_result(message)
        if one is not None and self._report_one(one):
            return
        handler = self._handlers.get(kind_of(message))
        try:
            if handler is not None:
                handler(message)
        except BadMessage as error:
            self._logger.warning("a message of a manager was dropped: %s", error)

    def _report_inbox(self) -> None:
        outcomes = []
        while self.inbox:
            outcomes.append(self.inbox.popleft())
        if outcomes:
            self._listener.finished(outcomes)

    def _report_one(self, result: Result) -> bool:
        """Report a single result, the common case, in few steps; False if that needs more of them."""
        number, offset, key, start, end, worker, payload = result
        directory, keys = self._directory, self._keys
        value, foreign = None, False
        try:
            if len(payload):
                value = loads_at_once(payload)
        except NamesOthers:
            foreign = True
        except BaseException:
            return False
        # Taking the key out decides which thread reports it; nobody else does then.
        app = keys.pop(key, None)
        if app is None:
            self.dropped += 1
            return True
        offset = directory.offset_ns(number, offset)
        place = directory.place(number, worker)
        watch = directory.watch
        if watch is not None and (end - start >= LONG_NS or watch.alert) and place.node:
            watch.succeeded(place.node, app, start + offset, end - start)
        self._ended(TryKey(key))
        mine, start, end = TryKey(key), start + offset, end + offset
        if foreign:
            make = partial(outcome_from, key, Verdict.OK, memoryview(payload), place, start, end)
            self._listener.ended(((mine, make),))
        else:
            self._listener.finished((Outcome(mine, Verdict.OK, value, None, None, place, start, end),))
        return True

    # -- messages

    def _results(self, message: Buffer) -> None:
        batch, keys = unpack_results(message), self._keys
        outcomes, unmade = outcomes_of(batch, keys, self._directory)
        mine = [outcome for outcome in outcomes if keys.pop(outcome.key, None) is not None]
        mine_unmade = [one for one in unmade if keys.pop(one[0], None) is not None]
        self.dropped += len(batch.keys) - len(mine) - len(mine_unmade)
        for key in [*(outcome.key for outcome in mine), *(key for key, _ in mine_unmade)]:
            self._ended(key)
        if mine:
            self._listener.finished(mine)
        if mine_unmade:
            self._listener.ended(mine_unmade)

    def _started(self, message: Buffer) -> None:
        beat, place = unpack_heartbeat(message), self._directory.place
        rows = zip(beat.keys, beat.starts, beat.workers, strict=True)
        tries = [
            (TryKey(key), start + beat.offset_ns, place(beat.manager, worker))
            for key, start, worker in rows
            if key in self._keys
        ]
        if tries:
            self._listener.started(tries)
            self.withdrawals.begun(beat.keys)

    def _credited(self, message: Buffer) -> None:
        self.credit = unpack_credit(message)

    def _registered(self, message: Buffer) -> None:
        number, offer, held = unpack_register(message)
        fresh = self._directory.add(number, offer)
        unknown = [key for key in held if key not in self._keys]
        if unknown:
            self._exchange.tell([pack_cancel(unknown, True)])
        again = [key for key in held if key in self.cancelled]
        if again:
            self._exchange.tell([pack_cancel(again, any(self.cancelled[key] for key in again))])
        self._hooks.joined(number, offer, fresh)

    def _replaced(self, message: Buffer) -> None:
        self._directory.replaced(*unpack_worker(message))

    def _left(self, message: Buffer) -> None:
        departure = unpack_left(message)
        if departure.manager:
            self._directory.remove(departure.manager)
            self._files.left(departure.manager)
        self._hooks.left(departure)

    def _need(self, message: Buffer) -> None:
        for digest in unpack_need(message):
            blob = self._blob(digest)
            if blob is not None:
                self._exchange.tell(pack_blob(digest, blob))

"""The receiver thread: reads the link, turns messages into reports to the listener, keeps an interchange running."""

from __future__ import annotations

import logging
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from flow_core.errors import ExecutorBroken, ExecutorError
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.outcome import Loss, LossKind, Outcome, Place, TryListener, Verdict
from flow_core.remote.naming import NamesOthers, loads_at_once
from flow_executors.client.file_service import FileService
from flow_executors.client.interchange_process import InterchangeProcess, RecoveryDecision, RestartReconciliation
from flow_executors.client.managers import ManagerDirectory
from flow_executors.client.node_health_core import LONG_NS
from flow_executors.client.outcomes import outcome_from, outcomes_of
from flow_executors.client.submission import SubmissionSender
from flow_executors.client.withdrawals import Withdrawals
from flow_executors.common.loop_waits import Pauses
from flow_executors.common.unix_socket_server import UnixSocketServer
from flow_executors.errors import BadMessage
from flow_executors.serialize.buffers import BufferStore
from flow_executors.wire.commands import Command, Reply, pack_command, unpack_reply
from flow_executors.wire.kinds import DIGEST_SIZE, Buffer, Kind, kind_of
from flow_executors.wire.messages import (
    Credit,
    ManagerLeft,
    PeerInfo,
    Registration,
    pack_blob,
    pack_cancel,
    pack_hello,
    unpack_credit,
    unpack_heartbeat,
    unpack_hello,
    unpack_left,
    unpack_need,
    unpack_register,
    unpack_worker,
)
from flow_executors.wire.results import unpack_results
from flow_executors.wire.tasks import Result, one_result
from flow_executors.wire.transport import LinkReader

_OK = Verdict.OK
# Seconds within which a new interchange must have introduced itself, however short the heartbeats are: it says nothing
# while it starts.
_START_S = 20.0
# Reads of the link in one turn, so that a flood of results does not keep tasks from being sent.
_READS = 8
# Seconds that an interchange whose link has ended has to exit, so that its exit code and its last lines are known.
_EXIT_WAIT_S = 1.0
RESUME_AFTER_S = 5.0
"""Seconds after which a new task makes a fresh attempt with an executor whose interchange could not be kept
running."""
# Interchanges in a row that may die without a single result: what ends them would end the next one, too.
_FRUITLESS = 5
# Seconds for which the start of another interchange is tried again, for an executor that has worked: one start that
# failed on a full disk broke it for good.
_AGAIN_S = 60.0
# Longest pause in seconds between two starts; they grow from half a second by doubling.
_LONGEST_PAUSE_S = 8.0
# Deaths within ``_RESTARTS_WITHIN_S`` seconds that end an executor although results came in between.
_RESTARTS = 50
_RESTARTS_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class ReceiverCallbacks:
    """Callbacks to the owner of the receiver. All are called on the receiver thread, and must not block."""

    joined: Callable[[int, Registration, bool], None]
    left: Callable[[ManagerLeft], None]
    events: Callable[[Buffer], None]
    broken: Callable[[ExecutorBroken], None]


class Receiver:
    """Reads the link of one executor after the other incarnation of its interchange."""

    def __init__(
        self,
        handoff: SubmissionSender,
        directory: ManagerDirectory,
        listener: TryListener,
        hooks: ReceiverCallbacks,
        start: Callable[[int], InterchangeProcess],
        who: PeerInfo,
        threshold_s: float,
        patience_s: float,
        logger: logging.Logger,
        blob: Callable[[bytes], bytes | None],
        buffers: BufferStore,
        local_server: UnixSocketServer,
        files: FileService,
    ) -> None:
        self.ready = threading.Event()
        """Set while an interchange that has sent HELLO is connected."""
        self.credit = Credit(0, 0, 0, 0)
        self.dropped = 0
        """Results for keys that are not known (any more)."""
        self.ignored = 0
        self.inbox: deque[Outcome] = deque()
        """Outcomes made by other threads, to be reported by this one."""
        self.cancelled: dict[int, bool] = {}
        """Sent keys that are to be cancelled, and whether to kill."""
        self.withdrawals = Withdrawals(self.cancelled)
        self.barred: tuple[str, ...] = ()
        """Nodes that are held, which the next interchange is to know from its begin."""
        self.replies: dict[int, Callable[[Reply], None]] = {}
        self.incarnation: InterchangeProcess | None = None
        self._handoff = handoff
        self._queues = handoff.queues
        self._directory = directory
        self._listener = listener
        self._hooks = hooks
        self._start = start
        self._who = who
        self._threshold_s = threshold_s
        self._patience_s = patience_s
        self._logger = logger
        self._blob = blob
        self._buffers = buffers
        self._local_server = local_server
        self._files = files
        self._reclaim: RestartReconciliation | None = None
        self._heard = 0.0
        self._greeted = False
        self._deaths: deque[float] = deque(maxlen=_RESTARTS)
        self._fruitless = 0
        self._worked = False
        self._stopping = False
        self._pauses = Pauses()
        self._next = 0
        self._thread = self._new_thread()
        self._handlers: dict[int, Callable[[Buffer], None]] = {
            Kind.HELLO: self._hello,
            Kind.HEARTBEAT: lambda message: None,
            Kind.RESULTS: self._results,
            Kind.STARTED: self._started,
            Kind.CREDIT: self._credited,
            Kind.REGISTER: self._registered,
            Kind.WORKER: self._replaced,
            Kind.LEFT: self._left,
            Kind.NEED: self._need,
            Kind.REPLY: self._reply,
            Kind.EVENTS: hooks.events,
            Kind.FILE: files.take,
            Kind.NOTICE: lambda message: directory.notice(message, logger),
        }

    def begin(self) -> None:
        """Start the first interchange and the thread. Raises ExecutorError."""
        self._use(self._start(0))
        self._thread.start()

    def resume(self) -> bool:
        """Make a fresh attempt after ``ReceiverCallbacks.broken`` was called; if it fails, that is called again.

        Returns False where that is still under way. One thread at a time.
        """
        if self._thread.is_alive():
            return False
        self._fruitless = 0
        self._deaths.clear()
        self._thread = self._new_thread()
        self._thread.start()
        return True

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=f"flow-{self._directory.label}-receiver", daemon=True)

    def stop_expected(self) -> None:
        """The link is about to end on purpose: do not start another interchange."""
        self._stopping = True

    def stop(self, timeout_s: float) -> bool:
        """End the thread after the link has ended, or after the time given; True if it ended."""
        self._stopping = True
        self._handoff.wake()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def on_thread(self) -> bool:
        """Whether the caller is the receiver thread."""
        return threading.current_thread() is self._thread

    # -- the loop

    def _run(self) -> None:
        self._handoff.serve(threading.get_ident())
        try:
            # After ``resume``: the last interchange is gone, and its successor is started on this thread.
            if self.incarnation is None:
                self._restart("")
            while self.incarnation is not None:
                self._serve(self.incarnation)
        except Exception as error:
            self._logger.exception("the receiver thread failed")
            self._break(f"an internal error of the executor: {error!r}", "")

    def _serve(self, incarnation: InterchangeProcess) -> None:
        self._greeted = False
        reader = LinkReader(incarnation.link)
        link, wake, local_server = incarnation.link.fileno(), self._handoff.wake_fd, self._local_server.fileno()
        poller = select.poll()
        for descriptor in (wake, local_server):
            poller.register(descriptor, select.POLLIN)
        congested: bool | None = None
        while not reader.closed:
            # Room to write is watched only while something waits for it: else poll would return at once, for ever.
            if congested is not (congested := self._handoff.congested):
                poller.register(link, select.POLLIN | select.POLLOUT if congested else select.POLLIN)
            due = time.monotonic() + (timeout_ms := self._timeout_ms()) / 1000
            ready = poller.poll(timeout_ms)
            self._handoff.counters.wakeups += 1
            # Stopped with the interchange, most likely, which had no time to speak since.
            if (now := time.monotonic()) > due and self._pauses.away_s(now - due, now):
                self._heard = now
            found = dict(ready)
            # The eventfd first: tasks that are submitted from here on signal again, and none is missed by the flush
            # below.
            if wake in found:
                self._handoff.on_wake()
            if link in found:
                self._read(reader)
            if local_server in found or self._local_server.paused:
                self._hear_managers()
            if self.inbox:
                self._report_inbox()
            if self.withdrawals.waiting:
                self.withdrawals.settle(self._queues.records)
            self._handoff.flush()
            # After reading: messages that are there must not count as silence because this thread was late.
            self._timers(incarnation)
        self._ended(incarnation)

    def _timeout_ms(self) -> int:
        deadline = min(self._heard + self._silence_s(), self._local_server.resumes_at)
        if self._reclaim is not None:
            deadline = min(deadline, self._reclaim.deadline)
        return max(0, int((deadline - time.monotonic()) * 1000) + 1)

    def _read(self, reader: LinkReader) -> None:
        for _ in range(_READS):
            try:
                messages = reader.read()
            except BadMessage as error:
                # Nothing after this can be read: the interchange is replaced, and managers tell the next one what they
                # have.
                self._logger.error("the link to the interchange is out of step: %s", error)
                reader.closed = True
                return
            # Any message shows that the interchange runs, not only a heartbeat.
            self._heard = time.monotonic()
            counters = self._handoff.counters
            counters.messages_in += len(messages)
            counters.bytes_in += sum(map(len, messages))
            for message in messages:
                self._take(message)
            if not reader.more:
                return

    def _hear_managers(self) -> None:
        """Read results that managers sent directly. The interchange sends the same, so bad messages are dropped."""
        for _, _, message in self._local_server.receive():
            one = one_result(message)
            # A manager may speak before the interchange has announced it: the same result comes again through that.
            if one is None or one[0] not in self._directory.managers or not self._report_one(one):
                self.ignored += 1
        self._local_server.disconnected()

    def _take(self, message: Buffer) -> None:
        try:
            handler = self._handlers.get(kind_of(message))
            if handler is None:
                self.ignored += 1
            else:
                handler(message)
        except BadMessage as error:
            self.ignored += 1
            self._logger.warning("a message of the interchange was dropped: %s", error)

    def _report_inbox(self) -> None:
        outcomes = []
        while self.inbox:
            outcomes.append(self.inbox.popleft())
        if outcomes:
            self._listener.finished(outcomes)

    def _timers(self, incarnation: InterchangeProcess) -> None:
        now = time.monotonic()
        if self._reclaim is not None:
            self._settle_claims(now)
        # The longer patience is computed only where the shorter one is over: this runs once a turn.
        if now - self._heard > self._patience_s and now - self._heard > (patience_s := self._silence_s()):
            self._logger.error("the interchange was silent for %g s: it is replaced", patience_s)
            # Killed, not asked: it did not answer, and its link's end starts the next one in ``_ended``.
            incarnation.process.kill()
            self._heard = now

    def _silence_s(self) -> float:
        """Return after how long a silence the interchange is replaced: one that starts has sent nothing before."""
        return self._patience_s if self._greeted else max(self._patience_s, _START_S)

    # -- messages

    def _hello(self, message: Buffer) -> None:
        unpack_hello(message)
        self._greeted = True
        self.ready.set()

    def _results(self, message: Buffer) -> None:
        one = one_result(message)
        if one is not None:
            # The manager told this result directly: the interchange's copy is dropped before anything is unpickled.
            if one[2] not in self._queues.records:
                self.dropped += 1
                return
            if self._report_one(one):
                return
        batch = unpack_results(message)
        records = self._queues.records
        outcomes, unmade = outcomes_of(batch, records, self._directory)
        keys = [outcome.key for outcome in outcomes]
        if unmade:
            keys += [key for key, _ in unmade]
        self.dropped += len(batch.keys) - len(keys)
        if not keys:
            return
        with self._handoff.lock:
            self._queues.finish(keys)
        if self._reclaim is not None:
            self._reclaim.finished(keys)
        self._forget(keys)
        # Deaths are counted anew, as the interchange was of use.
        self._fruitless, self._worked = 0, True
        if outcomes:
            self._listener.finished(outcomes)
        if unmade:
            # Results that may run the user's code are not unpickled here: one that hangs would stop all others.
            self._listener.ended(unmade)
        # After the batch: only now are the functions of its tasks out of use.
        self._handoff.forget_blobs()

    def _report_one(self, result: Result) -> bool:
        """Report a single result, as in a round trip, in few steps; False if that needs more of them."""
        number, offset, raw, start, end, worker, payload = result
        directory, key = self._directory, TryKey(raw)
        if key not in self._queues.records:
            return False
        value, foreign = None, False
        try:
            if len(payload):
                # Outside of the lock: a large result must not hold up those who submit.
                value = loads_at_once(payload)
        except NamesOthers:
            foreign = True
        except BaseException:
            return False
        offset, place = directory.offset_ns(number, offset), directory.place(number, worker)
        watch = directory.watch
        if watch is not None and (end - start >= LONG_NS or watch.alert) and place.node:
            watch.succeeded(place.node, self._queues.records.get(raw, b"")[:DIGEST_SIZE], start + offset, end - start)
        with self._handoff.lock:
            self._queues.finish((key,))
        if self._reclaim is not None:
            self._reclaim.finished((key,))
        # Most tasks are in none of them; two look-ups a result are saved.
        buffers = self._buffers
        if self.cancelled or buffers.by_key or buffers.code.by_key or self._files.declared:
            self._forget((key,))
        self._fruitless, self._worked = 0, True
        start, end = start and start + offset, end and end + offset
        if foreign:
            make = partial(outcome_from, key, _OK, memoryview(payload), place, start, end)
            self._listener.ended(((key, make),))
        else:
            self._listener.finished((Outcome(key, _OK, value, None, None, place, start, end),))
        return True

    def _started(self, message: Buffer) -> None:
        beat = unpack_heartbeat(message)
        records, place = self._queues.records, self._directory.place
        offset = self._directory.offset_ns(beat.manager, beat.offset_ns)
        rows = zip(beat.keys, beat.starts, beat.workers, strict=True)
        tries = [
            (TryKey(key), start + offset, place(beat.manager, worker)) for key, start, worker in rows if key in records
        ]
        if tries:
            self._listener.started(tries)
            self.withdrawals.begun(beat.keys)

    def _credited(self, message: Buffer) -> None:
        self.credit = unpack_credit(message)
        with self._handoff.lock:
            # Under the lock, since submitting threads compare with it while they take tasks.
            self._queues.window = self.credit.window

    def _registered(self, message: Buffer) -> None:
        number, offer, held = unpack_register(message)
        fresh = self._directory.add(number, offer)
        if self._reclaim is not None:
            self._reclaim.registered(offer.identity, held)
            # The same manager under another number, which it never learned as the interchange died: it must not count
            # twice.
            for before in self._directory.of(offer.identity) - {number} if fresh else ():  # it never learned those
                self._directory.remove(before)
        # These have their outcome, or were given up: their workers are for tasks that somebody waits for.
        unknown = [key for key in held if key not in self._queues.records]
        if unknown:
            self._handoff.send(pack_cancel(unknown, True))
        # The interchange that had the order is gone, perhaps before it passed it on.
        again = [key for key in held if key in self.cancelled]
        if again:
            self._handoff.send(pack_cancel(again, any(self.cancelled[key] for key in again)))
        self._hooks.joined(number, offer, fresh)

    def _replaced(self, message: Buffer) -> None:
        self._directory.replaced(*unpack_worker(message))

    def _left(self, message: Buffer) -> None:
        departure = unpack_left(message)
        if departure.manager:
            offer = self._directory.remove(departure.manager)
            self._files.left(departure.manager)
            if self._reclaim is not None and offer is not None:
                # A manager that leaves will claim nothing: the reconciliation need not wait for it.
                self._reclaim.registered(offer.identity, ())
        self._hooks.left(departure)

    def _need(self, message: Buffer) -> None:
        for digest in unpack_need(message):
            blob = self._blob(digest)
            if blob is not None:
                for piece in pack_blob(digest, blob):
                    self._handoff.send(piece)

    def _reply(self, message: Buffer) -> None:
        reply = unpack_reply(message)
        waiter = self.replies.pop(reply.number, None)
        if waiter is not None:
            waiter(reply)

    # -- another interchange

    def _ended(self, incarnation: InterchangeProcess) -> None:
        self._handoff.disconnect()
        self.ready.clear()
        self._fail_replies()
        if self._stopping:
            incarnation.close()
            self.incarnation = None
            return
        # Ended before the next one starts: both would read the same listening socket.
        incarnation.end(_EXIT_WAIT_S)
        incarnation.close()
        code, tail = incarnation.process.returncode, incarnation.tail()
        self._logger.error("the interchange ended unexpectedly (%s)%s", _manner(code), f": {tail}" if tail else "")
        now = time.monotonic()
        self._deaths.append(now)
        self._fruitless += 1
        often = len(self._deaths) == _RESTARTS and now - self._deaths[0] < _RESTARTS_WITHIN_S
        if often or self._fruitless >= _FRUITLESS:
            count = f"{_RESTARTS} times within {_RESTARTS_WITHIN_S:g} s" if often else f"{_FRUITLESS} times in a row"
            self._break(f"its interchange died {count} ({_manner(code)})", tail)
            return
        # The first death is made good at once; the next ones may share a cause that needs time, such as a lack of
        # memory.
        if self._worked and self._fruitless > 1:
            self._pause(min(_LONGEST_PAUSE_S, 2.0 ** (self._fruitless - 2)))
        self._restart(tail)

    def _restart(self, tail: str) -> None:
        """Start another interchange; where that cannot be done now, and it could before, try again for a while."""
        deadline, pause_s = time.monotonic() + _AGAIN_S, 0.5
        while not self._stopping:
            try:
                self._use(self._start(self._next))
                return
            except ExecutorError as error:
                # An executor that never worked fails at once: what is wrong is most likely its configuration.
                if not self._worked or time.monotonic() >= deadline:
                    self._break(str(error), tail)
                    return
                self._logger.warning("%s; the next attempt is made in %g s", error, pause_s)
            self._pause(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
        self.incarnation = None

    def _pause(self, seconds: float) -> None:
        """Wait while there is no interchange, and report what others hand over."""
        poller, until = select.poll(), time.monotonic() + seconds
        poller.register(self._handoff.wake_fd, select.POLLIN)
        while not self._stopping and (left := until - time.monotonic()) > 0:
            if poller.poll(int(left * 1000) + 1):
                self._handoff.on_wake()
            if self.inbox:
                self._report_inbox()

    def _fail_replies(self) -> None:
        """Answer the commands that are out with an error: the interchange that had them is gone."""
        while self.replies:
            number, waiter = self.replies.popitem()
            waiter(Reply(number, (), "the interchange ended before it answered"))

    def _use(self, incarnation: InterchangeProcess) -> None:
        self.incarnation = incarnation
        self._files.reset()
        self._next = incarnation.number + 1
        now = time.monotonic()
        self._heard = now
        sent = self._queues.sent()
        # The first interchange finds no managers of an earlier one: nothing is to be reconciled.
        if incarnation.number:
            managers = {offer.identity for offer in self._directory.managers.values()}
            # Managers have as long to come back as they may be silent; until then it is open whether a task runs.
            self._reclaim = RestartReconciliation(managers, sent, now + self._threshold_s)
        first: list[Buffer] = [pack_hello(self._who)]
        if self.barred:
            first.append(pack_command(Command(0, "nodes", nodes=self.barred)))
        self._handoff.connect(incarnation.link, first)

    def _settle_claims(self, now: float) -> None:
        reclaim = self._reclaim
        decision = reclaim.decision(now) if reclaim is not None else None
        if reclaim is None or decision is None:
            return
        self._reclaim = None
        self._forget_absent(reclaim)
        keys = sorted(reclaim.unclaimed)
        if decision is RecoveryDecision.LOST:
            reason = "the interchange died, and no manager that came back to the next one had the task"
            self.report_lost(keys, Loss(LossKind.INTERCHANGE, Place(self._directory.label), reason=reason))
            return
        # Provably not started, so a cancelled one ends here instead of being sent again.
        dead = [key for key in keys if key in self.cancelled]
        self.report([Outcome(TryKey(key), Verdict.CANCELLED) for key in dead])
        with self._handoff.lock:
            self._queues.send_again([key for key in keys if key not in self.cancelled])
        self._handoff.flush()

    def _forget_absent(self, reclaim: RestartReconciliation) -> None:
        """Report managers that did not come back in time as gone: the new interchange never saw them, and cannot."""
        for number, offer in [*self._directory.managers.items()]:
            if offer.identity in reclaim.absent:
                self._directory.remove(number)
                reason = "it did not come back after the interchange was replaced"
                self._hooks.left(ManagerLeft(number, offer.manager_id, offer.block, offer.node, reason, True))

    def _break(self, reason: str, tail: str) -> None:
        text = f"the executor {self._directory.label} is broken: {reason}"
        incarnation, self.incarnation = self.incarnation, None
        self.credit = Credit(0, 0, 0, 0)
        if incarnation is not None:
            incarnation.end(0.0)
            incarnation.close()
        self._handoff.disconnect()
        text = f"{text}. Its last words: {tail}" if tail else text
        self._hooks.broken(ExecutorBroken(f"{text}. A call after {RESUME_AFTER_S:g} s makes a fresh attempt."))

    # -- reports

    def report_lost(self, keys: Sequence[int], loss: Loss) -> None:
        """Report tasks as lost. Receiver thread."""
        self.report([Outcome(TryKey(key), Verdict.LOST, None, None, loss, loss.place) for key in keys])

    def report(self, outcomes: Sequence[Outcome]) -> None:
        """Report outcomes made here and forget their tasks. Receiver thread, or after it has ended."""
        if outcomes:
            keys = [outcome.key for outcome in outcomes]
            with self._handoff.lock:
                self._queues.finish(keys)
            self._forget(keys)
            self._listener.finished(outcomes)

    def _forget(self, keys: Sequence[TryKey]) -> None:
        # Guards around both loops: nearly always nothing is cancelled, and nothing is out of band.
        for key in keys if self.cancelled else ():
            self.cancelled.pop(key, None)
        buffers = self._buffers
        for key in keys if buffers.by_key or buffers.code.by_key else ():
            buffers.release(key)
        if self._files.declared:
            self._files.forget(keys)


def _manner(code: int | None) -> str:
    if code is None:
        return "it could not be ended"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"

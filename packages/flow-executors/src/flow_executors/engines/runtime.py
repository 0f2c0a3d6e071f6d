"""A started executor on an engine: what waits, what the engine has, its workers and blocks, and each try's one outcome.

Three threads: one hands batches over and looks around, one makes calls of the engine that may take their time
(``cancel``, ``kill``), and the scaler's, where the executor has blocks. Results come on threads of the engine's.

Whoever takes a try out of ``_tries`` reports it, so each is reported once. The lock is never held while the engine, the
listener or the scaler is called.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

from flow_core.bounded_calls import within
from flow_core.errors import ExecutorBroken, ExecutorClosed, ScalingFailed, TaskRefused
from flow_core.executors.reports import TryReports
from flow_core.folders import current_directory, make_directory
from flow_core.guard import one_line, pass_signal, to_log
from flow_core.interfaces.call import Call, NodeContext, TaskSpec, TryKey
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.events import EventKind, NodeJoined, NodeLeft
from flow_core.interfaces.executor import ShutdownReport
from flow_core.interfaces.outcome import Ended, Loss, LossKind, Outcome, Place, Verdict
from flow_core.interfaces.scaling import Load
from flow_core.interfaces.waiting import Cause, CauseKind, count, since, tasks_ahead
from flow_core.remote.naming import names_globals
from flow_core.remote.parcel import pack_task, unpack_result
from flow_core.remote.sandbox import SandboxFiles
from flow_core.remote.script_files import FilesByConnection
from flow_executors.engines.batching_core import BatchingCore, Waiting
from flow_executors.engines.engine import Batch, Engine, EngineLoss, EngineWorker, NotSent
from flow_executors.engines.journals import Journals, Told
from flow_executors.scaling.block import Bounds
from flow_executors.scaling.failures import BlockErrorHandler
from flow_executors.scaling.host import BlockOrder
from flow_executors.scaling.job_hosts_core import Joined
from flow_executors.scaling.scaler import Scaler
from flow_executors.wire.commands import BlockActivity, Reply
from flow_providers.interfaces.provider import ExecutionProvider

_LOOK_S = 1.0  # seconds between looks at the engine, and at batches that take long
_ANSWER_S = 2.0  # seconds for the engine to tell which workers have tasks
_LONG_NS = 500_000_000  # a batch that the engine has had for so long is looked at
_REPORTS_S = 2.0  # seconds for the last reports of files: they lie in files of the run
_SHARE = 0.4  # of the time of a shutdown for the engine itself; the rest is for blocks


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What an executor wants of its runtime.

    Attributes:
        label: Its label.
        make: Makes the engine.
        provider: Where blocks come from; None: the engine is borrowed.
        working_dir: Directory for staged files on the nodes.
        most: Most tasks of one batch.
        guessed_slots: Tasks that one node of a block runs at once.
        block_error_handler: What decides whether failed blocks end the tasks.
        bounds: How long blocks that do not work are borne with.
        environment: Variables of the blocks.
    """

    label: str
    make: Callable[[RunContext], Engine]
    provider: ExecutionProvider | None
    working_dir: str | None
    most: int
    guessed_slots: int
    block_error_handler: bool | BlockErrorHandler | None
    bounds: Bounds
    environment: tuple[tuple[str, str], ...]


@dataclass(slots=True, eq=False)
class _Sent:
    """A batch that the engine has.

    Attributes:
        number: Its number.
        tries: Its tries; None in the place of one that has been reported, or goes elsewhere.
        spec: Their class.
        since_ns: Since when.
        closed: Whether it begins with nothing more.
        started: Indices whose start has been reported.
        pid: Process that runs it, as far as known.
        cancelled: Keys that are to be cancelled.
    """

    number: int
    tries: list[Waiting | None]
    spec: TaskSpec
    since_ns: int
    closed: bool = False
    started: set[int] = field(default_factory=set)
    pid: int = 0
    cancelled: set[TryKey] = field(default_factory=set)

    def index(self, key: TryKey) -> int | None:
        """Return which of its tries has that key."""
        return next((index for index, one in enumerate(self.tries) if one is not None and one.key == key), None)

    @property
    def left(self) -> list[Waiting]:
        """Its tries that are not reported."""
        return [one for one in self.tries if one is not None]


class EngineRuntime:
    """A running executor. Any thread. It is the engine's ``EngineEvents``, and the scaler's ``BlockOwner``."""

    def __init__(self, plan: EnginePlan, context: RunContext) -> None:
        """Start everything. Raises ExecutorError; then nothing is left running."""
        self.plan = plan
        self.label = plan.label
        self._context = context
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._core = BatchingCore(plan.most)
        self._tries: dict[TryKey, _Sent | None] = {}
        self._sent: dict[int, _Sent] = {}
        self._numbers = 0
        self._workers: dict[str, EngineWorker] = {}
        self._apart = False  # a worker has been seen that is not on this machine
        self._idle_since: dict[str, float] = {}
        self._retired: set[str] = set()
        self._idle = False  # the thread that hands over waits for something to do
        self._closing = False
        self._closed: ShutdownReport | None = None
        self._close_lock = threading.Lock()
        self._broken: ExecutorBroken | None = None
        self._next_look = 0.0
        self._to_report: list[Outcome] = []
        self._places: dict[tuple[str, int], Place] = {}
        self._began = time.monotonic()
        make_directory(context.executor_dir)
        try:
            self._journals: Journals | None = Journals(context.executor_dir)
        except OSError as error:
            context.logger.warning("%s: a batch that is lost will be lost whole: %s", plan.label, error)
            self._journals = None
        self._reports: TryReports | None = None
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._scaler: Scaler | None = None
        self._engine = plan.make(context)
        self._engine.open(self, context.start_timeout_s)
        self._core.reserve = 1 if self._engine.elastic else 0
        self._core.target_s = self._engine.batch_s or self._core.target_s
        try:
            if plan.provider is not None:
                self._scaler = Scaler(
                    self,
                    plan.provider,
                    context,
                    plan.block_error_handler,
                    slots_hint=self.slots_per_block,
                    bounds=plan.bounds,
                )
                self._scaler.start()
        except BaseException:
            self._engine.close(5.0)
            raise
        self._reports = TryReports(context, plan.label, lambda: len(self._tries))
        self._threads = [
            threading.Thread(target=self._hand_over, name=f"flow-engine-{plan.label}", daemon=True),
            threading.Thread(target=self._make_calls, name=f"flow-engine-calls-{plan.label}", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    # -- the executor's side

    def submit(self, key: TryKey, call: Call) -> None:
        """Take a try. Raises ExecutorClosed, ExecutorBroken."""
        self._check_open()
        outcome = None
        try:
            refusal = self._engine.refusal(call.spec)
            if refusal:
                raise TaskRefused(f"executor {self.label!r} can never run it: {refusal}")
            one = Waiting(key, self._packed(key, call), call.spec, _name(call))
            if not self._engine.shares_disk and call.steps and isinstance(call.steps[0], FilesByConnection):
                one.files = call.steps[0]
        except TaskRefused as error:
            outcome = Outcome(key, Verdict.REFUSED, error=error)
        with self._changed:
            self._check_open()
            self._tries[key] = None
            if outcome is not None:
                self._to_report.append(outcome)
            else:
                self._core.add(one)
            if self._idle and (outcome is not None or self._core.slots or self._core.reserve):
                self._wake()
        if self._reports is not None:
            self._reports.wake()

    def cancel(self, keys: Iterable[TryKey], kill: bool) -> None:
        """Cancel tries: what waits at once; of what the engine has, whatever it says that it can."""
        with self._changed:
            for key in keys:
                if self._core.remove(key) is not None:
                    self._to_report.append(Outcome(key, Verdict.CANCELLED))
                    self._wake()
                elif (sent := self._tries.get(key)) is not None:
                    sent.cancelled.add(key)
                    self._calls.put(partial(self._cancel_sent, sent, key, kill))

    def withdraw(self, key: TryKey) -> bool | None:
        """Take a try back that has not begun; False if it has, None if nobody can say."""
        with self._changed:
            if self._core.remove(key) is not None:
                self._to_report.append(Outcome(key, Verdict.CANCELLED))
                self._wake()
                return True
            sent = self._tries.get(key)
        if sent is None:
            return None
        told = self._close_batch(sent)
        index = sent.index(key)
        if index is None:
            return None
        if index in told.begun:
            # It runs, or has seen that the batch is closed: of that its result tells.
            return False if index in told.results or max(told.begun) > index else None
        if not (self._all_here() and self._engine_tells_here(told)):
            return None
        return self._take_back(sent, [key])

    def load(self) -> Load:
        """Return the load."""
        with self._lock:
            slots, waiting = self._core.slots, self._core.waiting
            outstanding = len(self._tries)
        running = max(0, min(slots, outstanding - waiting))
        counts = self._scaler.counts() if self._scaler is not None else ()
        return Load(max(0, outstanding - running), running, slots, tuple(counts), self.slots_per_block)

    def why_waiting(self, key: TryKey) -> list[Cause]:
        """Return what keeps a try from being done."""
        with self._lock:
            if key not in self._tries:
                return []
            sent, waits = self._tries[key], key in self._core
            ahead, slots, workers = self._core.ahead(key), self._core.slots, len(self._workers)
        if sent is not None:
            return self._why_out(sent, key)
        if not waits:
            return [Cause(CauseKind.UNKNOWN, f"{self.label!r} is about to report it")]
        causes = []
        if workers:
            has = f"{count(slots, 'slot')} on {count(workers, 'worker')}"
            text = f"{tasks_ahead(ahead)} at {self.label!r}, which has {has}"
            causes.append(Cause(CauseKind.QUEUED, text))
        else:
            causes.append(
                Cause(CauseKind.NO_WORKER, f"no worker of {self._engine.name} is connected to {self.label!r}")
            )
        return [*causes, *(self._scaler.why_waiting() if self._scaler is not None else ())]

    def _why_out(self, sent: _Sent, key: TryKey) -> list[Cause]:
        told, index = self._read(sent), sent.index(key)
        if index is not None and index in told.begun:
            text = f"process {told.pid} on {told.node} runs it {since(told.begun[index], time.time_ns())}"
            return [Cause(CauseKind.RUNNING, f"{text}, says {self._engine.name}", since_ns=told.begun[index])]
        if index is None:
            return [Cause(CauseKind.UNKNOWN, f"{self.label!r} is about to report it")]
        with self._lock:
            workers, slots = len(self._workers), self._core.slots
        if not workers:
            text = f"{self._engine.name} has it, and no worker of it is connected"
            causes = [Cause(CauseKind.NO_WORKER, text)]
            return [*causes, *(self._scaler.why_waiting() if self._scaler is not None else ())]
        text = f"{self._engine.name} has it for {count(slots, 'slot')}, {since(sent.since_ns, time.time_ns())}"
        if index:
            text += f", and {tasks_ahead(index)} in its batch"
        if why := self._engine.why(sent.spec):
            text += f"; {why}"
        return [Cause(CauseKind.QUEUED, text)]

    def workers(self) -> list[EngineWorker]:
        """Return the workers that are connected."""
        with self._lock:
            return list(self._workers.values())

    @property
    def scaler(self) -> Scaler:
        """What has the blocks. Raises ScalingFailed: the engine is borrowed."""
        if self._scaler is None:
            raise ScalingFailed(f"executor {self.label} has no blocks: its engine is somebody else's")
        return self._scaler

    @property
    def has_blocks(self) -> bool:
        """Whether there is a scaler."""
        return self._scaler is not None

    def close(self, timeout_s: float) -> ShutdownReport:
        """End everything within about the time given. Idempotent."""
        with self._close_lock:
            if self._closed is None:
                self._closed = self._close(timeout_s)
            return self._closed

    # -- EngineEvents

    def joined(self, worker: EngineWorker) -> None:
        """A worker is there."""
        with self._changed:
            known = self._workers.get(worker.name)
            self._workers[worker.name] = worker
            self._apart = self._apart or not worker.here
            self._core.slots += worker.slots - (known.slots if known is not None else 0)
            self._idle_since[worker.name] = time.monotonic()
            self._wake()
        if known is not None:
            return
        context = self._context
        context.logger.info("worker %s joined: %d slots on %s", worker.name, worker.slots, worker.node)
        if self._scaler is not None and worker.block:
            self._scaler.joined(Joined(worker.block, worker.name, worker.node, ""))
        if context.events.wants & EventKind.NODE:
            now = context.clock.time_ns()
            context.events.post(
                NodeJoined(
                    now,
                    self.label,
                    worker.block,
                    worker.node,
                    worker.name,
                    worker.pid,
                    worker.slots,
                    worker.cpu_count,
                    worker.memory_bytes,
                    worker.python,
                )
            )

    def left(self, name: str, reason: str, *, lost: bool) -> None:
        """A worker has gone."""
        with self._changed:
            worker = self._workers.pop(name, None)
            if worker is None:
                return
            self._core.slots -= worker.slots
            self._idle_since.pop(name, None)
            lost = lost and name not in self._retired and not self._closing
            self._retired.discard(name)
        context = self._context
        context.logger.log(30 if lost else 20, "worker %s on %s left: %s", name, worker.node, reason)
        if self._scaler is not None and worker.block:
            self._scaler.left(worker.block, reason)
        if context.events.wants & EventKind.NODE:
            now = context.clock.time_ns()
            context.events.post(NodeLeft(now, self.label, worker.block, name, reason, lost))

    def began(self, number: int, at_ns: int, node: str) -> None:
        """A worker has a batch."""
        with self._lock:
            sent = self._sent.get(number)
            one = sent.tries[0] if sent is not None else None
            if sent is None or 0 in sent.started:
                return
            sent.started.add(0)
        if self._journals is not None:
            self._journals.begun(number, at_ns, node)
        if one is not None:
            self._context.listener.started([(one.key, at_ns, self._place(node, 0))])

    def ended(self, number: int, results: Sequence[bytes | None]) -> None:
        """A batch has come to an end."""
        finished: list[Outcome] = []
        later: list[Ended] = []
        with self._changed:
            sent = self._over(number)
            if sent is None:
                return
            back = []
            if not isinstance(results, list | tuple) or len(results) != len(sent.tries):
                results = [b""] * len(sent.tries)  # said of each what it is: no result
            for index, one in enumerate(sent.tries):
                if one is None:
                    continue
                result = results[index]
                if result is None:
                    if one.key in sent.cancelled:
                        self._tries.pop(one.key, None)
                        finished.append(Outcome(one.key, Verdict.CANCELLED))
                    else:
                        self._tries[one.key] = None
                        back.append(one)
                elif self._tries.pop(one.key, sent) is sent:
                    self._note_result(one, result, finished, later)
            self._core.give_back(back)
            self._wake()
        self._tell(finished, later)
        self._forget(sent)

    def failed(self, number: int, error: BaseException) -> None:
        """A batch has come to no end."""
        with self._lock:
            sent = self._sent.get(number)
        if sent is None:
            return
        loss = self._loss(error)
        told = self._read(sent)  # outside of the lock: it may lie on a disk that takes its time
        with self._changed:
            if self._over(number) is not sent:
                return
            finished, later = self._settle(sent, told, loss)
            self._wake()
        self._context.logger.info("%s: a batch of %d tasks was lost: %s", self.label, len(sent.tries), loss.reason)
        self._tell(finished, later)
        self._forget(sent)

    def broken(self, text: str) -> None:
        """The engine is gone."""
        error = ExecutorBroken(f"executor {self.label!r} is broken: {text}")
        with self._changed:
            if self._broken is not None or self._closing:
                return
            self._broken = error
        self._context.logger.error("%s", error)
        self._fail(error, LossKind.EXECUTOR)

    # -- BlockOwner

    @property
    def slots_per_block(self) -> int:
        """Slots that one block brings: as seen, else as guessed."""
        plan = self.plan
        nodes = plan.provider.nodes_per_block if plan.provider is not None else 1
        seen: dict[str, int] = {}
        with self._lock:
            for worker in self._workers.values():
                if worker.block:
                    seen[worker.block] = seen.get(worker.block, 0) + worker.slots
        return max(seen.values(), default=plan.guessed_slots * nodes)

    def order(self, block: str) -> BlockOrder:
        """Return what a new block is to run. Raises ExecutorClosed, ExecutorBroken, or as the engine does."""
        self._check_open()
        command = self._engine.worker_command(block)
        return BlockOrder(command, self.plan.environment, tuple(self._engine.secrets()))

    def dismiss(self, block: str) -> None:
        """A block's job is over: workers that the engine still counts are gone, too."""
        with self._lock:
            names = [worker.name for worker in self._workers.values() if worker.block == block]
        for name in names:
            self.left(name, "the job of its block is over", lost=True)

    def activity(self) -> Reply:
        """Return which blocks have workers, and for how long each has had nothing to do."""
        busy = self._busy()
        now = time.monotonic()
        blocks: dict[str, BlockActivity] = {}
        with self._lock:
            for name, worker in self._workers.items():
                if busy is None or name in busy:
                    self._idle_since[name] = now
                if not worker.block:
                    continue
                idle_s = now - self._idle_since.get(name, now)
                known = blocks.get(worker.block)
                if known is None:
                    blocks[worker.block] = BlockActivity(worker.block, (name,), (worker.node,), worker.slots, 0, idle_s)
                else:
                    blocks[worker.block] = BlockActivity(
                        worker.block,
                        (*known.managers, name),
                        tuple(dict.fromkeys((*known.nodes, worker.node))),
                        known.slots + worker.slots,
                        0,
                        min(known.idle_for_s, idle_s),
                    )
        return Reply(0, tuple(blocks.values()))

    def _busy(self) -> Collection[str] | None:
        """Return the workers that have tasks; None, for all, where the engine does not say so in time."""
        told: list[Collection[str] | None] = []
        if self._broken is None:
            within(_ANSWER_S, lambda: told.append(self._engine.busy()), f"flow-busy-{self.label}")
        return told[0] if told else None

    def drain(self, blocks: Sequence[str], idle_for_s: float | None) -> Sequence[str]:
        """Have the workers of blocks leave that have nothing to do; return these blocks."""
        least_s = idle_for_s or 0.0
        going = [one for one in self.activity().blocks if one.block in blocks and one.idle_for_s >= least_s]
        names = [name for one in going for name in one.managers]
        with self._lock:
            self._retired.update(names)
        self._engine.retire(names)
        for name in names:
            # From now on they do not count; what the engine tells of them later is of no interest.
            self.left(name, "its block is given back", lost=False)
        return [one.block for one in going]

    def give_up(self, error: ExecutorBroken) -> None:
        """No block can be had now: all tasks get this error, those that come later are taken."""
        self._fail(error, LossKind.BLOCK)

    # -- the thread that hands over

    def _hand_over(self) -> None:
        while True:
            with self._changed:
                self._idle = True
                batches = self._next_batches()
                if not batches and not self._to_report and not self._closing:
                    self._changed.wait(max(0.0, self._next_look - time.monotonic()))
                    batches = self._next_batches()
                self._idle = False
                finished, self._to_report = self._to_report, []
                for outcome in finished:
                    self._tries.pop(outcome.key, None)
                closing = self._closing
            self._tell(finished, [])
            if closing:
                for sent, _ in batches:
                    self._cancelled(sent)
                return
            for sent, batch in batches:
                self._send(sent, batch)
            if time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + _LOOK_S
                self._look()

    def _next_batches(self) -> list[tuple[_Sent, Batch]]:
        """Return the batches that go now. The caller holds the lock."""
        found: list[tuple[_Sent, Batch]] = []
        if self._broken is not None:
            return found
        while tries := self._core.next_batch():
            self._numbers += 1
            number, spec = self._numbers, tries[0].spec
            self._core.sent(spec)
            sent = self._sent[number] = _Sent(number, list(tries), spec, time.time_ns())
            for one in tries:
                self._tries[one.key] = sent
            journal = self._journals.path(number) if self._journals is not None else ""
            first = tries[0]
            parcels = [one.parcel for one in tries]
            found.append((sent, Batch(number, parcels, spec, journal, first.function, first.files)))
        return found

    def _send(self, sent: _Sent, batch: Batch) -> None:
        try:
            self._engine.submit(batch)
        except NotSent:
            self._cancelled(sent)
        except BaseException as error:
            pass_signal(error)
            self.failed(sent.number, error)

    def _look(self) -> None:
        """Look after the engine, and at batches that it has had for long. Never raises."""
        try:
            self._engine.look()
        except BaseException as error:
            pass_signal(error)
            self._context.logger.warning("%s: %s", self.label, one_line(error), exc_info=to_log(error))
        before = time.time_ns() - _LONG_NS
        with self._lock:
            old = [sent for sent in self._sent.values() if sent.since_ns < before]
            slots, waiting = self._core.slots, self._core.waiting
        for sent in old:
            self._look_at(sent, hungry=not waiting and len(self._sent) < slots)

    def _look_at(self, sent: _Sent, *, hungry: bool) -> None:
        """Report what has begun and ended in a batch that takes long; let other workers have what waits in it."""
        told = self._read(sent)
        if told.pid:
            sent.pid = told.pid
        begun = [
            (one.key, told.begun[index], self._place(told.node, told.pid))
            for index, one in enumerate(sent.tries)
            if one is not None and index in told.begun and index not in sent.started
        ]
        if begun:
            sent.started.update(told.begun)
            self._context.listener.started(begun)
        if len(sent.tries) == 1:
            return
        finished: list[Outcome] = []
        later: list[Ended] = []
        with self._changed:
            for index, result in told.results.items():
                if result and index < len(sent.tries) and (one := sent.tries[index]) is not None:
                    if self._tries.get(one.key) is sent:
                        del self._tries[one.key]
                        self._note_result(one, result, finished, later)
                    sent.tries[index] = None
        self._tell(finished, later)
        waits = [one.key for index, one in enumerate(sent.tries) if one is not None and index not in told.begun]
        if waits and hungry and told.here and told.begun and self._close_batch(sent).begun:
            self._take_back(sent, waits, cancel=False)

    # -- the thread of calls

    def _make_calls(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException as error:
                pass_signal(error)
                self._context.logger.warning("%s: %s", self.label, one_line(error), exc_info=to_log(error))

    def _cancel_sent(self, sent: _Sent, key: TryKey, kill: bool) -> None:
        with self._lock:
            if self._tries.get(key) is not sent:
                return
            alone = all(one.key in sent.cancelled for one in sent.left)
        told = self._close_batch(sent)
        index = sent.index(key)
        if index is None:
            return
        if index in told.begun:
            runs = max(told.begun) == index and index not in told.results
            if kill and runs:
                sent.pid = told.pid
                self._engine.kill(sent.number, told.pid)
            return
        if told.here or (self._all_here() and self._engine_tells_here(told)):
            self._take_back(sent, [key])
        if alone and self._engine.cancel(sent.number) is True:
            self._cancelled(sent)
        elif kill and alone and not told.pid:
            self._engine.kill(sent.number, 0)  # nothing is known of where it runs: the engine knows

    def _cancelled(self, sent: _Sent) -> None:
        """The engine never runs a batch."""
        with self._changed:
            if self._over(sent.number) is not sent:
                return
            finished, back = [], []
            for one in sent.left:
                if one.key in sent.cancelled or self._closing:
                    self._tries.pop(one.key, None)
                    finished.append(Outcome(one.key, Verdict.CANCELLED))
                else:
                    self._tries[one.key] = None
                    back.append(one)
            self._core.give_back(back)
            self._wake()
        self._tell(finished, [])
        self._forget(sent)

    # -- batches

    def _close_batch(self, sent: _Sent) -> Told:
        """Have a batch begin with nothing more; return what its journal says after that."""
        if self._journals is None:
            return Told()
        sent.closed = True
        self._journals.close(sent.number)
        return self._read(sent)

    def _take_back(self, sent: _Sent, keys: Collection[TryKey], *, cancel: bool = True) -> bool | None:
        """Take tries out of a batch that surely does not begin with them: cancelled ones, or for other workers."""
        with self._changed:
            back = []
            for key in keys:
                index = sent.index(key)
                if index is None or self._tries.get(key) is not sent:
                    continue
                one, sent.tries[index] = sent.tries[index], None
                assert one is not None
                self._tries[key] = None
                if cancel or key in sent.cancelled:
                    self._to_report.append(Outcome(key, Verdict.CANCELLED))
                else:
                    back.append(one)
            self._core.give_back(back)
            self._wake()
        return True

    def _read(self, sent: _Sent) -> Told:
        return self._journals.read(sent.number) if self._journals is not None else Told()

    def _all_here(self) -> bool:
        """Whether all workers are on this machine, so that they see at once what is written here."""
        return not self._apart and self._journals is not None

    @staticmethod
    def _engine_tells_here(told: Told) -> bool:
        return told.here or not told.pid

    def _over(self, number: int) -> _Sent | None:
        """Take out a batch that has come to its end. The caller holds the lock."""
        sent = self._sent.pop(number, None)
        if sent is not None:
            self._core.over(sent.spec)
        return sent

    def _forget(self, sent: _Sent) -> None:
        if self._journals is not None:
            self._journals.remove(sent.number, closed=sent.closed)

    def _settle(self, sent: _Sent, told: Told, loss: EngineLoss) -> tuple[list[Outcome], list[Ended]]:
        """Return what becomes of the tries of a batch that has come to no end. The caller holds the lock."""
        finished: list[Outcome] = []
        later: list[Ended] = []
        place = self._place(told.node or loss.node, told.pid, loss.worker)
        for index, one in enumerate(sent.tries):
            if one is None or self._tries.get(one.key) is not sent:
                continue
            del self._tries[one.key]
            begun = index in told.begun
            if told.results.get(index):
                self._note_result(one, told.results[index], finished, later)
            elif one.key in sent.cancelled and (loss.cancelled or not begun or told.here):
                finished.append(Outcome(one.key, Verdict.CANCELLED, place=place))
            elif loss.refused:
                finished.append(Outcome(one.key, Verdict.REFUSED, error=TaskRefused(loss.reason), place=place))
            elif told.here and told.begun and not begun:
                # The journal is whole, since its machine is up: and of a batch that began, so this has an end.
                finished.append(Outcome(one.key, Verdict.RETURNED, place=place))
            else:
                finished.append(
                    Outcome(one.key, Verdict.LOST, loss=Loss(loss.kind, place, reason=loss.reason), place=place)
                )
        return finished, later

    def _loss(self, error: BaseException) -> EngineLoss:
        try:
            return self._engine.loss(error)
        except BaseException as failure:
            pass_signal(failure)
            return EngineLoss(LossKind.EXECUTOR, f"{self._engine.name} gave an error: {one_line(error)}")

    # -- outcomes

    def _note_result(self, one: Waiting, result: bytes, finished: list[Outcome], later: list[Ended]) -> None:
        """Sort a result: what may call code of the user's when it is unpacked is unpacked elsewhere."""
        if names_globals(result):
            later.append((one.key, partial(self._outcome, one, result)))
        else:
            finished.append(self._outcome(one, result))

    def _outcome(self, one: Waiting, result: bytes) -> Outcome:
        key = one.key
        try:
            found = unpack_result(result)
        except BaseException as error:
            pass_signal(error)
            reason = f"what {self._engine.name} gave for it is no result of a task: {one_line(error)}"
            place = Place(self.label)
            return Outcome(key, Verdict.LOST, loss=Loss(LossKind.EXECUTOR, place, reason=reason), place=place)
        self._core.took(one.function, max(0, found.ended_ns - found.started_ns) / 1e9)
        place = self._place(found.node, found.pid)
        verdict = Verdict.OK if found.error is None else Verdict.APP_ERROR
        return Outcome(
            key, verdict, found.value, found.error, None, place, found.started_ns, found.ended_ns, found.usage
        )

    def _place(self, node: str, pid: int, worker: str = "") -> Place:
        known = self._places.get((node, pid)) if not worker else None
        if known is None:
            if len(self._places) > 10_000:
                self._places.clear()
            known = Place(self.label, node=node, pid=pid, manager=worker)
            if not worker:
                self._places[node, pid] = known
        return known

    def _tell(self, finished: Sequence[Outcome], later: Sequence[Ended]) -> None:
        if finished:
            self._context.listener.finished(finished)
        if later:
            self._context.listener.ended(later)

    def _fail(self, error: ExecutorBroken, kind: LossKind) -> None:
        """Nothing runs now: what waits is refused, what is out is lost."""
        with self._changed:
            finished = [Outcome(one.key, Verdict.REFUSED, error=error) for one in self._core.clear()]
            for outcome in finished:
                self._tries.pop(outcome.key, None)
            gone = list(self._sent.values())
        self._tell(finished, [])
        for sent in gone:
            told = self._read(sent)
            with self._changed:
                if self._over(sent.number) is not sent:
                    continue
                outcomes, later = self._settle(sent, told, EngineLoss(kind, str(error)))
            self._tell(outcomes, later)
            if self._broken is None:
                self._calls.put(partial(self._engine.cancel, sent.number))
            self._forget(sent)

    # -- how

    def _wake(self) -> None:
        self._changed.notify()

    def _check_open(self) -> None:
        if self._closing:
            raise ExecutorClosed(f"executor {self.label!r} was shut down")
        if self._broken is not None:
            raise ExecutorBroken(str(self._broken))

    def _packed(self, key: TryKey, call: Call) -> bytes:
        """Return a try as bytes. Raises SerializationError."""
        here = self._engine.shares_disk
        where = NodeContext(
            self.label,
            key=key,
            working_dir=self.plan.working_dir if here else None,
            walltime_s=call.spec.walltime_s,
            script_files=None if here else SandboxFiles(),
        )
        blob = None if call.snapshot is None else call.snapshot.blob
        directory = current_directory() if here else ""
        reporting = None if self._reports is None else self._reports.of(call)
        return pack_task(call.func, call.args, call.kwargs, call.spec, call.steps, where, reporting, blob, directory)

    def _close(self, timeout_s: float) -> ShutdownReport:
        began = time.monotonic()
        with self._changed:
            self._closing = True
            finished = [Outcome(one.key, Verdict.RETURNED) for one in self._core.clear()]
            gone = list(self._sent.values())
            self._wake()
        if self._scaler is not None:
            self._scaler.stop()
        self._calls.put(None)
        for outcome in finished:
            self._tries.pop(outcome.key, None)
        self._tell(finished, [])
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(min(_REPORTS_S, timeout_s))
        for sent in gone:
            if self._journals is not None:
                self._journals.close(sent.number)  # what has not begun never does
        with self._changed:
            left = [outcome for outcome in self._to_report if outcome.key in self._tries]
            said = {outcome.key for outcome in left}
            left += [Outcome(key, Verdict.CANCELLED) for key in self._tries if key not in said]
            self._tries.clear()
            self._sent.clear()
            self._to_report.clear()
        self._tell(left, [])
        forced = list(self._engine.close(max(0.5, timeout_s * _SHARE)))
        not_ended: tuple[str, ...] = ()
        if self._scaler is not None:
            forced += self._scaler.close(max(1.0, timeout_s - (time.monotonic() - began)))
            not_ended = self._scaler.not_ended
        if self._reports is not None:
            self._reports.close(min(timeout_s, _REPORTS_S))
        if self._journals is not None:
            self._journals.remove_all()
        return ShutdownReport(tuple(forced), time.monotonic() - began, not_ended=not_ended)


def _name(call: Call) -> str:
    func = call.func
    return f"{getattr(func, '__module__', '')}.{getattr(func, '__qualname__', id(func))}"

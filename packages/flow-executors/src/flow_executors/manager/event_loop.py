"""The event loop of a manager, between interchange and workers, and its signals as bytes in a pipe.

No decision is made here: see ``manager_core``, ``interchange_link`` and ``worker_pool``.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Protocol

from flow_core.interfaces.outcome import LossKind, Verdict
from flow_core.interfaces.sampler import Sample
from flow_core.remote.faults import is_armed, point
from flow_core.remote.sampling import Sampling
from flow_executors.common.resources import ResourceRequest
from flow_executors.errors import BadMessage
from flow_executors.manager.code_cache import BlobFiles, TasksAwaitingCode
from flow_executors.manager.fork_client import Died
from flow_executors.manager.interchange_link import (
    HOLD_BACK_MS,
    InterchangeConnection,
    RegistrationSession,
    ResultSender,
)
from flow_executors.manager.interchange_liveness import InterchangeLiveness
from flow_executors.manager.loop_parts import NodeFileMover, Workers
from flow_executors.manager.manager_core import (
    CoreEffects,
    ExitReason,
    ManagerCore,
    Taken,
)
from flow_executors.manager.node import BlockLifetime
from flow_executors.manager.rank_tasks import NOT_STARTED, RankShell, RankTasks
from flow_executors.manager.results import ResultBuffer, how, interrupted_outcome, pack_returned, worker_loss_outcome
from flow_executors.manager.worker_health import number_of_command
from flow_executors.manager.worker_pool import (
    SWEEP_S,
    PoolEvents,
    RespawnPolicy,
    WorkerEnds,
)
from flow_executors.wire.kinds import Kind, Received, kind_of
from flow_executors.wire.messages import (
    ALL,
    DEFAULT_CLASS,
    DrainMode,
    ExitCode,
    Registration,
    pack_exit,
    pack_files,
    pack_need,
    pack_samples,
    pack_worker,
    unpack_blob,
    unpack_cancel,
    unpack_count,
    unpack_drain,
    unpack_exit,
    unpack_hello,
    unpack_spec,
)
from flow_executors.wire.tasks import one_task, unpack_tasks
from flow_executors.worker.packets import NOTICES

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
# Share of its walltime after which a SIGTERM is taken for the end of the block by walltime: schedulers send it a while
# ahead of SIGKILL.
_LATE = 0.9


class SignalPipe:
    """Catches the signals by which schedulers and users end a job. Main thread only."""

    def __init__(self, block: BlockLifetime) -> None:
        """A SIGTERM late in the block's life is its end."""
        self._walltime_s = block.walltime_s
        self._started = time.monotonic() - block.age_s
        self._read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for signum in (*_ENDING, *NOTICES):
            # A handler that does nothing: the byte in the pipe is what counts, and the loop reads it between two turns.
            signal.signal(signum, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """Return the descriptor that is readable when a signal came."""
        return self._read

    def handle(self, manager: Manager) -> None:
        """Read the signals that came and have the manager act on them; main thread, never blocks."""
        try:
            came = os.read(self._read, 64)
        except BlockingIOError:
            return
        # A job that ends comes before an interruption, where both were sent: its time is short.
        if signal.SIGTERM in came or signal.SIGHUP in came:
            name = "SIGTERM" if signal.SIGTERM in came else "SIGHUP"
            late = bool(self._walltime_s) and time.monotonic() - self._started > _LATE * self._walltime_s
            manager.block_ends(self._walltime_s if late else 0.0, f"its block was ended (the manager received {name})")
        elif signal.SIGINT in came:
            manager.leave(ExitReason(ExitCode.DONE, "it was interrupted (SIGINT)", 1))
        else:
            for notice in NOTICES:
                if notice in came:
                    manager.end_is_near(f"its block is about to end (the manager received {notice.name})")


# In place of a descriptor: the connection has messages that poll does not show.
LINE = -1
_NONE = -2  # no descriptor
# Seconds after which a task that runs is reported as started. Shorter ones say so with their results, so that starts
# cost no message a task.
_STARTS_EVERY_S = 1.0
# Seconds that a drained manager waits for the acknowledgement of its last results: they reach an interchange that is
# well within a quarter of a second.
_LAST_WORDS_S = 2.0
# Seconds; a bound for poll, which cannot take an infinite time.
_HOUR_S = 3600.0
# Share of a block's life: a task that used more of it would not end in another block either, so it is lost to the
# walltime.
_MOST = 0.8

log = logging.getLogger("flow.manager")


class Signals(Protocol):
    """Signals that came, as something to poll."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when one came."""
        ...

    def handle(self, manager: Manager) -> None:
        """Read the signals that came and act on them through the manager; never blocks."""
        ...


class Manager:
    """The manager of one node. One thread: the process's main one. ``direct_channels``: whether workers have them."""

    direct_channels = False

    def __init__(
        self,
        *,
        line: InterchangeConnection,
        worker_pool: Workers,
        core: ManagerCore,
        contact: InterchangeLiveness,
        blobs: BlobFiles,
        offer: Registration,
        run_id: str,
        files: NodeFileMover,
        sampling: Sampling | None = None,
        drain_at: float | None = None,
        signals: Signals | None = None,
        shell: RankShell | None = None,
    ) -> None:
        self._line = line
        self._worker_pool = worker_pool
        self._core = core
        self._blobs = blobs
        self._offer = offer
        self._sampling = sampling
        self._drain_at = drain_at
        self._signals = signals
        self._files = files
        # Asked once: each turn compares the numbers, and a call for each costs more than the comparison.
        self._worker_pool_fd = worker_pool.fileno()
        self._signals_fd = -1 if signals is None else signals.fileno()
        self._files_fd = files.ready_fd
        self._rank_tasks = RankTasks(core, offer.node, shell, worker_pool.envelopes.give)
        self._nodes_fd = _NONE if shell is None else shell.ready_fd
        self._outbox = ResultBuffer()
        self._delivery = ResultSender(line, self._outbox)
        self._poller = select.poll()
        self._member = RegistrationSession(line, contact, offer, self._outbox, self._poller, run_id)
        self._awaiting_code = TasksAwaitingCode()
        self._respawn = RespawnPolicy()
        self._watching = worker_pool.watch(self._replace, self._member.notice, contact.threshold_s)
        # By pid, not by rank: the reason is that of one process, not of what has its rank later.
        self._befell: dict[int, str] = {}  # pid -> why it is being killed, in words
        self._ready: set[int] = set()
        self._last_send = 0.0
        self._in_haste = False  # somebody who cancels tasks waits for the answer
        self._next_starts = 0.0
        self._recall_open = False
        self._drain_deadline: float | None = None
        self._last_moment: tuple[float, float, str] | None = None
        """When to leave after all, for tasks that save their work as the block ends; its walltime, and the reason."""
        self._leaving: ExitReason | None = None
        self._due = 0.0
        """When to look at the clock although nothing happens."""
        self._handlers: dict[int, Callable[[Received, float], None]] = {
            Kind.TASKS: self._take_tasks,
            Kind.BLOB: self._take_blob,
            Kind.SPEC: self._take_spec,
            Kind.ACK: self._take_ack,
            Kind.CANCEL: self._take_cancel,
            Kind.RECALL: self._take_recall,
            Kind.DRAIN: self._take_drain,
            Kind.HELLO: self._take_hello,
            Kind.WELCOME: self._take_welcome,
            Kind.FILE: lambda message, _: self._files.take(message),
            Kind.PLACEMENT: self._rank_tasks.take_placement,
            Kind.RESERVE: self._rank_tasks.take_reserve,
            Kind.RELEASE: self._rank_tasks.take_release,
            Kind.BREAK: self._take_break,
            Kind.REMOTE: self._take_remote,
            Kind.AGAIN: lambda message, _: self._member.unknown(),
            Kind.EXIT: self._take_exit,
            Kind.HEARTBEAT: lambda _, now: self._core.estimator.link(self._member.answer(now)),
        }

    def run(self) -> ExitReason:
        """Serve until it is time to leave; return why."""
        self._poller.register(self._worker_pool_fd, select.POLLIN)
        if self._signals is not None:
            self._poller.register(self._signals_fd, select.POLLIN)
        self._poller.register(self._files_fd, select.POLLIN)
        if self._nodes_fd != _NONE:
            self._poller.register(self._nodes_fd, select.POLLIN)
        self._member.begin()
        # Workers start while the interchange is sought: the registration waits for both.
        for rank in range(self._offer.workers):
            self._worker_pool.spawn(rank)
        while self._leaving is None:
            self._turn()
        self._say_goodbye(self._leaving)
        return self._leaving

    def leave(self, leaving: ExitReason) -> None:
        """End after this turn."""
        if self._leaving is None:
            self._leaving = leaving

    def end_is_near(self, reason: str) -> float:
        """The block will be ended before its time: give back what has not started, and tell tasks that asked for it.

        Leave when what runs is done. Return how long the longest of these tasks may take to save its work, in seconds;
        0 where none asked. Not to be called by a signal handler.
        """
        log.info("%s", reason)
        self._drain()
        if self._member.registered:
            self._member.send_credit(0, 0)  # before outcomes: whoever hears of them may have more tasks at hand
        now = time.monotonic()
        self._hand_out(now)
        needed_s = self._core.end_is_near(now)
        self._tell_tasks(now)
        return needed_s

    def block_ends(self, walltime_s: float, reason: str) -> None:
        """The block is being ended: give back what has not started, report what runs as lost, and leave.

        Tasks that asked to be told have the time for which they asked, and the others with them. Where the block ends
        by its walltime (0: it does not), tasks that ran for most of it are lost to that.
        Not to be called by a signal handler.
        """
        if self._last_moment is not None:
            return  # schedulers may say it several times
        needed_s = self.end_is_near(reason)
        if needed_s:
            self._last_moment = time.monotonic() + needed_s, walltime_s, reason
        else:
            self._end_now(walltime_s, reason)

    def _end_now(self, walltime_s: float, reason: str) -> None:
        now = time.monotonic()
        self._hand_out(now)
        self._interrupt(walltime_s, reason, now)
        self.leave(ExitReason(ExitCode.DONE, reason))

    def _tell_tasks(self, now: float) -> None:
        """Tell tasks that their block ends, those for which it is time."""
        for rank, pid in self._core.to_tell(now):
            log.info("worker %d (pid %d): its task is told that the block ends", rank, pid)
            self._worker_pool.tell(rank, pid)

    def _interrupt(self, walltime_s: float, reason: str, now: float) -> None:
        for key, ran_s in self._core.running_for(now):
            kind = LossKind.WALLTIME if walltime_s and ran_s > _MOST * walltime_s else LossKind.BLOCK
            self._outbox.add(key, *interrupted_outcome(kind, reason))

    # -- one turn

    def _turn(self) -> None:
        self._member.watch()
        # A result that only the client knows bounds the wait: the interchange is to have it within HOLD_BACK_MS.
        held_back = self._delivery.held_back
        ready = self._look(HOLD_BACK_MS if held_back else self._patience_ms())
        now = time.monotonic()
        workers = self._worker_pool_fd in ready
        if workers:
            self._handle(self._worker_pool.pool_events(), now)
            if self._core.quiet:
                self._send(now)  # somebody waits for it, and nothing more will come
        if len(ready) > workers or not ready:
            self._listen(now)
        # Not in every turn: looking at all timers takes longer than passing on a small task.
        if now >= self._due or not ready or not self._member.registered:
            self._look_at_clock(now)
        if self._signals is not None and self._signals_fd in ready:
            self._signals.handle(self)
        if self._files_fd in ready:
            self._send_files()
        if self._nodes_fd in ready:
            self._send_to_nodes()
        self._hand_out(now)
        # The same message as before the wait: a newer one has waited for nothing yet.
        if held_back and held_back is self._delivery.held_back:
            self._delivery.rest()
        self._send(now)

    def _look(self, patience_ms: int) -> Collection[int]:
        """Return the descriptors that are ready, or LINE where it is known without asking."""
        # A ZeroMQ socket swallows the signal of its descriptor whenever it is used: poll alone would sleep on messages.
        if self._line.waiting:
            return (LINE, *dict(self._poller.poll(0)))
        return dict(self._poller.poll(patience_ms))

    def _patience_ms(self) -> int:
        now, core = time.monotonic(), self._core
        due = min(self._member.deadline(now), now + _HOUR_S)
        last = None if self._last_moment is None else self._last_moment[0]
        times = (
            core.deadline(now),
            self._respawn.deadline(),
            self._drain_at,
            self._drain_deadline,
            self._watching.due,
            last,
        )
        for when in times:
            if when is not None and when < due:
                due = when
        if self._sampling is not None:
            due = min(due, self._sampling.due)
        if core.busy:
            due = min(due, self._next_starts)
        if self._worker_pool.shared_results:
            due = min(due, now + SWEEP_S)
        self._due = due
        # Rounded up: rounded down, the loop would spin through the last millisecond.
        return max(0, int((due - now) * 1000) + 1)

    # -- the interchange's messages

    def _listen(self, now: float) -> None:
        messages = self._line.receive()
        if messages:
            self._member.heard(now)
        for message in messages:
            if is_armed:
                point("manager.after_recv")
            handler = self._handlers.get(kind_of(message))
            if handler is None:
                log.debug("message of unknown kind %d ignored", message[0])
                continue
            try:
                handler(message, now)
            # One bad message does not end a manager with running tasks; the log says what was dropped.
            except BadMessage as error:
                log.warning("message dropped: %s", error)
        # What came before the break is read first: it may hold tasks, or the reason.
        if not messages and self._line.broken:
            self._member.lost(now)

    def _take_hello(self, message: Received, now: float) -> None:
        self._member.answered(unpack_hello(message).who)
        self._files.apart = self._member.offer.is_apart
        self._register()

    def _register(self) -> None:
        """Offer the workers, once there are all that there will be."""
        # The registration states the pids of all workers, so it waits until each has started once.
        if self._member.greeted and len(self._ready) == self._offer.workers:
            workers = self._core.workers
            pids = tuple(workers[rank].pid if rank in workers else 0 for rank in range(self._offer.workers))
            self._member.register(pids, self._core.estimator.prefetch, self._held(), self._rank_tasks.spread)

    def _held(self) -> list[int]:
        return [*self._core.held(), *self._awaiting_code.keys(), *self._outbox.keys()]

    def _take_welcome(self, message: Received, now: float) -> None:
        welcome = self._member.welcome(message, self._core.estimator.prefetch, now)
        for rank, pid in enumerate(self._member.sent_pids):
            worker = self._core.workers.get(rank)
            if worker is not None and worker.pid != pid:  # replaced meanwhile
                self._line.send(pack_worker(self._outbox.manager, rank, worker.pid))
        self._watching.bound(self._member.threshold_s)
        self._core.estimator.link(self._member.trip_s)
        # What was held back is among the unacknowledged results, which were just sent.
        self._delivery.forget()
        self._send_to_nodes()
        self._files.registered(welcome.manager)
        self._line.open_short_way(welcome.results)
        self._worker_pool.shared_results.same_host = bool(welcome.host_id) and welcome.host_id == self._offer.host_id

    def _take_tasks(self, message: Received, now: float) -> None:
        # A message of one known task, as in a round trip, needs neither batch nor class.
        one = one_task(message)
        if one is not None and one[0] in self._blobs.where:
            self._core.accept(DEFAULT_CLASS, [one[1:]])
            return
        batch = unpack_tasks(message)
        # Sizes matter for a slow link only: they bound what is taken in advance for it.
        if self._core.estimator.far:
            self._core.estimator.sized(len(batch.keys), len(message))
        # The SPEC goes ahead of the first task of a class: without it the task was never started, and may go elsewhere.
        if not self._core.knows(batch.class_id):
            for key in batch.keys:
                self._outbox.add(key, Verdict.RETURNED, b"its class was not described to the manager")
            return
        tasks = list(zip(batch.keys, batch.records(), strict=True))
        if batch.class_id in self._rank_tasks.classes:
            lost = self._rank_tasks.coming(batch.class_id, batch.keys)
            for key, loss in lost.items():
                self._outbox.add(key, Verdict.LOST, loss)
            tasks = [task for task in tasks if task[0] not in lost]
        missing = self._blobs.missing(batch.digests)
        if missing:
            self._awaiting_code.park(missing, (batch.class_id, tasks))
            self._line.send(pack_need(missing))
        else:
            self._core.accept(batch.class_id, tasks)

    def _take_ack(self, message: Received, now: float) -> None:
        self._member.acknowledged(self._outbox.acknowledge(unpack_count(message, Kind.ACK), now), now)

    def _take_blob(self, message: Received, now: float) -> None:
        piece = unpack_blob(message)
        if self._blobs.add(piece):
            for class_id, tasks in self._awaiting_code.arrived(piece.digest):
                self._core.accept(class_id, tasks)

    def _take_spec(self, message: Received, now: float) -> None:
        class_id, spec = unpack_spec(message)
        demand = ResourceRequest.of(spec, self._core.capacity)
        self._core.add_class(class_id, demand)
        self._rank_tasks.learn(class_id, spec, demand)
        # The core needs what the class takes, the envelope what its worker is to do: walltime, accelerators.
        self._worker_pool.envelopes.learn(class_id, spec)

    def _take_cancel(self, message: Received, now: float) -> None:
        keys, kill = unpack_cancel(message)
        # Tasks that wait for code are not the core's yet.
        parked = self._awaiting_code.remove(set(keys))
        for key in parked:
            self._outbox.add(key, Verdict.CANCELLED)
        self._rank_tasks.ended(parked)
        self._core.cancel(keys, kill)

    def _take_break(self, message: Received, now: float) -> None:
        parked = self._awaiting_code.remove({self._rank_tasks.take_break(message)})
        for key in parked:
            self._outbox.add(key, Verdict.RETURNED, NOT_STARTED)
        self._rank_tasks.ended(parked)

    def _take_remote(self, message: Received, now: float) -> None:
        self._rank_tasks.take_remote(message, now)
        if self._nodes_fd == _NONE:
            self._send_to_nodes()

    def _take_recall(self, message: Received, now: float) -> None:
        count = unpack_count(message, Kind.RECALL)
        # Stays open until it is answered in full, even by nothing: the interchange asks this manager no more until
        # then.
        self._recall_open = True
        self._core.recall(1 << 30 if count == ALL else count)

    def _take_drain(self, message: Received, now: float) -> None:
        mode = unpack_drain(message)
        if mode is DrainMode.DRAIN:
            self._drain()
        elif mode is DrainMode.RELEASE:
            self._core.resume()

    def _drain(self) -> None:
        log.info("draining")
        self._core.drain()
        for class_id, tasks in self._awaiting_code.take_all():
            self._core.accept(class_id, tasks)  # which returns them

    def _take_exit(self, message: Received, now: float) -> None:
        code, reason = unpack_exit(message)
        # The job's exit status tells the scheduler, and so the scaler, whether the block ended well.
        status = 0 if code is ExitCode.DONE else 1
        if code is ExitCode.DECLARED_LOST:
            self._core.drain()  # its tasks run elsewhere by now: none is started here any more
        self.leave(ExitReason(ExitCode.DONE, f"the interchange said: {reason or code.name}", status))

    # -- events of the workers

    def _handle(self, pool_events: PoolEvents, now: float) -> None:
        for rank, frames in pool_events.results:
            keys = [frame[0] for frame in frames]
            # The worker's own times: this process may have been late to read them.
            busy_ns = sum(frame[2] - frame[1] for frame in frames)
            if self._sampling is not None and rank in self._core.workers:
                self._tell(self._sampling.ended(self._core.workers[rank].pid, keys))
            self._outbox.add_frames(rank, frames)
            self._worker_pool.envelopes.done(keys)
            if self._rank_tasks.heads:
                self._rank_tasks.ended(keys)
            # After the results are in the buffer: what is finished here must be reportable at any moment.
            self._core.finished(rank, keys, busy_ns * 1e-9, now)
        for rank, key in pool_events.told:
            self._core.told(rank, key)
        if pool_events.files and self._member.registered:
            self._line.send(pack_files(self._outbox.manager, pool_events.files))
        # After the results: a worker that is ready may have the rank of one whose last results are among these.
        for pipes in pool_events.ready:
            self._core.worker_up(pipes.rank, pipes.pid, pipes.depth, now)
            self._ready.add(pipes.rank)
            self._respawn.ready()
            self._register()
            self._report_replaced(pipes)
        if pool_events.needed:
            missing = self._blobs.missing(pool_events.needed)
            if missing:
                self._line.send(pack_need(missing))
        # Deaths come last: what the dead had written counts first.
        for report, last_pipes in pool_events.died:
            self._worker_died(report, last_pipes, now)
        for failure in pool_events.failed:
            # Workers that die before they are ready are a fault of the node, which more attempts do not cure.
            if not self._respawn.died(failure.rank, False, now):
                self._give_up(f"workers cannot be started: {failure.reason}")
        if pool_events.answered:
            self._watching.answered()
        if pool_events.gone:
            self._after_fork_server_death("the fork server of the workers died", now)

    def _report_replaced(self, pipes: WorkerEnds) -> None:
        """Report the process that replaced a worker, after the results of the one before."""
        if self._member.registered:
            # The results of the worker before go first: the client finds their process by the last pid it was told.
            self._delivery.all(time.monotonic())
            self._line.send(pack_worker(self._outbox.manager, pipes.rank, pipes.pid))

    def _worker_died(self, report: Died, pipes: WorkerEnds | None, now: float) -> None:
        """Report what a dead worker ran, give what it had not started to others, and replace it."""
        unstarted = []
        if pipes is not None:
            # What is still in the pipe has not started: it goes to others, and only what the worker had read is lost.
            unstarted = self._worker_pool.envelopes.opened(pipes.take_back(pipes.depth + 1))
            pipes.close()
        report = replace(report, how=report.how or self._befell.pop(report.pid, ""))
        age_s = self._core.age_of(report.rank, now)
        # Before the rank starts again: processes are found by the worker's name, which its replacement has, too.
        if age_s is not None:
            self._worker_pool.sweep(report.rank, report.pid, age_s)
        worker_loss = self._core.worker_down(report.rank, unstarted)
        self._worker_pool.envelopes.done(worker_loss.keys)
        for key in worker_loss.keys:
            node = self._offer.node_of(report.rank)
            verdict, payload = worker_loss_outcome(report, worker_loss, node, self._offer.block)
            if verdict is Verdict.CANCELLED:
                verdict, payload = self._rank_tasks.outcome_if_broken(key, started=True) or (verdict, payload)
            self._outbox.add(key, verdict, payload, report.rank)
        self._rank_tasks.ended(worker_loss.keys)
        self._report_dead_worker(report)
        if not worker_loss.termination:
            log.warning("worker %d (pid %d) %s", report.rank, report.pid, how(report))
        if not self._respawn.died(report.rank, report.rank in self._ready, now):
            self._give_up(f"workers die as they start: the last one {how(report)}: {report.stderr_tail}")

    def _report_dead_worker(self, report: Died) -> None:
        """Report a worker's death to the script; nothing here, where the script gives no tasks to workers itself."""

    def _report_taken(self, taken: Sequence[Taken]) -> None:
        """Report tasks of the script's that were read back; nothing here, where it gives none to workers itself."""

    def _after_fork_server_death(self, reason: str, now: float) -> None:
        self._core.drain()
        pool_events = self._worker_pool.abandon(reason)
        self._handle(pool_events, now)
        self._leaving = ExitReason(ExitCode.DONE, reason, 1)

    def _replace(self, rank: int, how: str) -> None:
        if rank < 0:
            self._rank_tasks.give_up(number_of_command(rank), how)
            return
        worker = self._core.workers.get(rank)
        if worker is not None:
            self._befell[worker.pid] = how
            self._core.replace(rank)

    def _give_up(self, reason: str) -> None:
        log.error("%s", reason)
        self.leave(ExitReason(ExitCode.FAILED, reason, 1))

    # -- time

    def _look_at_clock(self, now: float) -> None:
        has_tasks = self._core.busy or bool(self._awaiting_code or self._core.parts)
        reason = self._member.examine(now, has_tasks or self._outbox.anything_unsent)
        if reason:
            self.leave(ExitReason(ExitCode.DONE, reason, 1))
        # The client says in the file itself that it has it: no message tells, so the files are looked at.
        self._worker_pool.shared_results.sweep()
        if now >= self._next_starts:
            self._next_starts = now + _STARTS_EVERY_S
            self._report_starts(now)
        self._core.overdue(now)
        self._tell_tasks(now)
        if self._last_moment is not None and now >= self._last_moment[0]:
            self._end_now(*self._last_moment[1:])
        if now >= self._watching.due and self._leaving is None:
            tasks = self._rank_tasks
            reason = self._watching.look(self._core.workers, now, tasks.heads, tasks.running())
            if reason:
                self._after_fork_server_death(reason, now)
        for rank in self._respawn.due(now):
            self._worker_pool.spawn(rank)
        if self._drain_at is not None and now >= self._drain_at:
            # Once only: a manager that is draining does not begin again.
            self._drain_at = None
            self._drain()
        if self._sampling is not None and now >= self._sampling.due:
            self._tell(self._sampling.take({**self._core.running(), **self._rank_tasks.running()}, now))

    def _tell(self, samples: Sequence[Sample]) -> None:
        if samples and self._member.registered:
            self._line.send(pack_samples(self._outbox.manager, samples))

    def _report_starts(self, now: float) -> None:
        if self._member.registered and (found := self._core.starts(now, _STARTS_EVERY_S)):
            self._tell_starts(found, now)

    def _tell_starts(self, found: Sequence[tuple[int, int, float]], now: float) -> None:
        if self._member.registered:
            wall = time.time_ns()
            self._member.beat(tuple((key, wall - int((now - since) * 1e9), rank) for key, rank, since in found))

    # -- going out

    def _send_to_nodes(self) -> None:
        """Send what tasks of ranks have for their other nodes."""
        for message in self._rank_tasks.outgoing(self._member.registered):
            self._line.send(message)

    def _send_files(self) -> None:
        """Send what moves files; what is lost while there is no connection is begun anew."""
        messages = self._files.outgoing()
        for message in messages if self._member.registered else ():
            self._line.send(message)

    def _hand_out(self, now: float) -> None:
        core, worker_pool = self._core, self._worker_pool
        # Reading back comes first: what it frees is handed out in the same turn.
        for rank, count in core.readbacks(now):
            core.took_back(rank, worker_pool.take_back(rank, count))
        assignments = core.assign(now)
        if assignments:
            for assignment in worker_pool.hand_out(assignments):
                # The core counted it as written, see ``assign``.
                core.not_written(assignment)
        if core.effects or self._recall_open:
            self._follow(core.take_effects())

    def _follow(self, effects: CoreEffects) -> None:
        """Do what the core wants done besides handing out."""
        core, worker_pool = self._core, self._worker_pool
        # Ahead of all else: the script must know whose tasks these are before it hears what became of them.
        self._report_taken(effects.taken)
        for rank in effects.kill:
            worker_pool.kill(rank, core.age_of(rank, time.monotonic()))
        for key in effects.cancelled:
            self._outbox.add(key, *(self._rank_tasks.outcome_if_broken(key, started=False) or (Verdict.CANCELLED, b"")))
        worker_pool.envelopes.done(effects.cancelled)
        self._rank_tasks.ended(effects.cancelled)
        self._in_haste = self._in_haste or bool(effects.cancelled)
        if effects.begun:  # who cancels it waits to hear that it runs
            self._tell_starts(effects.begun, time.monotonic())
        if effects.returned or (self._recall_open and not core.recalling()):
            self._give_back(effects.returned)

    def _give_back(self, returned: list[tuple[int, int, bytes | memoryview]]) -> None:
        """Return tasks, a message a class; the last message of a recall is flagged, and may be empty."""
        classes: dict[int, list[tuple[int, bytes | memoryview]]] = {}
        for class_id, key, record in returned:
            classes.setdefault(class_id, []).append((key, record))
        default = classes.pop(DEFAULT_CLASS, [])
        for class_id, tasks in classes.items():
            self._line.send(pack_returned(class_id, tasks, last=False))
            self._rank_tasks.ended(key for key, _ in tasks)
        last = self._recall_open and not self._core.recalling()
        if default or last:
            self._line.send(pack_returned(DEFAULT_CLASS, default, last))
        if last:
            self._recall_open = False

    def _send(self, now: float) -> None:
        if not self._member.registered:
            return
        if self._outbox:
            self._coalesce()
            if is_armed:
                point("manager.before_send")
            # Somebody waits for a result that comes alone; the direct channel saves it two wake-ups.
            if len(self._outbox) == 1 and self._core.quiet:
                self._delivery.one(hold_back=self._offer.workers + self._core.estimator.prefetch > 1, now=now)
            else:
                self._delivery.all(now)
            self._last_send = time.monotonic()
            self._in_haste = False
        # A draining manager offers nothing, so the interchange stops sending before it has gone.
        slots = 0 if self._core.draining else self._offer.workers
        self._member.send_credit(slots, self._core.estimator.prefetch if slots else 0)
        if self._core.draining:
            self._finish_drain(now)

    def _coalesce(self) -> None:
        """Wait for more results to send with these, unless the workers have nothing left: nothing will come."""
        if self._core.quiet or self._in_haste:
            return
        # A message a result cost as many cores as short commands themselves: bash apps ran at 0.7 of bare bash, now at
        # 0.85.
        rest = self._last_send + self._core.results_wait_s() - time.monotonic()
        if rest > 0:
            time.sleep(rest)
            now = time.monotonic()
            self._handle(self._worker_pool.pool_events(), now)
            self._hand_out(now)

    def _finish_drain(self, now: float) -> None:
        """Leave when all is done and acknowledged."""
        # Work came back, such as a task that was read from a pipe: the deadline begins anew after it.
        if not self._core.quiet or self._awaiting_code or self._outbox or self._core.parts:
            self._drain_deadline = None
            return
        if self._drain_deadline is None:
            self._drain_deadline = now + _LAST_WORDS_S
        if not (self._outbox.anything_unsent or len(self._worker_pool.shared_results)) or now >= self._drain_deadline:
            self.leave(ExitReason(ExitCode.DONE, "it has finished all its tasks, as it was told to"))

    def _say_goodbye(self, leaving: ExitReason) -> None:
        """Send what is left to send, and EXIT with the reason."""
        self._hand_out(time.monotonic())
        if self._member.registered:
            self._delivery.all(time.monotonic())
            self._line.send(pack_exit(leaving.code, leaving.reason))
        log.info("leaving: %s", leaving.reason)

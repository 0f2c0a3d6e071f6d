"""The manager's loop, between interchange and workers. No decision is here: see core, contact and respawn."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Protocol

from flow_core.interfaces.outcome import LossKind, Verdict
from flow_core.interfaces.sampler import Sample
from flow_core.remote.faults import point
from flow_core.remote.sampling import Sampling
from flow_executors.errors import BadMessage
from flow_executors.manager.blobs import Blobs
from flow_executors.manager.contact import Contact
from flow_executors.manager.core import ManagerCore
from flow_executors.manager.crew import Crew, News
from flow_executors.manager.delivery import HOLD_BACK_MS, Delivery
from flow_executors.manager.demand import Demand
from flow_executors.manager.line import Line
from flow_executors.manager.membership import Membership
from flow_executors.manager.nursery import Died
from flow_executors.manager.outbox import Outbox
from flow_executors.manager.parking import Parking
from flow_executors.manager.pipes import Pipes
from flow_executors.manager.records import Effects, Leaving, Taken
from flow_executors.manager.reports import fallen_outcome, how, interrupted_outcome, pack_returned
from flow_executors.manager.respawn import Respawn
from flow_executors.manager.shipments import SWEEP_S
from flow_executors.manager.watching import Watching
from flow_executors.wire.frames import (
    ALL,
    DrainMode,
    ExitCode,
    Kind,
    Registration,
    kind_of,
    pack_exit,
    pack_need,
    pack_samples,
    pack_worker,
    unpack_blob,
    unpack_cancel,
    unpack_count,
    unpack_drain,
    unpack_exit,
    unpack_spec,
    unpack_tasks,
)
from flow_executors.wire.kinds import Received
from flow_executors.wire.single import one_task
from flow_executors.wire.specs import DEFAULT_CLASS

LINE = -1
_STARTS_EVERY_S = 1.0
_LAST_WORDS_S = 2.0
_HOUR_S = 3600.0
_MOST = 0.8
"""Of a block's life: who used more of it would not end in another one either."""

log = logging.getLogger("flow.manager")


class Signals(Protocol):
    """Signals that came, as something to poll."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when one came."""
        ...

    def handle(self, manager: Manager) -> None:
        """Do what they ask for."""
        ...


class Manager:
    """One manager. One thread: the process's main one. ``lanes``: whether its workers are to have lanes."""

    lanes = False

    def __init__(
        self,
        *,
        line: Line,
        crew: Crew,
        core: ManagerCore,
        contact: Contact,
        blobs: Blobs,
        offer: Registration,
        run_id: str,
        sampling: Sampling | None = None,
        drain_at: float | None = None,
        signals: Signals | None = None,
    ) -> None:
        self._line = line
        self._crew = crew
        self._core = core
        self._blobs = blobs
        self._offer = offer
        self._sampling = sampling
        self._drain_at = drain_at
        self._signals = signals
        self._crew_fd = crew.fileno()
        self._signals_fd = -1 if signals is None else signals.fileno()
        self._outbox = Outbox()
        self._delivery = Delivery(line, self._outbox)
        self._poller = select.poll()
        self._member = Membership(line, contact, offer, self._outbox, self._poller, run_id)
        self._parking = Parking()
        self._respawn = Respawn()
        self._watching = Watching(crew.nursery, self._replace, self._member.notice, contact.threshold_s)
        self._befell: dict[int, str] = {}  # pid -> why it is being killed, in words
        self._ready: set[int] = set()
        self._last_send = 0.0
        self._next_starts = 0.0
        self._recall_open = False
        self._drain_deadline: float | None = None
        self._leaving: Leaving | None = None
        self._due = 0.0
        """When to look at the clock although nothing happens."""
        self._handlers: dict[int, Callable[[Received, float], None]] = {
            Kind.TASKS: self._take_tasks,
            Kind.BLOB: self._take_blob,
            Kind.SPEC: self._take_spec,
            Kind.ACK: lambda message, _: self._outbox.acknowledge(unpack_count(message, Kind.ACK)),
            Kind.CANCEL: self._take_cancel,
            Kind.RECALL: self._take_recall,
            Kind.DRAIN: self._take_drain,
            Kind.HELLO: self._take_hello,
            Kind.WELCOME: self._take_welcome,
            Kind.AGAIN: lambda message, _: self._member.unknown(),
            Kind.EXIT: self._take_exit,
            Kind.HEARTBEAT: lambda _, now: self._core.pace.link(self._member.answer(now)),
        }

    def run(self) -> Leaving:
        """Serve until it is time to leave; return why."""
        self._poller.register(self._crew_fd, select.POLLIN)
        if self._signals is not None:
            self._poller.register(self._signals_fd, select.POLLIN)
        self._member.begin()
        for rank in range(self._offer.workers):
            self._crew.spawn(rank)
        while self._leaving is None:
            self._turn()
        self._say_goodbye(self._leaving)
        return self._leaving

    def leave(self, leaving: Leaving) -> None:
        """End after this turn."""
        if self._leaving is None:
            self._leaving = leaving

    def block_ends(self, walltime_s: float, reason: str) -> None:
        """The block is being ended: give back what has not started, report what runs as lost, and leave.

        Where it ends by its walltime (0: it does not), tasks that ran for most of it are lost to that.
        Not to be called by a signal handler.
        """
        self._drain()
        if self._member.registered:
            self._member.tell_credit(0, 0)  # before outcomes: whoever hears of them may have more tasks at hand
        now = time.monotonic()
        self._hand_out(now)
        self._interrupt(walltime_s, reason, now)
        self.leave(Leaving(ExitCode.DONE, reason))

    def _interrupt(self, walltime_s: float, reason: str, now: float) -> None:
        for key, ran_s in self._core.running_for(now):
            kind = LossKind.WALLTIME if walltime_s and ran_s > _MOST * walltime_s else LossKind.BLOCK
            self._outbox.add(key, *interrupted_outcome(kind, reason))

    # -- one turn

    def _turn(self) -> None:
        self._member.watch()
        held_back = self._delivery.held_back
        ready = self._look(HOLD_BACK_MS if held_back else self._patience_ms())
        now = time.monotonic()
        workers = self._crew_fd in ready
        if workers:
            self._handle(self._crew.news(), now)
            if self._core.quiet:
                self._send(now)  # somebody waits for it, and nothing more will come
        if len(ready) > workers or not ready:
            self._listen(now)
        if now >= self._due or not ready or not self._member.registered:
            self._look_at_clock(now)
        if self._signals is not None and self._signals_fd in ready:
            self._signals.handle(self)
        self._hand_out(now)
        if held_back and held_back is self._delivery.held_back:
            self._delivery.rest()
        self._send(now)

    def _look(self, patience_ms: int) -> Collection[int]:
        """Return the descriptors that are ready, or LINE where it is known without asking."""
        if self._line.waiting:
            return (LINE, *dict(self._poller.poll(0)))
        return dict(self._poller.poll(patience_ms))

    def _patience_ms(self) -> int:
        now, core = time.monotonic(), self._core
        due = min(self._member.deadline(now), now + _HOUR_S)
        times = core.deadline(now), self._respawn.deadline(), self._drain_at, self._drain_deadline, self._watching.due
        for when in times:
            if when is not None and when < due:
                due = when
        if self._sampling is not None:
            due = min(due, self._sampling.due)
        if core.busy:
            due = min(due, self._next_starts)
        if self._crew.shipments:
            due = min(due, now + SWEEP_S)
        self._due = due
        return max(0, int((due - now) * 1000) + 1)

    # -- the interchange's messages

    def _listen(self, now: float) -> None:
        messages = self._line.receive()
        if messages:
            self._member.heard(now)
        for message in messages:
            point("manager.after_recv")
            handler = self._handlers.get(kind_of(message))
            if handler is None:
                log.debug("message of unknown kind %d ignored", message[0])
                continue
            try:
                handler(message, now)
            except BadMessage as error:
                log.warning("message dropped: %s", error)
        if not messages and self._line.broken:
            self._member.lost(now)

    def _take_hello(self, message: Received, now: float) -> None:
        self._member.answered()
        self._register()

    def _register(self) -> None:
        """Offer the workers, once there are all that there will be."""
        if self._member.greeted and len(self._ready) == self._offer.workers:
            workers = self._core.workers
            pids = tuple(workers[rank].pid if rank in workers else 0 for rank in range(self._offer.workers))
            self._member.register(pids, self._core.pace.prefetch, self._held())

    def _held(self) -> list[int]:
        return [*self._core.held(), *self._parking.keys(), *self._outbox.keys()]

    def _take_welcome(self, message: Received, now: float) -> None:
        welcome = self._member.welcome(message, self._core.pace.prefetch, now)
        for rank, pid in enumerate(self._member.told_pids):
            worker = self._core.workers.get(rank)
            if worker is not None and worker.pid != pid:  # replaced meanwhile
                self._line.send(pack_worker(self._outbox.manager, rank, worker.pid))
        self._watching.bound(self._member.threshold_s)
        self._core.pace.link(self._member.trip_s)
        self._delivery.forget()
        self._line.open_short_way(welcome.results)
        self._crew.shipments.same_host = bool(welcome.host_id) and welcome.host_id == self._offer.host_id

    def _take_tasks(self, message: Received, now: float) -> None:
        one = one_task(message)
        if one is not None and not self._blobs.missing(one[:1]):
            self._core.accept(DEFAULT_CLASS, [one[1:]])
            return
        batch = unpack_tasks(message)
        if self._core.pace.far:
            self._core.pace.sized(len(batch.keys), len(message))
        if not self._core.knows(batch.class_id):
            for key in batch.keys:
                self._outbox.add(key, Verdict.RETURNED, b"its class was not described to the manager")
            return
        tasks = list(zip(batch.keys, batch.records(), strict=True))
        missing = self._blobs.missing(batch.digests)
        if missing:
            self._parking.park(missing, (batch.class_id, tasks))
            self._line.send(pack_need(missing))
        else:
            self._core.accept(batch.class_id, tasks)

    def _take_blob(self, message: Received, now: float) -> None:
        piece = unpack_blob(message)
        if self._blobs.add(piece):
            for class_id, tasks in self._parking.arrived(piece.digest):
                self._core.accept(class_id, tasks)

    def _take_spec(self, message: Received, now: float) -> None:
        class_id, spec = unpack_spec(message)
        self._core.add_class(class_id, Demand.of(spec, self._core.capacity))
        self._crew.letters.learn(class_id, spec)

    def _take_cancel(self, message: Received, now: float) -> None:
        keys, kill = unpack_cancel(message)
        for key in self._parking.remove(set(keys)):
            self._outbox.add(key, Verdict.CANCELLED)
        self._core.cancel(keys, kill)

    def _take_recall(self, message: Received, now: float) -> None:
        count = unpack_count(message, Kind.RECALL)
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
        for class_id, tasks in self._parking.take_all():
            self._core.accept(class_id, tasks)  # which returns them

    def _take_exit(self, message: Received, now: float) -> None:
        code, reason = unpack_exit(message)
        status = 0 if code is ExitCode.DONE else 1
        if code is ExitCode.DECLARED_LOST:
            self._core.drain()  # its tasks run elsewhere by now: none is started here any more
        self.leave(Leaving(ExitCode.DONE, f"the interchange said: {reason or code.name}", status))

    # -- the workers' news

    def _handle(self, news: News, now: float) -> None:
        for rank, frames in news.results:
            keys = [frame[0] for frame in frames]
            busy_ns = sum(frame[2] - frame[1] for frame in frames)
            if self._sampling is not None and rank in self._core.workers:
                self._tell(self._sampling.ended(self._core.workers[rank].pid, keys))
            self._outbox.add_frames(rank, frames)
            self._crew.letters.done(keys)
            self._core.finished(rank, keys, busy_ns * 1e-9, now)
        for pipes in news.ready:
            self._core.worker_up(pipes.rank, pipes.pid, pipes.depth, now)
            self._ready.add(pipes.rank)
            self._respawn.ready()
            self._register()
            self._tell_replaced(pipes)
        if news.needed:
            missing = self._blobs.missing(news.needed)
            if missing:
                self._line.send(pack_need(missing))
        for report, last_pipes in news.died:
            self._mourn(report, last_pipes, now)
        for failure in news.failed:
            if not self._respawn.died(failure.rank, False, now):
                self._give_up(f"workers cannot be started: {failure.reason}")
        if news.answered:
            self._watching.answered()
        if news.gone:
            self._after_nursery("the nursery of the workers died", now)

    def _tell_replaced(self, pipes: Pipes) -> None:
        """Say which process is a worker now, after the results of the one before, where that one was registered."""
        if self._member.registered:
            self._delivery.all()
            self._line.send(pack_worker(self._outbox.manager, pipes.rank, pipes.pid))

    def _mourn(self, report: Died, pipes: Pipes | None, now: float) -> None:
        """Report what a dead worker ran, give what it had not started to others, and replace it."""
        unstarted = []
        if pipes is not None:
            unstarted = self._crew.letters.opened(pipes.take_back(pipes.depth + 1))
            pipes.close()
        report = replace(report, how=report.how or self._befell.pop(report.pid, ""))
        age_s = self._core.age_of(report.rank, now)
        if age_s is not None:
            self._crew.sweep(report.rank, report.pid, age_s)
        fallen = self._core.worker_down(report.rank, unstarted)
        self._crew.letters.done(fallen.keys)
        for key in fallen.keys:
            verdict, payload = fallen_outcome(report, fallen, self._offer.node, self._offer.block)
            self._outbox.add(key, verdict, payload, report.rank)
        self._tell_fallen(report)
        if not fallen.doom:
            log.warning("worker %d (pid %d) %s", report.rank, report.pid, how(report))
        if not self._respawn.died(report.rank, report.rank in self._ready, now):
            self._give_up(f"workers die as they start: the last one {how(report)}: {report.stderr_tail}")

    def _tell_fallen(self, report: Died) -> None:
        """Nobody else has given tasks to a worker."""

    def _tell_taken(self, taken: Sequence[Taken]) -> None:
        """Nobody else has given tasks to a worker."""

    def _after_nursery(self, reason: str, now: float) -> None:
        self._core.drain()
        news = self._crew.abandon(reason)
        self._handle(news, now)
        self._leaving = Leaving(ExitCode.DONE, reason, 1)

    def _replace(self, rank: int, how: str) -> None:
        worker = self._core.workers.get(rank)
        if worker is not None:
            self._befell[worker.pid] = how
            self._core.replace(rank)

    def _give_up(self, reason: str) -> None:
        log.error("%s", reason)
        self.leave(Leaving(ExitCode.FAILED, reason, 1))

    # -- time

    def _look_at_clock(self, now: float) -> None:
        reason = self._member.examine(now)
        if reason:
            self.leave(Leaving(ExitCode.DONE, reason, 1))
        self._crew.shipments.sweep()
        if now >= self._next_starts:
            self._next_starts = now + _STARTS_EVERY_S
            self._tell_starts(now)
        self._core.overdue(now)
        if now >= self._watching.due and self._leaving is None:
            reason = self._watching.look(self._core.workers, now)
            if reason:
                self._after_nursery(reason, now)
        for rank in self._respawn.due(now):
            self._crew.spawn(rank)
        if self._drain_at is not None and now >= self._drain_at:
            self._drain_at = None
            self._drain()
        if self._sampling is not None and now >= self._sampling.due:
            self._tell(self._sampling.take(self._core.running(), now))

    def _tell(self, samples: Sequence[Sample]) -> None:
        if samples and self._member.registered:
            self._line.send(pack_samples(self._outbox.manager, samples))

    def _tell_starts(self, now: float) -> None:
        if self._member.registered:
            wall = time.time_ns()
            found = self._core.starts(now, _STARTS_EVERY_S)
            if found:
                self._member.beat(tuple((key, wall - int((now - since) * 1e9), rank) for key, rank, since in found))

    # -- going out

    def _hand_out(self, now: float) -> None:
        core, crew = self._core, self._crew
        for rank, count in core.readbacks(now):
            core.took_back(rank, crew.take_back(rank, count))
        handouts = core.assign(now)
        if handouts:
            for handout in crew.hand_out(handouts):
                core.not_written(handout)
        if core.effects or self._recall_open:
            self._follow(core.take_effects())

    def _follow(self, effects: Effects) -> None:
        """Do what the core wants done besides handing out."""
        core, crew = self._core, self._crew
        self._tell_taken(effects.taken)
        for rank in effects.kill:
            crew.kill(rank, core.age_of(rank, time.monotonic()))
        for key in effects.cancelled:
            self._outbox.add(key, Verdict.CANCELLED)
        crew.letters.done(effects.cancelled)
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
            point("manager.before_send")
            if len(self._outbox) == 1 and self._core.quiet:
                self._delivery.one(hold_back=self._offer.workers + self._core.pace.prefetch > 1)
            else:
                self._delivery.all()
            self._last_send = time.monotonic()
        slots = 0 if self._core.draining else self._offer.workers
        self._member.tell_credit(slots, self._core.pace.prefetch if slots else 0)
        if self._core.draining:
            self._finish_drain(now)

    def _coalesce(self) -> None:
        """Wait for more results to send with these, unless the workers have nothing left: nothing will come."""
        if self._core.quiet:
            return
        rest = self._last_send + self._core.results_wait_s() - time.monotonic()
        if rest > 0:
            time.sleep(rest)
            now = time.monotonic()
            self._handle(self._crew.news(), now)
            self._hand_out(now)

    def _finish_drain(self, now: float) -> None:
        """Leave when all is done and acknowledged."""
        if not self._core.quiet or self._parking or self._outbox:
            self._drain_deadline = None
            return
        if self._drain_deadline is None:
            self._drain_deadline = now + _LAST_WORDS_S
        if not (self._outbox.owed or len(self._crew.shipments)) or now >= self._drain_deadline:
            self.leave(Leaving(ExitCode.DONE, "it has finished all its tasks, as it was told to"))

    def _say_goodbye(self, leaving: Leaving) -> None:
        """Send what is left to send, and say why."""
        self._hand_out(time.monotonic())
        if self._member.registered:
            self._delivery.all()
            self._line.send(pack_exit(leaving.code, leaving.reason))
        log.info("leaving: %s", leaving.reason)

"""Which manager gets which task; what becomes of a task whose manager goes. Pure: messages in, messages out, a clock
handed in.

The shell feeds events and sends what they leave in ``up`` (to the client) and ``down`` (to managers). No task is ever
in two places: it waits in a queue here, or is out at one manager, or its outcome is on its way up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from flow_core.interfaces.outcome import Loss, LossKind, Verdict
from flow_executors.errors import BadMessage, VersionMismatch
from flow_executors.interchange.desk import Desk
from flow_executors.interchange.dispatch import Dispatcher
from flow_executors.interchange.drain import Drains
from flow_executors.interchange.liveness import Liveness
from flow_executors.interchange.pool import Manager
from flow_executors.interchange.settings import Settings
from flow_executors.manager.demand import Capacity
from flow_executors.wire.commands import KeyChange
from flow_executors.wire.control import DrainMode
from flow_executors.wire.frames import (
    Beat,
    Credit,
    Departure,
    ExitCode,
    Introduction,
    Kind,
    Registration,
    Welcome,
    kind_of,
    pack_ack,
    pack_again,
    pack_beat,
    pack_cancel,
    pack_credit,
    pack_drain,
    pack_exit,
    pack_hello,
    pack_left,
    pack_loss,
    pack_register,
    pack_welcome,
    result_head,
    unpack_beat,
    unpack_blob,
    unpack_cancel,
    unpack_command,
    unpack_credit,
    unpack_exit,
    unpack_hello,
    unpack_need,
    unpack_register,
    unpack_spec,
    unpack_tasks,
)
from flow_executors.wire.kinds import Buffer
from flow_executors.wire.single import head_of_one
from flow_executors.wire.versions import agree, same_python

_RECONNECT_S = 1.0
"""How long a manager whose connection is gone may take to come back over another one."""
_ACK_EVERY = 32
_REMEMBERED = 4096
_ASK_EVERY_S = 1.0
_END_OF_BLOCK_NS = 5_000_000_000
_MOST = 0.8
"""Of a block's life: a task that used more of it would not end in another block either."""


class Core:
    """The interchange's mind. One thread."""

    def __init__(self, settings: Settings, who: Introduction, time_ns: Callable[[], int]) -> None:
        self.settings = settings
        self.desk = desk = Desk(time_ns)
        self.up, self.down, self.waiting = desk.up, desk.down, desk.waiting
        self.pool, self.blobs, self.specs = desk.pool, desk.blobs, desk.specs
        self.exiting = False
        """The client said EXIT, or is gone."""
        self.story: list[str] = []
        """What is worth a line in the log."""
        self.presses = False
        """Some manager has sent so many results that it should be told of their arrival."""
        self.ignored = 0
        """Messages that could not be understood, or came from nobody known."""
        self.late = 0
        """Results for keys that were not out at their sender."""
        self.revoked: set[str] = set()
        self._who = who
        self._liveness = Liveness(settings.heartbeat_threshold_s)
        self._dispatcher = Dispatcher(desk, settings.packed)
        self.pass_on = self._dispatcher.pass_on
        """Take a message of one task that can go on as it is: digest, key and message; False where it cannot."""
        self._drains = Drains(desk, self._liveness)
        self._greeted: dict[bytes, str] = {}  # peer -> block of its key
        self._asked: dict[bytes, float] = {}  # strangers, and when they were asked to introduce themselves
        self._gone: dict[str, str] = {}  # manager id -> why it was given up
        self._cut_off: dict[int, Manager] = {}
        self._unacked: dict[int, Manager] = {}
        self._next_number = (settings.incarnation << 20) + 1
        self._told = (-1, -1, -1)
        """Managers, slots and room to prefetch of which the client was told."""
        self._from_client: dict[int, Callable[[Buffer, float], None]] = {
            Kind.TASKS: self._tasks,
            Kind.CANCEL: self._cancel,
            Kind.BLOB: self._blob,
            Kind.SPEC: self._spec,
            Kind.COMMAND: self._command,
            Kind.EXIT: self._client_exit,
        }
        self._from_manager: dict[int, Callable[[Manager, Buffer, float], None]] = {
            Kind.RESULTS: self._results,
            Kind.HEARTBEAT: self._heartbeat,
            Kind.RETURNED: self._returned,
            Kind.NEED: self._need,
            Kind.CREDIT: self._resize,
            Kind.EVENTS: self._pass_up,
            Kind.WORKER: self._pass_up,
            Kind.NOTICE: self._pass_up,
            Kind.EXIT: self._manager_exit,
        }

    # -- events

    def from_client(self, message: Buffer, now: float) -> None:
        """Take a message of the client. What cannot be understood is counted and dropped."""
        try:
            handler = self._from_client.get(kind_of(message))
            if handler is None:
                self.ignored += 1
            else:
                handler(message, now)
        except BadMessage:
            self.ignored += 1

    def from_peer(self, peer: bytes, block: str, message: Buffer, now: float) -> None:
        """Take a message of a manager; ``block`` is the one its key belongs to. Never raises on foreign input."""
        try:
            self._from_peer(peer, block, message, now)
        except BadMessage:
            self.ignored += 1

    def from_worker(self, peer: bytes, message: Buffer, now: float) -> None:
        """Take RESULTS that a worker of a manager has sent by itself: no sign of life of the manager."""
        manager = self.pool.by_peer.get(peer)
        if manager is not None:
            self._results(manager, message, now)

    def disconnected(self, peer: bytes, now: float) -> None:
        """The connection of a manager is gone; it may come back over another within a second."""
        self._greeted.pop(peer, None)
        self._asked.pop(peer, None)
        self._liveness.forget(peer)
        self.blobs.forget_peer(peer)
        manager = self.pool.by_peer.get(peer)
        if manager is not None and manager.cut_off_at is None:
            manager.cut_off_at = now
            self._cut_off[manager.number] = manager
            self.pool.settle(manager)

    def turn(self, now: float) -> None:
        """End a turn of the loop, after all events that were there: hand out tasks, tell the client its credit."""
        self._dispatcher.dispatch(now)
        self._tell_credit()

    def tick(self, now: float) -> None:
        """Look at the clock: who is silent, who did not come back."""
        for peer in self._liveness.silent(now):
            self._liveness.forget(peer)
            manager = self.pool.by_peer.get(peer)
            if manager is None:
                self._greeted.pop(peer, None)
                continue
            reason = f"it was silent for more than {self._liveness.threshold_s:g} s"
            self.down.append((peer, pack_exit(ExitCode.DECLARED_LOST, reason)))
            self._lose(manager, reason)
        for manager in list(self._cut_off.values()):
            if now - (manager.cut_off_at or 0.0) >= _RECONNECT_S:
                self._lose(manager, "its connection broke: its process or its node died")
        self._dispatcher.tick(now)

    def admitted(self, change: KeyChange) -> None:
        """Blocks were asked for, or given up."""
        self.desk.expected.update(block for _, block in change.admit)
        self.desk.expected.difference_update(change.revoke)
        self.revoked.update(change.revoke)

    def slept(self, now: float) -> None:
        """This process was stopped for a while: nobody is silent by that."""
        self._liveness.forgive(now)

    def next_deadline(self, now: float) -> float | None:
        """Return when ``tick`` has something to look at."""
        silence, again = self._liveness.next_deadline(), self._dispatcher.next_deadline(now)
        if not self._cut_off and (silence is None or again is None):
            return silence if again is None else again
        deadlines = [(manager.cut_off_at or 0.0) + _RECONNECT_S for manager in self._cut_off.values()]
        return min(deadlines + [deadline for deadline in (silence, again) if deadline is not None])

    def delivered(self, everything: bool) -> None:
        """All that was in ``up`` has reached the client's socket: acknowledge results to their managers.

        Small numbers of them wait for company unless ``everything`` is to be acknowledged.
        """
        self.presses = False
        for manager in list(self._unacked.values()):
            if everything or manager.received - manager.acked >= _ACK_EVERY:
                manager.acked = manager.received
                del self._unacked[manager.number]
                self.desk.send(manager, pack_ack(manager.received))

    @property
    def busy(self) -> bool:
        """Whether some manager has a task."""
        return bool(self.pool.working)

    @property
    def owes_acks(self) -> bool:
        """Whether results are not acknowledged yet."""
        return bool(self._unacked)

    # -- the client's messages

    def _tasks(self, message: Buffer, now: float) -> None:
        one = head_of_one(message)
        if one is not None and self.pass_on(*one, message):
            return
        batch = unpack_tasks(message)
        if not self.waiting.add(batch, now):
            self.desk.report(batch.keys, Verdict.REFUSED, b"its class was never described")

    def _cancel(self, message: Buffer, now: float) -> None:
        keys, kill = unpack_cancel(message)
        wanted = set(keys)
        found = self.waiting.remove(wanted)
        if found:
            self.desk.report(found, Verdict.CANCELLED)
            wanted.difference_update(found)
        for manager in self.pool.by_number.values() if wanted else ():
            here = wanted & manager.out
            here.update(key for key in manager.special if key in wanted)
            if here:
                self.desk.send(manager, pack_cancel(sorted(here), kill))

    def _blob(self, message: Buffer, now: float) -> None:
        piece = unpack_blob(message)
        if self.blobs.add(piece, bytes(message)):
            for peer in self.blobs.wanted.pop(piece.digest, ()):
                self.desk.send_blob(peer, piece.digest)

    def _spec(self, message: Buffer, now: float) -> None:
        class_id, spec = unpack_spec(message)
        self.waiting.specs[class_id] = spec
        self.specs[class_id] = bytes(message)

    def _command(self, message: Buffer, now: float) -> None:
        self._drains.command(unpack_command(message), now)

    def _client_exit(self, message: Buffer, now: float) -> None:
        self.leave("the run is over")

    def leave(self, reason: str) -> None:
        """Send all managers home; ``exiting`` is set."""
        self.exiting = True
        for manager in self.pool.by_number.values():
            self.down.append((manager.peer, pack_exit(ExitCode.DONE, reason)))

    # -- the managers' messages

    def _from_peer(self, peer: bytes, block: str, message: Buffer, now: float) -> None:
        kind = kind_of(message)
        manager = self.pool.by_peer.get(peer)
        if kind == Kind.HELLO:
            self._hello(peer, block, message, now)
        elif kind == Kind.REGISTER:
            self._register(peer, block, message, now)
        elif manager is None:
            self.ignored += 1
            if peer not in self._greeted and kind != Kind.EXIT:
                self._ask_again(peer, now)
        else:
            self._liveness.heard(peer, now)
            handler = self._from_manager.get(kind)
            if handler is None:
                self.ignored += 1
            else:
                handler(manager, message, now)

    def _ask_again(self, peer: bytes, now: float) -> None:
        """Ask a stranger to introduce itself, once a second however much it says."""
        if now - self._asked.get(peer, -_ASK_EVERY_S) >= _ASK_EVERY_S:
            if len(self._asked) >= _REMEMBERED:
                self._asked.clear()
            self._asked[peer] = now
            self.down.append((peer, pack_again()))

    def _hello(self, peer: bytes, block: str, message: Buffer, now: float) -> None:
        hello = unpack_hello(message)
        try:
            agree(hello.lowest, hello.highest, f"the manager of block {block}")
            same_python(hello.who.python, self.settings.python, f"the manager of block {block}")
            if hello.who.run_id != self.settings.run_id:
                raise VersionMismatch(f"the manager belongs to run {hello.who.run_id}, not {self.settings.run_id}")
            if block in self.revoked:
                raise VersionMismatch(f"block {block} was given up")
        except VersionMismatch as error:
            self._turn_away(peer, ExitCode.REFUSED, str(error), block)
            return
        self._greeted[peer] = block
        self._liveness.heard(peer, now)
        self.down.append((peer, pack_hello(self._who)))

    def _turn_away(self, peer: bytes, code: ExitCode, reason: str, block: str = "") -> None:
        self.down.append((peer, pack_exit(code, reason)))
        self.story.append(f"a manager of block {block or '?'} was turned away: {reason}")
        if code is ExitCode.REFUSED:
            self.up.append(pack_left(Departure(0, "", block, "", reason, True)))

    def _register(self, peer: bytes, block: str, message: Buffer, now: float) -> None:
        number, offer, held = unpack_register(message)
        if peer not in self._greeted:
            self._ask_again(peer, now)
            return
        if offer.block != block:
            self._turn_away(peer, ExitCode.REFUSED, f"its key is that of block {block}, not {offer.block}", block)
            return
        if offer.manager_id in self._gone:
            self._turn_away(peer, ExitCode.DECLARED_LOST, self._gone[offer.manager_id])
            return
        manager = self._again(peer, number, offer, held) or self._new(peer, number, offer, held)
        manager.idle_since = None if manager.outstanding else now
        self.desk.expected.discard(block)
        self.desk.joined_at = now
        self._liveness.heard(peer, now)
        settings = self.settings
        welcome = Welcome(
            manager.number,
            self.desk.time_ns(),
            settings.heartbeat_period_s,
            settings.heartbeat_threshold_s,
            settings.host_id,
            settings.results,
        )
        self.down.append((peer, pack_welcome(welcome)))
        self.up.append(pack_register(manager.number, offer, held))
        manager.offer = replace(
            manager.offer, worker_pids=()
        )  # the client's matter; 32 numbers of each of 8,000 managers
        self.story.append(
            f"manager {manager.number} ({offer.manager_id}) of block {offer.block} on {offer.node} registered: "
            f"{offer.workers} workers, {len(held)} tasks held"
        )
        if manager.draining or manager.held:
            mode = DrainMode.DRAIN if manager.draining else DrainMode.HOLD
            self.down.append((peer, pack_drain(mode)))

    def _again(self, peer: bytes, number: int, offer: Registration, held: Sequence[int]) -> Manager | None:
        manager = self.pool.by_number.get(number) or self.pool.by_peer.get(peer)
        if manager is None or manager.offer.manager_id != offer.manager_id:
            return None
        self._cut_off.pop(manager.number, None)
        self._liveness.forget(manager.peer)
        self.pool.move(manager, peer)
        manager.cut_off_at = None
        manager.recalling = False
        manager.known.clear()
        manager.classes.clear()
        missing = (manager.out | manager.special.keys()) - set(held)
        if missing:
            manager.drop(missing)
            self.desk.report(
                sorted(missing), Verdict.RETURNED, b"the connection to its manager broke before it arrived"
            )
        self.pool.resize(manager, offer.workers, offer.prefetch)
        return manager

    def _new(self, peer: bytes, number: int, offer: Registration, held: Sequence[int]) -> Manager:
        number_before = number  # its block may be old already
        if not number or number in self.pool.by_number or number >= self._next_number:
            number, self._next_number = self._next_number, self._next_number + 1
        cores = offer.cores / offer.workers if offer.workers and offer.cores > 0 else 1.0
        devices = tuple(str(index) for index in range(max(0, int(min(offer.gpus, 1024.0)))))
        capacity = Capacity(offer.workers, cores, max(0, offer.memory_mb), devices)
        if offer.ends_at_ns and offer.time_ns:  # by this machine's clock
            offer = replace(offer, ends_at_ns=offer.ends_at_ns + self.desk.time_ns() - offer.time_ns)
        manager = Manager(peer, number, offer, capacity, offer.workers, offer.prefetch)
        manager.out.update(held)
        if offer.ends_at_ns and not number_before:
            manager.life_s = (offer.ends_at_ns - self.desk.time_ns()) * 1e-9
        self.pool.add(manager)
        return manager

    def _results(self, manager: Manager, message: Buffer, now: float) -> None:
        number, sequence, keys = result_head(message)
        if number != manager.number:
            self.ignored += 1
            return
        self.late += len(keys) - manager.drop(keys)
        if sequence:
            manager.received = max(manager.received, sequence)
            self._unacked[manager.number] = manager
            if manager.received - manager.acked >= _ACK_EVERY:
                self.presses = True
        self.desk.pass_up(message)
        self.settle(manager, now)

    def settle(self, manager: Manager, now: float) -> None:
        """Note that a manager has more or less to do than before."""
        manager.idle_since = None if manager.outstanding else manager.idle_since or now
        self.pool.settle(manager)

    def _heartbeat(self, manager: Manager, message: Buffer, now: float) -> None:
        beat = unpack_beat(message)
        self.down.append((manager.peer, pack_beat(Beat(0, self.desk.time_ns(), 0))))
        if beat.keys and beat.manager == manager.number:
            held = [pair for pair in zip(beat.keys, beat.starts, strict=True) if manager.has(pair[0])]
            manager.started.update((key, start + beat.offset_ns) for key, start in held)
            started = bytearray(message)
            started[0] = Kind.STARTED
            self.up.append(started)

    def _returned(self, manager: Manager, message: Buffer, now: float) -> None:
        batch = unpack_tasks(message)
        if batch.last:
            manager.recalling = False
        owned = [key for key in batch.keys if key in manager.out or key in manager.special]
        if len(owned) != len(batch.keys):
            raise BadMessage("tasks returned that were not out at their sender")
        manager.drop(owned)
        if not self.waiting.put_back(batch, now):
            self.desk.report(owned, Verdict.RETURNED, b"its class is not known any more")
        self.settle(manager, now)

    def _need(self, manager: Manager, message: Buffer, now: float) -> None:
        digests = unpack_need(message)
        self.desk.ask_for([d for d in digests if not self.desk.send_blob(manager.peer, d)], manager.peer)

    def _resize(self, manager: Manager, message: Buffer, now: float) -> None:
        credit = unpack_credit(message)
        self.pool.resize(manager, min(credit.slots, manager.offer.workers), min(credit.prefetch, 1 << 24))

    def _pass_up(self, manager: Manager, message: Buffer, now: float) -> None:
        self.up.append(message)

    def _manager_exit(self, manager: Manager, message: Buffer, now: float) -> None:
        code, reason = unpack_exit(message)
        if code is ExitCode.DONE and not manager.outstanding:
            self._depart(manager, reason or "it is done", lost=False)
        else:
            self._lose(manager, f"it gave up: {reason}")

    # -- losses

    def _lose(self, manager: Manager, reason: str) -> None:
        keys = sorted(manager.out) + sorted(manager.special)
        offer = manager.offer
        text = f"the manager {offer.manager_id} of block {offer.block} on {offer.node} is lost: {reason}"
        if keys:
            exceeding = self._exceeding(manager)
            for kind, some in (
                (LossKind.MANAGER, [key for key in keys if key not in exceeding]),
                (LossKind.WALLTIME, exceeding),
            ):
                if some:
                    self.desk.report(some, Verdict.LOST, pack_loss(Loss(kind, reason=text)), manager.number)
        self._gone[offer.manager_id] = reason
        while len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]
        self._depart(manager, reason, lost=True)

    def _exceeding(self, manager: Manager) -> list[int]:
        """Return the tasks that ran for most of their block's life, if that is over: not a death before its time."""
        now, ends = self.desk.time_ns(), manager.offer.ends_at_ns
        if not ends or now < ends - _END_OF_BLOCK_NS:
            return []
        most_ns = _MOST * manager.life_s * 1e9
        return sorted(key for key, started in manager.started.items() if now - started > most_ns)

    def _depart(self, manager: Manager, reason: str, lost: bool) -> None:
        self.pool.remove(manager)
        self._cut_off.pop(manager.number, None)
        self._unacked.pop(manager.number, None)
        self._liveness.forget(manager.peer)
        self._greeted.pop(manager.peer, None)
        self.blobs.forget_peer(manager.peer)
        offer = manager.offer
        self.story.append(f"manager {manager.number} ({offer.manager_id}) {'is lost' if lost else 'left'}: {reason}")
        self.up.append(pack_left(Departure(manager.number, offer.manager_id, offer.block, offer.node, reason, lost)))

    def _tell_credit(self) -> None:
        pool = self.pool
        offered = len(pool.by_number), pool.total_slots, pool.total_prefetch
        if offered != self._told:
            self._told = offered
            window = 2 * (pool.total_slots + pool.total_prefetch) + 1024
            self.up.append(pack_credit(Credit(*offered, window)))

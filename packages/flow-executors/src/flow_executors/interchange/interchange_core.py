"""Decisions of the interchange: task placement, and tasks whose manager leaves. Pure: messages in, messages out.

The server feeds events, with the time, and sends what they leave in ``to_client`` and ``to_managers``. No task is ever
in two places: it waits in a queue here, or is out at one manager, or its outcome is on its way to the client.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from flow_core.interfaces.outcome import Loss, LossKind, Verdict
from flow_executors.errors import BadMessage, VersionMismatch
from flow_executors.interchange.admission import MOST, Greetings, Places
from flow_executors.interchange.claims import REASON as CONTESTED, Claims
from flow_executors.interchange.commands import DrainRequests
from flow_executors.interchange.gangs import Gangs
from flow_executors.interchange.managers import (
    REASON as REVOKED,
    ManagerLiveness,
    ManagerRecord,
    RevokedBlocks,
    capacity_of,
)
from flow_executors.interchange.scheduler import Dispatcher
from flow_executors.interchange.sessions import Sessions
from flow_executors.interchange.settings import CoreSettings
from flow_executors.interchange.state import InterchangeState
from flow_executors.interchange.talk import COSTS, LATE, REASON as TALKS, TalkBudget, cost
from flow_executors.wire.commands import KeyChange, unpack_command
from flow_executors.wire.files import asked_key
from flow_executors.wire.kinds import GREETINGS, HELLO, Buffer, Kind, kind_of, number_of
from flow_executors.wire.messages import (
    Credit,
    DrainMode,
    ExitCode,
    Heartbeat,
    ManagerLeft,
    PeerInfo,
    Registration,
    Welcome,
    agree,
    pack_ack,
    pack_again,
    pack_cancel,
    pack_credit,
    pack_drain,
    pack_exit,
    pack_heartbeat,
    pack_hello,
    pack_left,
    pack_loss,
    pack_register,
    pack_welcome,
    same_python,
    unpack_blob,
    unpack_cancel,
    unpack_credit,
    unpack_exit,
    unpack_heartbeat,
    unpack_hello,
    unpack_need,
    unpack_register,
    unpack_spec,
)
from flow_executors.wire.results import only_of, result_head
from flow_executors.wire.tasks import head_of_one, unpack_tasks

# Seconds in which a manager whose connection is gone may come back over another one. Process death is to be known
# within two.
# Heartbeat thresholds for which a manager that is connected may keep tasks when its job is said to be over.
_AFTER_JOB = 30
_RECONNECT_S = 1.0
# Seconds: TCP tries again after pauses that double, up to two minutes, so whoever was away is heard as much later.
_LONGEST_PAUSE_S = 120.0
# Seconds that managers have to come back beside that.
_COME_BACK_S = 15.0
# Messages of results after which they are acknowledged at once: few messages, and a manager does not keep too many.
_ACK_EVERY = 32
# Strangers, and numbers of lost managers, that are remembered: a bound against peers that make up new ones.
_REMEMBERED = 4096
# Seconds between two requests to the same stranger to register.
_ASK_EVERY_S = 1.0


class InterchangeCore:
    """The interchange's state and decisions. One thread."""

    def __init__(self, settings: CoreSettings, who: PeerInfo, time_ns: Callable[[], int]) -> None:
        self.settings = settings
        self.shared = shared = InterchangeState(time_ns)
        self.to_client, self.to_managers, self.waiting = shared.to_client, shared.to_managers, shared.waiting
        self.pool, self.blobs, self.specs = shared.pool, shared.blobs, shared.specs
        self.exiting = False
        """Whether the client sent EXIT, or is gone."""
        self.story: list[str] = []
        """Lines for the log, written by the server."""
        self.hang_ups: list[bytes] = []
        """Peers whose connections the server is to end."""
        self.address_of: Callable[[bytes], str] = lambda _: ""
        """Tells where the connection of a peer comes from; empty if not over the network."""
        self.presses = False
        """Whether some manager has sent so many results that they are to be acknowledged now."""
        self.ignored = 0
        """Number of messages that could not be parsed, or came from unknown peers."""
        self.late = 0
        """Results for keys that were not out at their sender."""
        self._who = who
        self._liveness = ManagerLiveness(settings.heartbeat_threshold_s)
        self._gangs = Gangs(shared)
        self._dispatcher = Dispatcher(shared, settings.packed, self._gangs, settings.managers_per_block)
        self.pass_on = self._dispatcher.pass_on
        """Take a message of one task that can go on as it is: digest, key and message; False where it cannot."""
        self._drain_requests = DrainRequests(shared, self._liveness, self._dispatcher.gangs)
        self._revoked = RevokedBlocks()
        self._sessions = Sessions(settings.secret)
        self._claims = Claims(settings.heartbeat_threshold_s)
        most = settings.managers_per_block or MOST
        self._greeted, self._places = Greetings(most), Places(most)
        # Strangers: when they were asked to introduce themselves, and what they may still say.
        self._asked: dict[bytes, tuple[float, TalkBudget]] = {}
        self._gone: dict[int, str] = {}  # number of a manager -> why it was given up
        self._cut_off: dict[int, ManagerRecord] = {}
        self._back_by = -math.inf
        """Until when managers may come back after this process was away."""
        self._unacked: dict[int, ManagerRecord] = {}
        # Numbers of an earlier interchange are never used again: managers that lived then still show them.
        self._next_number = (settings.incarnation << 20) + 1
        self._sent_credit = (-1, -1, -1)
        """Managers, slots and prefetch of the last CREDIT sent to the client."""
        self._from_client: dict[int, Callable[[Buffer, float], None]] = {
            Kind.TASKS: self._tasks,
            Kind.CANCEL: self._cancel,
            Kind.BLOB: self._blob,
            Kind.FILE: self._file_down,
            Kind.SPEC: self._spec,
            Kind.COMMAND: self._command,
            Kind.EXIT: self._client_exit,
        }
        self._from_manager: dict[int, Callable[[ManagerRecord, Buffer, float], None]] = {
            Kind.RESULTS: self._results,
            Kind.HEARTBEAT: self._heartbeat,
            Kind.RETURNED: self._returned,
            Kind.NEED: self._need,
            Kind.CREDIT: self._resize,
            Kind.EVENTS: self._pass_up,
            Kind.WORKER: self._pass_up,
            Kind.NOTICE: self._pass_up,
            Kind.FILE: self._file_up,
            Kind.REMOTE: self._remote,
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
            manager = self.pool.by_peer.get(peer)
            if manager is not None:
                self._may_say(manager, cost(0, len(message)), now)

    def from_worker(self, peer: bytes, message: Buffer, now: float) -> None:
        """Take RESULTS that a worker of a manager has sent by itself: no sign of life of the manager."""
        manager = self.pool.by_peer.get(peer)
        if manager is not None:
            self._results(manager, message, now)

    def disconnected(self, peer: bytes, now: float) -> None:
        """The connection of a manager is gone; it may come back over another within a second."""
        self._greeted.forget(peer)
        self._asked.pop(peer, None)
        self._liveness.forget(peer)
        self.blobs.forget_peer(peer)
        manager = self.pool.by_peer.get(peer)
        # Not lost at once: the manager may be alive, and come back over another connection with its tasks.
        if manager is not None and manager.cut_off_at is None:
            manager.cut_off_at = now
            self._cut_off[manager.number] = manager
            self.pool.settle(manager)

    def turn(self, now: float) -> None:
        """End a turn of the loop, after all events that were there: hand out tasks, send the client its credit."""
        if self._gangs.ended:
            self._gangs.settle_ended(now)
        # Once a turn, not once a message: tasks that came together travel in one message.
        self._dispatcher.dispatch(now)
        self._send_credit()

    def tick(self, now: float) -> None:
        """Act on deadlines: expel silent managers, and those that did not come back."""
        for peer in self._liveness.silent(now):
            self._liveness.forget(peer)
            manager = self.pool.by_peer.get(peer)
            if manager is None:
                self._greeted.forget(peer)
                continue
            reason = f"it was silent for more than {self._liveness.threshold_s:g} s"
            self._expel(manager, reason)
        for manager in list(self._cut_off.values()):
            # A process or node that died closes its connection at once: the heartbeat threshold is for silence without
            # that.
            if now >= self._lost_at(manager):
                self._lose(manager, "its connection broke: its process or its node died")
        for manager in self._revoked.overdue(now, self._patience(now)):
            if manager.outstanding:  # whoever it is: its job is over, so it may never report them
                self._expel(manager, f"{REVOKED}, and it still had tasks")
                continue
            self.to_managers.append((manager.peer, pack_exit(ExitCode.DONE, REVOKED)))
            self._depart(manager, REVOKED, lost=False)
        self._dispatcher.tick(now)

    def _lost_at(self, manager: ManagerRecord) -> float:
        return max((manager.cut_off_at or 0.0) + _RECONNECT_S, self._back_by)

    def _patience(self, now: float) -> float:
        return now + self.settings.heartbeat_threshold_s

    def admitted(self, change: KeyChange, now: float) -> None:
        """Blocks were asked for, or given up: managers of these get nothing more, and leave."""
        self.shared.expected.update(block for _, block in change.admit)
        self.shared.expected.difference_update(change.revoke)
        # Their tasks may finish: the job's end decides, and a drain gives back what has not started.
        leaving = self._revoked.add(
            change.revoke, self.pool.by_number.values(), self._patience(now), lambda block: self._last(block, now)
        )
        self._drain_requests.drain(leaving)

    def _last(self, block: str, now: float) -> float:
        """Return until when managers of a block may keep tasks once the scheduler says that its job is over.

        A scheduler may be wrong, so the tasks may go on. But where more have come with the key than the block has
        places, those that are still here are no part of the job.
        """
        return now if block in self._places.contested else now + _AFTER_JOB * self.settings.heartbeat_threshold_s

    def slept(self, now: float, away_s: float) -> None:
        """Restart the silence of all managers: this process did not run for so many seconds."""
        settings = self.settings
        # They have looked for other ways meanwhile, and connections end before they are back; but who did not wait for
        # so long will not come.
        if settings.heartbeat_threshold_s / 2 <= away_s < settings.sleep_threshold_s:
            self._back_by = now + max(settings.heartbeat_threshold_s, min(away_s, _LONGEST_PAUSE_S) + _COME_BACK_S)
            self.story.append(
                f"this machine was away for {away_s:.0f} s: managers have {self._back_by - now:.0f} s to come back"
            )
        self._liveness.forgive(now, self._back_by)

    def next_deadline(self, now: float) -> float | None:
        """Return when ``tick`` has something to look at."""
        silence, again = self._liveness.next_deadline(), self._dispatcher.next_deadline(now)
        leaving = self._revoked.next_deadline()
        if not self._cut_off and leaving is None and (silence is None or again is None):
            return silence if again is None else again
        deadlines = [self._lost_at(manager) for manager in self._cut_off.values()]
        return min(deadlines + [deadline for deadline in (silence, again, leaving) if deadline is not None])

    def delivered(self, everything: bool) -> None:
        """All that was in ``to_client`` has reached the client's socket: acknowledge results to their managers.

        Small numbers of them wait for company unless ``everything`` is to be acknowledged.
        """
        self.presses = False
        for manager in list(self._unacked.values()):
            # One ACK covers all messages up to its number, so to wait makes fewer of them.
            if everything or manager.received - manager.acked >= _ACK_EVERY:
                manager.acked = manager.received
                del self._unacked[manager.number]
                self.shared.send(manager, pack_ack(manager.received))

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
        # A lone task goes on unread where a manager is free and knows its function: nothing is unpacked or packed.
        one = head_of_one(message)
        if one is not None and self.pass_on(*one, message):
            return
        batch = unpack_tasks(message)
        if not self.waiting.add(batch, now):
            self.shared.report(batch.keys, Verdict.REFUSED, b"its class was never described")

    def _cancel(self, message: Buffer, now: float) -> None:
        keys, kill = unpack_cancel(message)
        wanted = set(keys)
        found = self.waiting.remove(wanted)
        if found:
            self.shared.report(found, Verdict.CANCELLED)
            # What waited here is cancelled; only a manager can say whether the rest has started.
            wanted.difference_update(found)
        for manager in self.pool.by_number.values() if wanted else ():
            here = wanted & manager.out
            here.update(key for key in manager.special if key in wanted)
            if here:
                self.shared.send(manager, pack_cancel(sorted(here), kill))

    def _blob(self, message: Buffer, now: float) -> None:
        piece = unpack_blob(message)
        if self.blobs.add(piece, bytes(message)):
            # Managers asked while the blob was on its way from the client.
            for peer in self.blobs.wanted.pop(piece.digest, ()):
                self.shared.send_blob(peer, piece.digest)

    def _spec(self, message: Buffer, now: float) -> None:
        class_id, spec = unpack_spec(message)
        self.waiting.specs[class_id] = spec
        self.specs[class_id] = bytes(message)

    def _command(self, message: Buffer, now: float) -> None:
        self._drain_requests.command(unpack_command(message), now)

    def _client_exit(self, message: Buffer, now: float) -> None:
        self.leave("the run is over")

    def leave(self, reason: str) -> None:
        """Send all managers home; ``exiting`` is set."""
        self.exiting = True
        for manager in self.pool.by_number.values():
            self.to_managers.append((manager.peer, pack_exit(ExitCode.DONE, reason)))

    # -- the managers' messages

    def _from_peer(self, peer: bytes, block: str, message: Buffer, now: float) -> None:
        kind = kind_of(message)
        manager = self.pool.by_peer.get(peer)
        if kind in GREETINGS:
            if not self._greeted.may_say(block, cost(kind, len(message)), now):
                self.hang_ups.append(peer)
            elif kind == HELLO:
                self._hello(peer, block, message, now)
            else:
                self._register(peer, block, message, now)
        elif manager is None:
            self.ignored += 1
            # A manager of an earlier interchange: asked to register, it keeps its tasks. One that leaves needs no
            # answer.
            if kind != Kind.EXIT:
                self._stranger(peer, len(message), now)
        else:
            self._liveness.heard(peer, now)
            handler = self._from_manager.get(kind)
            if (handler is None or kind in COSTS) and not self._may_say(manager, cost(kind, len(message)), now):
                return
            if handler is None:
                self.ignored += 1
            else:
                handler(manager, message, now)

    def _stranger(self, peer: bytes, size: int, now: float) -> None:
        """Ask an unknown peer to register, once a second however much it sends, and not for ever."""
        asked_at, budget = self._asked.get(peer, (-math.inf, None))
        # To forget all costs a message a peer; it keeps strangers from filling the memory.
        if budget is None and len(self._asked) >= _REMEMBERED:
            self._asked.clear()
        budget = budget or TalkBudget()
        if not budget.spend(cost(0, size), now):
            self.hang_ups.append(peer)
        elif now - asked_at >= _ASK_EVERY_S and peer not in self._greeted:
            asked_at = now
            self.to_managers.append((peer, pack_again()))
        self._asked[peer] = asked_at, budget

    def _may_say(self, manager: ManagerRecord, units: float, now: float) -> bool:
        """Whether a manager may still say so much beside results; else it is expelled, and its block closed."""
        if manager.talk.spend(units, now):
            return True
        self._places.close(manager.offer.block)
        self.hang_ups.append(manager.peer)
        self._expel(manager, TALKS)
        return False

    def _hello(self, peer: bytes, block: str, message: Buffer, now: float) -> None:
        # Versions are compared before anything of the registration is parsed: its fields may differ.
        hello = unpack_hello(message)
        who = f"the manager of block {block}" + (f" on node {hello.who.node}" if hello.who.node else "")
        try:
            agree(hello.lowest, hello.highest, who)
            same_python(hello.who.python, self.settings.python, who)
            if hello.who.run_id != self.settings.run_id:
                raise VersionMismatch(f"the manager belongs to run {hello.who.run_id}, not {self.settings.run_id}")
            if block in self._revoked.blocks:
                raise VersionMismatch(f"block {block} was given up")
        except VersionMismatch as error:
            self._turn_away(peer, ExitCode.REFUSED, str(error), block, now)
            return
        forgotten = self._greeted.add(peer, block)
        if forgotten is not None:
            self._liveness.forget(forgotten)
        self._liveness.heard(peer, now)
        self.to_managers.append((peer, pack_hello(self._who)))

    def _turn_away(self, peer: bytes, code: ExitCode, reason: str, block: str, now: float) -> None:
        self.to_managers.append((peer, pack_exit(code, reason)))
        # Few lines, however often somebody comes again.
        left_out = self._places.tells(block, now)
        if left_out is None:
            return
        if left_out:
            reason = f"{reason} ({left_out} more of this block were turned away since the last such line)"
        self.story.append(f"a manager of block {block} was turned away: {reason}")
        if code is ExitCode.REFUSED:
            self.to_client.append(pack_left(ManagerLeft(0, "", block, "", reason, True)))

    def _register(self, peer: bytes, block: str, message: Buffer, now: float) -> None:
        number, offer, held = unpack_register(message)
        if peer not in self._greeted:
            self._stranger(peer, len(message), now)
            return
        # The key decides, not the manager: all managers of a block hold its key, and could claim another block.
        if offer.block != block:
            self._turn_away(peer, ExitCode.REFUSED, f"its key is that of block {block}, not {offer.block}", block, now)
            return
        if block in self._revoked.blocks:
            self._turn_away(peer, ExitCode.REFUSED, f"block {block} was given up", block, now)
            return
        if not self._sessions.proves(number, offer):
            # Whoever it says that it is; but its WELCOME may have been lost with a connection.
            number = self.pool.number_of(offer)
        # Its tasks run elsewhere by now: if it stayed, they would run twice.
        if number in self._gone:
            self._turn_away(peer, ExitCode.DECLARED_LOST, self._gone[number], block, now)
            return
        manager = self._again(peer, number, offer, held)
        if manager is None:
            # Only after a restart may a manager hold tasks that this interchange has not given out.
            if held and not (number and self.settings.incarnation):
                reason = "it holds tasks that this interchange never gave it"
                self._turn_away(peer, ExitCode.DECLARED_LOST, reason, block, now)
                return
            if peer in self.pool.by_peer:
                self._turn_away(peer, ExitCode.REFUSED, "its connection is that of another manager", block, now)
                return
            if not self._has_place(peer, number, offer, now):
                return
            manager = self._new(peer, number, offer)
            held = self._claim(manager, held, now)
        self._greeted.registered(peer)
        address = self.address_of(peer) or None  # never what it says itself
        spread = set(offer.spread or ())
        offer = replace(offer, manager_id=manager.offer.manager_id, session=None, address=address, spread=None)
        manager.idle_since = None if manager.outstanding else now
        self.shared.expected.discard(block)
        self.shared.joined_at = now
        self._liveness.heard(peer, now)
        settings = self.settings
        welcome = Welcome(
            manager.number,
            self.shared.time_ns(),
            settings.heartbeat_period_s,
            settings.heartbeat_threshold_s,
            settings.host_id,
            settings.results,
            self._sessions.of(manager.number, block),
        )
        self.to_managers.append((peer, pack_welcome(welcome)))
        # The client hears of a manager before any result of it: it finds a task's place by the number.
        self.to_client.append(pack_register(manager.number, offer, held))
        manager.offer = replace(  # the rest is the client's matter: 32 numbers of each of 8,000 managers
            manager.offer, worker_pids=(), secret=None, session=None, address=None
        )
        self.story.append(
            f"manager {manager.number} ({offer.manager_id}) of block {offer.block} on {offer.node} registered: "
            f"{offer.workers} workers, {len(held)} tasks held"
        )
        if offer.ranks is not None:
            self._gangs.came_back(manager)
            self._gangs.unknown(manager, spread.intersection(held) - manager.gangs.keys())
        if manager.draining or manager.held:
            mode = DrainMode.DRAIN if manager.draining else DrainMode.HOLD
            self.to_managers.append((peer, pack_drain(mode)))

    def _again(self, peer: bytes, number: int, offer: Registration, held: Sequence[int]) -> ManagerRecord | None:
        manager = self.pool.by_number.get(number) or self.pool.by_peer.get(peer)
        if manager is None or not manager.is_of(offer):
            return None
        self._cut_off.pop(manager.number, None)
        self._liveness.forget(manager.peer)
        self.pool.move(manager, peer)
        manager.cut_off_at = None
        manager.recalling = False
        # What was on its way when the connection broke may not have arrived: blobs and classes are sent again.
        manager.known.clear()
        manager.classes.clear()
        # The manager states all it holds, so what it does not name never arrived, and has not started.
        missing = (manager.out | manager.special.keys()) - set(held)
        if missing:
            manager.drop(missing)
            self.shared.report(
                sorted(missing), Verdict.RETURNED, b"the connection to its manager broke before it arrived"
            )
        self.pool.resize(manager, offer.workers, offer.prefetch)
        return manager

    def _has_place(self, peer: bytes, number: int, offer: Registration, now: float) -> bool:
        """Whether a manager that is not here has a place in its block; ``number`` is proven, or 0. Else it is told."""
        there = list(self.pool.by_block.get(offer.block, {}).values())
        if number:
            surplus = self._places.surplus(there)
            if surplus is not None:
                reason = f"{offer.manager_id} on {offer.node}, whose place it had, has come back"
                self._expel(surplus, reason)
            return True
        reason = self._places.refusal(offer.block, offer.manager_id, offer.node, there)
        if reason:
            address = self.address_of(peer)
            reason = f"{reason}; it came from {address}" if address else reason
            self._turn_away(peer, ExitCode.REFUSED, reason, offer.block, now)
        return not reason

    def _new(self, peer: bytes, number: int, offer: Registration) -> ManagerRecord:
        number_before = number  # its block may be old already
        # A number of the future, or of a manager that is here, is no number of this one's.
        if not number or number in self.pool.by_number or number >= self._next_number:
            number, self._next_number = self._next_number, self._next_number + 1
        own_name = ""
        # Names are host and pid, which containers may share: the second gets a suffix, so that orders find each.
        if (offer.block, offer.manager_id) in self.pool.by_name:
            own_name = offer.manager_id
            offer = replace(offer, manager_id=f"{own_name}#{number}")
        if offer.ends_at_ns and offer.time_ns:  # by this machine's clock
            offer = replace(offer, ends_at_ns=offer.ends_at_ns + self.shared.time_ns() - offer.time_ns)
        manager = ManagerRecord(peer, number, offer, capacity_of(offer), offer.workers, offer.prefetch)
        manager.own_name, manager.proven, manager.secret = own_name, bool(number_before), offer.secret
        if offer.ends_at_ns and not number_before:
            manager.life_s = (offer.ends_at_ns - self.shared.time_ns()) * 1e-9
        self.pool.add(manager)
        return manager

    def _claim(self, manager: ManagerRecord, held: tuple[int, ...], now: float) -> tuple[int, ...]:
        """Grant a manager the tasks that it claims; return those. What another one has claimed before is lost."""
        if not held:
            return held
        granted, contested = self._claims.take(manager, held, now)
        manager.out.update(granted)
        self.pool.settle(manager)
        # The first claim was granted: it is taken back, since one of the two lies and nobody knows which.
        for other in set(contested.values()):
            other.drop(list(contested))
            self.settle(other, now)
        if contested:
            loss = Loss(LossKind.INTERCHANGE, reason=CONTESTED)
            self.shared.report(sorted(contested), Verdict.LOST, pack_loss(loss))
            self.story.append(f"{len(contested)} tasks that manager {manager.number} claims: {CONTESTED}")
        return tuple(granted)

    def _results(self, manager: ManagerRecord, message: Buffer, now: float) -> None:
        number, sequence, keys = result_head(message)
        # A manager of an earlier number: the results come again under the new one.
        if number != manager.number:
            self.ignored += 1
            return
        results: Buffer | None = message
        # At C speed for the common case, tasks of the default class that are all out here.
        if not keys or not manager.out.issuperset(keys):
            lacking = [key for key in keys if not manager.has(key)]
            # Only a forged message names tasks of others: late ones of its own are nobody's any more.
            if self.pool.has_others(manager, lacking):
                self._expel(manager, "it sent results of tasks that other managers have")
                return
            if lacking or not keys:
                self.late += len(lacking)
                if not self._may_say(manager, LATE * (len(lacking) or 10), now):
                    return
                results = only_of(message, manager.has)
        manager.drop(keys)
        # Messages that workers send directly have no number, and are not acknowledged.
        if sequence:
            manager.received = max(manager.received, sequence)
            self._unacked[manager.number] = manager
            if manager.received - manager.acked >= _ACK_EVERY:
                self.presses = True
        if results is not None:
            self.shared.pass_to_client(results)
        self.settle(manager, now)

    def settle(self, manager: ManagerRecord, now: float) -> None:
        """Note that a manager has more or less to do than before."""
        manager.idle_since = None if manager.outstanding else manager.idle_since or now
        self.pool.settle(manager)

    def _heartbeat(self, manager: ManagerRecord, message: Buffer, now: float) -> None:
        beat = unpack_heartbeat(message)
        # Answered at once: the manager measures the round trip by it.
        self.to_managers.append((manager.peer, pack_heartbeat(Heartbeat(0, self.shared.time_ns(), 0))))
        if beat.keys and beat.manager == manager.number:
            rows = zip(beat.keys, beat.starts, beat.workers, strict=True)
            # A start may cross with a recall or a cancel; it must not revive a task that is elsewhere.
            held = [row for row in rows if manager.has(row[0])]
            manager.started.update((key, start + beat.offset_ns) for key, start, _ in held)
            if held:
                keys, starts, workers = zip(*held, strict=True)
                self.to_client.append(
                    pack_heartbeat(replace(beat, keys=keys, starts=starts, workers=workers), Kind.STARTED)
                )

    def _returned(self, manager: ManagerRecord, message: Buffer, now: float) -> None:
        batch = unpack_tasks(message)
        if batch.last:
            manager.recalling = False
        owned = [key for key in batch.keys if key in manager.out or key in manager.special]
        # All or nothing: to queue a task that is not this manager's would run it twice.
        if len(owned) != len(batch.keys):
            raise BadMessage("tasks returned that were not out at their sender")
        manager.drop(owned)
        if not self.waiting.put_back(batch, now):
            self.shared.report(owned, Verdict.RETURNED, b"its class is not known any more")
        self.settle(manager, now)

    def _need(self, manager: ManagerRecord, message: Buffer, now: float) -> None:
        digests = unpack_need(message)
        self.shared.ask_for([d for d in digests if not self.shared.send_blob(manager.peer, d)], manager.peer)

    def _resize(self, manager: ManagerRecord, message: Buffer, now: float) -> None:
        credit = unpack_credit(message)
        # Never more than was registered, and bounded: totals of a manager that lies must not reach the client.
        self.pool.resize(manager, min(credit.slots, manager.offer.workers), min(credit.prefetch, 1 << 24))

    def _pass_up(self, manager: ManagerRecord, message: Buffer, now: float) -> None:
        # Passed on unread, but not in the name of another manager.
        if number_of(message) == manager.number:
            self.to_client.append(message)
        else:
            self.ignored += 1  # of another manager, or of none

    def _file_up(self, manager: ManagerRecord, message: Buffer, now: float) -> None:
        key = asked_key(message)
        # Of a manager without tasks there is little to be said of files.
        if not manager.outstanding and not self._may_say(manager, 10.0 + len(message) / 4096, now):
            return
        # A manager gets the files of tasks that it has, and of no others.
        if key is None or manager.has(key):
            self._pass_up(manager, message, now)
        else:
            self.ignored += 1

    def _remote(self, manager: ManagerRecord, message: Buffer, now: float) -> None:
        # Between the managers of one task alone. What comes for one that has just ended is nobody's fault.
        if not self._gangs.relay(manager, message):
            self.late += 1
            self._may_say(manager, LATE, now)

    def _file_down(self, message: Buffer, now: float) -> None:
        manager = self.pool.by_number.get(number_of(message))
        if manager is not None:
            self.shared.send(manager, message)

    def _manager_exit(self, manager: ManagerRecord, message: Buffer, now: float) -> None:
        code, reason = unpack_exit(message)
        # One that leaves with tasks has not finished them, whatever it says.
        if code is ExitCode.DONE and not manager.outstanding:
            self._depart(manager, reason or "it is done", lost=False)
        else:
            self._lose(manager, f"it gave up: {reason}")

    # -- losses

    def _expel(self, manager: ManagerRecord, reason: str) -> None:
        self.to_managers.append((manager.peer, pack_exit(ExitCode.DECLARED_LOST, reason)))
        self._lose(manager, reason)

    def _lose(self, manager: ManagerRecord, reason: str) -> None:
        keys = sorted(manager.out) + sorted(manager.special)
        offer = manager.offer
        text = f"the manager {offer.manager_id} of block {offer.block} on {offer.node} is lost: {reason}"
        if keys:
            exceeding = manager.exceeding(self.shared.time_ns())
            for kind, some in (
                (LossKind.MANAGER, [key for key in keys if key not in exceeding]),
                (LossKind.WALLTIME, exceeding),
            ):
                if some:
                    self.shared.report(some, Verdict.LOST, pack_loss(Loss(kind, reason=text)), manager.number)
        self._gone[manager.number] = reason
        # The oldest go first: the longer a manager is away, the less likely it comes back.
        while len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]
        self._depart(manager, reason, lost=True)

    def _depart(self, manager: ManagerRecord, reason: str, lost: bool) -> None:
        self._gangs.gone(manager, reason)
        self.pool.remove(manager)
        self._cut_off.pop(manager.number, None)
        self._revoked.gone(manager)
        self._unacked.pop(manager.number, None)
        self._liveness.forget(manager.peer)
        self._greeted.forget(manager.peer)
        self.blobs.forget_peer(manager.peer)
        offer = manager.offer
        self.story.append(f"manager {manager.number} ({offer.manager_id}) {'is lost' if lost else 'left'}: {reason}")
        self.to_client.append(
            pack_left(ManagerLeft(manager.number, offer.manager_id, offer.block, offer.node, reason, lost))
        )

    def _send_credit(self) -> None:
        pool = self.pool
        offered = len(pool.by_number), pool.total_slots, pool.total_prefetch
        if offered != self._sent_credit:
            self._sent_credit = offered
            # Tasks of a class that the client may have out: more than managers can hold, so that none waits for the
            # script. All others stay there, or each would be copied here as well.
            window = 2 * (pool.total_slots + pool.total_prefetch) + 1024
            self.to_client.append(pack_credit(Credit(*offered, window)))

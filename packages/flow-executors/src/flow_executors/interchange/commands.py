"""Commands of the client to the interchange: hold and drain managers and blocks, and answer where a task is."""

from __future__ import annotations

from collections.abc import Sequence

from flow_core.interfaces.call import TaskSpec
from flow_executors.common.resources import Capacity, ResourceRequest
from flow_executors.common.task_ranks import RankRequest
from flow_executors.interchange.gang_scheduler import GangScheduler
from flow_executors.interchange.managers import ManagerLiveness, ManagerRecord
from flow_executors.interchange.pending import ClassQueue
from flow_executors.interchange.scheduler import never
from flow_executors.interchange.state import InterchangeState
from flow_executors.wire.commands import BlockActivity, Command, ManagerActivity, Reply, Whereabouts, pack_reply
from flow_executors.wire.messages import ALL, DEFAULT_CLASS, DrainMode, pack_drain

# Reasons that are named; more would be the same for other kinds of nodes.
_REASONS = 3


def whereabouts(
    shared: InterchangeState, liveness: ManagerLiveness, gangs: GangScheduler, key: int, now: float
) -> Whereabouts:
    """Return where a task is. Looks at all queues and all managers once."""
    managers = list(shared.pool.by_number.values())
    for manager in managers:
        if manager.has(key):
            return Whereabouts(
                "manager",
                managers=len(managers),
                slots=shared.pool.total_slots,
                busy=_busy(managers),
                block=manager.offer.block,
                node=manager.offer.node,
                manager=manager.offer.manager_id,
                outstanding=manager.outstanding,
                workers=manager.slots,
                started_ns=manager.started.get(key, 0),
                silent_s=liveness.silence_s(manager.peer, now),
                places=_places(manager, key),
            )
    found = shared.waiting.locate(key)
    if found is None:
        return Whereabouts(managers=len(managers), slots=shared.pool.total_slots, busy=_busy(managers))
    queue, ahead, urgent = found
    wanted = RankRequest.of(queue.spec.resources)
    if wanted is not None:
        return _of_ranks(shared, gangs, wanted, queue, ahead, urgent)
    misfits = _misfits(shared, queue.spec) if queue.class_id != DEFAULT_CLASS else ()
    needs, most_free, cramped = _room(managers, queue.spec)
    return Whereabouts(
        "queue",
        ahead=ahead,
        urgent=urgent,
        misfits=misfits,
        needs=needs,
        most_free=most_free,
        cramped=cramped,
        avoided=queue.spec.avoid,
        closed=sum(manager.closed for manager in managers),
        reserved=sum(manager.reserved_for is not None for manager in managers),
        managers=len(managers),
        slots=shared.pool.total_slots,
        busy=_busy(managers),
    )


def _of_ranks(
    shared: InterchangeState, gangs: GangScheduler, wanted: RankRequest, queue: ClassQueue, ahead: int, urgent: int
) -> Whereabouts:
    """Return what is in the way of a task of ranks in the queue."""
    spec, managers = queue.spec, list(shared.pool.by_number.values())
    able, ready, kept = gangs.outlook(spec.resources, spec.needed_s)
    return Whereabouts(
        "queue",
        ahead=ahead,
        urgent=urgent,
        misfits=tuple(gangs.reasons(wanted, spec.needed_s)[:_REASONS]),
        avoided=spec.avoid,
        closed=sum(manager.closed for manager in managers),
        reserved=sum(manager.reserved_for is not None for manager in managers) - kept,
        managers=len(managers),
        slots=shared.pool.total_slots,
        busy=_busy(managers),
        ranks=wanted.ranks,
        nodes=wanted.nodes,
        nodes_able=able,
        nodes_ready=ready,
        nodes_kept=kept,
    )


def _places(manager: ManagerRecord, key: int) -> tuple[str, ...] | None:
    gang = manager.gangs.get(key)
    if gang is None or not gang.members:
        return None
    return (manager.offer.node, *(member.offer.node for member, _ in gang.members.values()))


def _busy(managers: list[ManagerRecord]) -> int:
    return sum(max(0, min(manager.slots, manager.slots - manager.free_slots)) for manager in managers)


def _wide(shared: InterchangeState) -> tuple[int, int, int] | None:
    """Return what ``Reply.wide`` says. Tasks that wait are taken to go to the largest node that is connected."""
    managers = shared.pool.by_number.values()
    beyond = sum(manager.special_slots - len(manager.special) for manager in managers)
    largest = max(
        (profile.largest for profile in shared.pool.profiles.values()), key=lambda one: one.slots, default=None
    )
    tasks = slots = 0
    if largest is not None:
        for queue in shared.waiting.special_queues():
            each = _slots_of_task(queue.spec, largest)
            if each > 1:
                tasks, slots = tasks + queue.count, slots + queue.count * each
    return (tasks, slots, beyond) if tasks or beyond else None


def _slots_of_task(spec: TaskSpec, capacity: Capacity) -> int:
    """Return the slots that a task takes altogether, on nodes like this."""
    wanted = RankRequest.of(spec.resources)
    if wanted is None:
        return ResourceRequest.of(spec, capacity).slots
    if wanted.nodes is not None:
        return sum(wanted.slots(ranks, capacity) for ranks in wanted.shares())
    whole, rest = divmod(wanted.ranks, max(1, wanted.most_ranks(capacity.slots, len(capacity.devices), capacity)))
    return whole * capacity.slots + (wanted.slots(rest, capacity) if rest else 0)


def _misfits(shared: InterchangeState, spec: TaskSpec) -> tuple[str, ...]:
    """Return why such a task can never run on any of the managers; nothing if it can on some."""
    profiles = shared.pool.profiles.values()
    reasons = [never(spec.resources, spec.needed_s, profile) for profile in profiles]
    return tuple(sorted(set(reasons)))[:_REASONS] if reasons and all(reasons) else ()


def _room(managers: list[ManagerRecord], spec: TaskSpec) -> tuple[int, int, bool]:
    """Return the slots that such a task takes, the most that are free at once, and whether only other things lack."""
    needs, most_free, cramped = 1, 0, False
    for manager in managers:
        demand = ResourceRequest.of(spec, manager.capacity)
        if demand.slots > manager.slots or manager.closed:
            continue
        needs = max(needs, demand.slots)
        most_free = max(most_free, manager.free_slots)
        cramped = cramped or (demand.slots <= manager.free_slots and not manager.has_the_rest(demand))
    return needs, most_free, cramped


class DrainRequests:
    """Carries out the client's orders about managers, and answers its questions."""

    __slots__ = ("_gangs", "_liveness", "_shared")

    def __init__(self, shared: InterchangeState, liveness: ManagerLiveness, gangs: GangScheduler) -> None:
        self._shared = shared
        self._liveness = liveness
        self._gangs = gangs

    def command(self, command: Command, now: float) -> None:
        """Carry out one order, or answer one question, and reply."""
        orders = {"hold": self._hold, "release": self._release, "drain": self._drain}
        if command.name == "why":
            key = command.key if command.key is not None else 0
            place = whereabouts(self._shared, self._liveness, self._gangs, key, now)
            self._shared.to_client.append(pack_reply(Reply(command.number, whereabouts=place)))
            return
        if command.name == "managers":
            states = tuple(self._state(manager, now) for manager in self._meant(command))
            self._shared.to_client.append(pack_reply(Reply(command.number, managers=states)))
            return
        lacking: tuple[int, ...] | None = None
        wide: tuple[int, int, int] | None = None
        error, chosen = "", self._meant(command)
        if command.name == "nodes":
            chosen = self._shared.pool.bar(frozenset(command.nodes or ()))
            for manager in chosen:
                # What it has in advance would run there: it is to be given to others.
                if manager.backlog:
                    self._shared.recall(manager, ALL)
        elif command.name in orders:
            chosen = orders[command.name](command, chosen, now)
        elif command.name == "blocks":
            lacking, wide = self._gangs.lacking(now) or None, _wide(self._shared)
        else:
            error, chosen = f"unknown command {command.name!r}", []
        reply = Reply(command.number, self._activity(chosen, now), error, lacking=lacking, wide=wide)
        self._shared.to_client.append(pack_reply(reply))

    def _meant(self, command: Command) -> list[ManagerRecord]:
        managers = list(self._shared.pool.by_number.values())
        # An order that names nobody is for nobody: only a question means all.
        if not (command.blocks or command.managers):
            return managers if command.name in ("blocks", "managers") else []
        blocks, names = set(command.blocks), set(command.managers)
        return [m for m in managers if m.offer.block in blocks or m.offer.manager_id in names]

    def _state(self, manager: ManagerRecord, now: float) -> ManagerActivity:
        offer = manager.offer
        return ManagerActivity(
            manager=offer.manager_id,
            block=offer.block,
            node=offer.node,
            workers=manager.slots,
            tasks=manager.outstanding,
            idle_s=_idle_for(manager, now),
            draining=manager.draining,
            held=manager.held,
            node_held=manager.barred,
            cut_off=manager.cut_off_at is not None,
            silent_s=self._liveness.silence_s(manager.peer, now),
            python=offer.python,
            software=offer.software,
            ends_at_ns=offer.ends_at_ns,
        )

    def _hold(self, command: Command, chosen: list[ManagerRecord], now: float) -> list[ManagerRecord]:
        for manager in chosen:
            manager.held = True
            self._send(manager, DrainMode.HOLD)
        return chosen

    def _release(self, command: Command, chosen: list[ManagerRecord], now: float) -> list[ManagerRecord]:
        for manager in chosen:
            # A drain goes to its end: the manager has already returned what had not started.
            if not manager.draining:
                manager.held = False
                self._send(manager, DrainMode.RELEASE)
        return chosen

    def _drain(self, command: Command, chosen: list[ManagerRecord], now: float) -> list[ManagerRecord]:
        """Drain; with ``idle_for_s`` only those blocks of which every manager has been idle for so long."""
        if command.idle_for_s is not None:
            # By block: a job ends as a whole, so one busy manager keeps all of its block.
            busy = {m.offer.block for m in chosen if _idle_for(m, now) < command.idle_for_s or m.outstanding}
            chosen = [manager for manager in chosen if manager.offer.block not in busy]
        self.drain(chosen)
        return chosen

    def drain(self, chosen: Sequence[ManagerRecord]) -> None:
        """Let managers finish what they have and leave."""
        for manager in chosen:
            manager.draining = True
            self._send(manager, DrainMode.DRAIN)

    def _send(self, manager: ManagerRecord, mode: DrainMode) -> None:
        self._shared.send(manager, pack_drain(mode))
        self._shared.pool.settle(manager)

    def _activity(self, chosen: list[ManagerRecord], now: float) -> tuple[BlockActivity, ...]:
        blocks: dict[str, list[ManagerRecord]] = {}
        for manager in chosen:
            blocks.setdefault(manager.offer.block, []).append(manager)
        return tuple(_summary(block, managers, now) for block, managers in blocks.items())


def _summary(block: str, managers: list[ManagerRecord], now: float) -> BlockActivity:
    return BlockActivity(
        block,
        tuple(manager.offer.manager_id for manager in managers),
        tuple(manager.offer.node for manager in managers),
        sum(manager.slots for manager in managers),
        sum(manager.outstanding for manager in managers),
        min(_idle_for(manager, now) for manager in managers),
        any(manager.held or manager.draining for manager in managers),
    )


def _idle_for(manager: ManagerRecord, now: float) -> float:
    return 0.0 if manager.idle_since is None else max(0.0, now - manager.idle_since)

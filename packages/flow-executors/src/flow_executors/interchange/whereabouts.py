"""Where one task is, and what is in its way: an answer to the client. Nothing is changed by it."""

from __future__ import annotations

from flow_core.interfaces.call import TaskSpec
from flow_executors.interchange.desk import Desk
from flow_executors.interchange.liveness import Liveness
from flow_executors.interchange.packing import never
from flow_executors.interchange.pool import Manager
from flow_executors.manager.demand import Demand
from flow_executors.wire.frames import DEFAULT_CLASS, Whereabouts

_REASONS = 3


def whereabouts(desk: Desk, liveness: Liveness, key: int, now: float) -> Whereabouts:
    """Return where a task is. Looks at all queues and all managers once."""
    managers = list(desk.pool.by_number.values())
    for manager in managers:
        if manager.has(key):
            return Whereabouts(
                "manager",
                managers=len(managers),
                slots=desk.pool.total_slots,
                busy=_busy(managers),
                block=manager.offer.block,
                node=manager.offer.node,
                manager=manager.offer.manager_id,
                outstanding=manager.outstanding,
                workers=manager.slots,
                started_ns=manager.started.get(key, 0),
                silent_s=liveness.silence_s(manager.peer, now),
            )
    found = desk.waiting.locate(key)
    if found is None:
        return Whereabouts(managers=len(managers), slots=desk.pool.total_slots, busy=_busy(managers))
    queue, ahead, urgent = found
    misfits = _misfits(desk, queue.spec) if queue.class_id != DEFAULT_CLASS else ()
    needs, most_free, cramped = _room(managers, queue.spec)
    return Whereabouts(
        "queue",
        ahead=ahead,
        urgent=urgent,
        misfits=misfits,
        needs=needs,
        most_free=most_free,
        cramped=cramped,
        closed=sum(manager.closed for manager in managers),
        reserved=sum(manager.reserved_for is not None for manager in managers),
        managers=len(managers),
        slots=desk.pool.total_slots,
        busy=_busy(managers),
    )


def _busy(managers: list[Manager]) -> int:
    return sum(max(0, min(manager.slots, manager.slots - manager.free_slots)) for manager in managers)


def _misfits(desk: Desk, spec: TaskSpec) -> tuple[str, ...]:
    """Return why such a task can never run on any of the managers; nothing if it can on some."""
    profiles = desk.pool.profiles.values()
    reasons = [never(spec.resources, spec.running_time_min_s, profile) for profile in profiles]
    return tuple(sorted(set(reasons)))[:_REASONS] if reasons and all(reasons) else ()


def _room(managers: list[Manager], spec: TaskSpec) -> tuple[int, int, bool]:
    """Return the slots that such a task takes, the most that are free at once, and whether only other things lack."""
    needs, most_free, cramped = 1, 0, False
    for manager in managers:
        demand = Demand.of(spec, manager.capacity)
        if demand.slots > manager.slots or manager.closed:
            continue
        needs = max(needs, demand.slots)
        most_free = max(most_free, manager.free_slots)
        cramped = cramped or (demand.slots <= manager.free_slots and not manager.has_the_rest(demand))
    return needs, most_free, cramped

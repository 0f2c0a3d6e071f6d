"""Reasons for which a task of a pilot-job executor is not done: its place, the tasks ahead of it, and the blocks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flow_core.errors import ExecutorError
from flow_core.interfaces.waiting import Cause, CauseKind, count, since, tasks_ahead

if TYPE_CHECKING:
    from flow_core.interfaces.call import TryKey
    from flow_executors.runtime import ExecutorRuntime
    from flow_executors.wire.commands import Whereabouts

# Heartbeat periods without a message after which a manager is named: one that is late by half a period is well.
_LATE = 1.5


def causes_of(runtime: ExecutorRuntime, key: TryKey, timeout_s: float) -> list[Cause]:
    """Return all that keeps a task from being done; nothing if the executor has not got it. Any thread.

    Asks the interchange, which has ``timeout_s`` seconds; with 0 it is not asked.
    """
    client = runtime.client
    if not client.knows(key):
        return []
    try:
        place = client.whereabouts(key, timeout_s)
    except ExecutorError as error:
        return [Cause(CauseKind.UNKNOWN, f"where it is cannot be told: {error}"), *_blocks(runtime)]
    if place.at == "manager":
        return [_silence(place, runtime) or _at_manager(place, runtime.label), *_held(runtime, place.node)]
    causes = [*_place(place, runtime), *_resources(place), *_managers(place, runtime.label), *_nodes(place, runtime)]
    return [*causes, *_blocks(runtime)] if causes and client.knows(key) else causes


def _manager(place: Whereabouts, label: str) -> str:
    return f"manager {place.manager} of {label!r} (block {place.block}, node {place.node})"


def _at_manager(place: Whereabouts, label: str) -> Cause:
    where = _manager(place, label)
    if place.places:
        where = f"{where}, with ranks on {', '.join(place.places)},"
    if place.started_ns:
        text = f"{where} runs it {since(place.started_ns, time.time_ns())}"
        return Cause(CauseKind.RUNNING, text, since_ns=place.started_ns)
    has = f"{where} has it, and {count(place.outstanding, 'task')} in all for {count(place.workers, 'worker')}"
    if place.outstanding <= place.workers:
        return Cause(CauseKind.RUNNING, f"{has}: it runs, or is about to")
    return Cause(CauseKind.QUEUED, f"{has}: it has begun a moment ago, or waits for a worker there")


def _silence(place: Whereabouts, runtime: ExecutorRuntime) -> Cause | None:
    """Return that nothing is heard of a task's manager: whether the task runs, nobody here knows then."""
    plan, now_ns = runtime.plan, time.time_ns()
    if place.silent_s <= _LATE * plan.heartbeat_period_s:
        return None
    since_ns = now_ns - int(place.silent_s * 1e9)
    begun = f"ran it {since(place.started_ns, now_ns)}" if place.started_ns else "has it, and had not begun it"
    text = (
        f"the link is down, or the node is: {_manager(place, runtime.label)} {begun}, as far as was heard, and has "
        f"been silent {since(since_ns, now_ns)}, though it speaks every {plan.heartbeat_period_s:g} s: "
        f"it counts as lost after {plan.heartbeat_threshold_s:g} s"
    )
    return Cause(CauseKind.NO_WORKER, text, since_ns=since_ns)


def _place(place: Whereabouts, runtime: ExecutorRuntime) -> list[Cause]:
    label = runtime.label
    if place.at == "script":
        text = f"{tasks_ahead(place.ahead)} in the script: enough of its kind are out at {label!r} already"
        return [Cause(CauseKind.BACK_PRESSURE, text)]
    if place.at == "queue":
        slots = f"{place.busy} of {count(place.slots, 'worker')} of {label!r} busy"
        queued = Cause(CauseKind.QUEUED, f"{tasks_ahead(place.ahead)} in the queue, {slots}")
        if not place.urgent:
            return [queued]
        urgent = count(place.urgent, "task has", "tasks have")
        return [queued, Cause(CauseKind.PRIORITY, f"of the tasks ahead of it {urgent} a higher priority")]
    tasks = count(runtime.client.outstanding, "task")
    text = f"it was sent: {label!r} has {tasks} for {count(place.slots, 'worker')}"
    return [Cause(CauseKind.QUEUED, text)]


def _resources(place: Whereabouts) -> list[Cause]:
    if place.misfits:
        return [Cause(CauseKind.RESOURCES, f"no node that is connected can run it: {'; '.join(place.misfits)}")]
    if place.ranks:
        return [Cause(CauseKind.RESOURCES, _ranks(place))] if place.managers else []
    causes = []
    if place.at == "queue" and place.needs > place.most_free and place.needs > 1 and place.managers:
        text = f"it needs {place.needs} workers of one node at once, of which at most {place.most_free} are free now"
        causes.append(Cause(CauseKind.RESOURCES, text))
    if place.cramped:
        text = "workers are free, but the memory or the accelerators that it asks for are taken"
        causes.append(Cause(CauseKind.RESOURCES, text))
    return causes


def _ranks(place: Whereabouts) -> str:
    """Return what a task of ranks waits for."""
    able, ready, kept = place.nodes_able or 0, place.nodes_ready or 0, place.nodes_kept or 0
    if place.nodes is None:
        wants = f"it needs room for {count(place.ranks or 0, 'rank')} in one block"
    else:
        wants = f"it needs {count(place.nodes, 'node')} of one block at once, for {count(place.ranks or 0, 'rank')}"
        if able < place.nodes:
            return f"{wants}: of no block more than {able} are connected that could take a share"
    has = f"{count(ready, 'node has', 'nodes have')} room for a share now"
    keeps = f", {count(kept, 'node is', 'nodes are')} kept free for it" if kept else ""
    return f"{wants}: {has} (of {able} of a block){keeps}"


def _managers(place: Whereabouts, label: str) -> list[Cause]:
    if not place.managers:
        return [Cause(CauseKind.NO_WORKER, f"no node of {label!r} is connected yet")]
    causes = []
    if place.closed:
        which = count(place.closed, "node takes", "nodes take")
        text = f"{which} nothing new: held, draining, or out of reach (of {place.managers} that are connected)"
        causes.append(Cause(CauseKind.NO_WORKER, text))
    if place.reserved:
        text = f"{count(place.reserved, 'node is', 'nodes are')} kept free for a task that needs more room"
        causes.append(Cause(CauseKind.RESOURCES, text))
    return causes


def _nodes(place: Whereabouts, runtime: ExecutorRuntime) -> list[Cause]:
    """Return what keeps the task from nodes: where it failed or was lost, and those that get no tasks at all."""
    causes = []
    if place.avoided:
        text = f"it failed or was lost on {', '.join(place.avoided)} before: other nodes come first, for a while"
        causes.append(Cause(CauseKind.NO_WORKER, text))
    return [*causes, *_held(runtime)]


def _held(runtime: ExecutorRuntime, only: str | None = None) -> list[Cause]:
    """Return the nodes that are held, or the one with that name if it is."""
    held = runtime.keeper.reasons() if runtime.keeper is not None else {}
    return [
        Cause(CauseKind.HELD, f"node {node} is held and gets no more tasks: {why} (free it by: flow nodes free {node})")
        for node, why in sorted(held.items())
        if only in (None, node)
    ]


def _blocks(runtime: ExecutorRuntime) -> list[Cause]:
    if runtime.scaler is None:
        text = f"{runtime.label!r} has no provider: its nodes come by themselves"
        return [Cause(CauseKind.BLOCK, text)] if not runtime.client.credit.managers else []
    return runtime.scaler.why_waiting()

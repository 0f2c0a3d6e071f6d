"""Causes of waiting, as far as the graph knows them: made from a task's record. Pure; nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flow_core.file_names import masked
from flow_core.graph.growth import growth_text
from flow_core.graph.states import State
from flow_core.guard import one_line
from flow_core.interfaces.waiting import Cause, CauseKind, count, shown_state, since

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flow_core.graph.retry import Budgets, RetryUsage
    from flow_core.graph.task import Task

_NAMED = 3  # futures or failures that a sentence names; the others are counted
_IDS = 100  # task ids that a cause carries: a task may wait for a million


@dataclass(frozen=True, slots=True)
class Awaited:
    """A future that a task waits for: the name of its source, the state of that, and its id if it is a task."""

    who: str
    state: str
    task_id: int | None = None


def causes_of(
    task: Task, awaited: Sequence[Awaited], leader: Task | None, budgets: Budgets, now_ns: int
) -> list[Cause]:
    """Return all that keeps an unfinished task from being done, as far as the graph knows; never nothing.

    Args:
        task: The task.
        awaited: The unfinished futures that it waits for, where it waits for any.
        leader: The identical call in flight that it follows, if it follows one.
        budgets: Failures that each task may spend.
        now_ns: The time, int64 ns UTC.
    """
    return [*_where(task, awaited, leader, now_ns), *_failed_parents(task), *_refusals(task), *_tries(task, budgets)]


def _where(task: Task, awaited: Sequence[Awaited], leader: Task | None, now_ns: int) -> list[Cause]:
    """Return the causes that follow from the state alone."""
    state = task.state
    if state is State.running:
        return [_running(task, now_ns)]
    if state is State.launched:
        return [Cause(CauseKind.QUEUED, f"it was handed to {_executor(task)}, which has reported no start")]
    # The states that say all by themselves come first; ``pending`` has several reasons, of which the last is none.
    if state is State.joining:
        return [_futures(task, awaited, "its body has returned, and it waits for ", "future of its body")]
    if state is State.staging:
        way = "out: it has run, and is done when they are there" if task.started else "in, ahead of its start"
        return [Cause(CauseKind.STAGING, f"its files are brought {way}")]
    if task.waiting:
        return [_futures(task, awaited, "it waits for ", "future in its arguments")]
    if leader is not None:
        text = f"it has the result of {leader}, an identical cached call that is {shown_state(leader.state.name)}"
        return [Cause(CauseKind.SAME_CALL, text, (leader.tid,))]
    inputs = None if task.details is None or task.details.memo_key is not None else task.details.inputs
    if inputs is not None:
        first, more = masked(inputs.files[0].url), len(inputs.files) - 1
        named = first if not more else f"{first} and {count(more, 'other file', 'other files')}"
        text = f"for the key of its cached call it is looked what its files hold: {named}"
        return [Cause(CauseKind.PREPARING, text)]
    if state is State.fail_retryable:
        return [Cause(CauseKind.RETRY, f"try {task.tries} failed, and the next is about to be made")]
    if task.started:
        return [Cause(CauseKind.PREPARING, "it has run, and its result is being stored")]
    return [Cause(CauseKind.PREPARING, "nothing is in its way: its executor is chosen and its arguments put together")]


def _running(task: Task, now_ns: int) -> Cause:
    start = task.start
    # The record is that of an earlier try until the next start is reported.
    if start is None or start[0] != task.key:
        return Cause(CauseKind.RUNNING, f"try {task.tries} runs at {_executor(task)}")
    _, start_ns, place = start
    parts = [("block", place.block), ("node", place.node), ("manager", place.manager)]
    where = [f"{name} {value}" for name, value in parts if value]
    if place.worker is not None:
        where.append(f"worker {place.worker}")
    if place.pid:
        where.append(f"pid {place.pid}")
    told = f" ({', '.join(where)})" if where else ""
    text = f"try {task.tries} runs {since(start_ns, now_ns)} at {_executor(task)}{told}"
    return Cause(CauseKind.RUNNING, text, since_ns=start_ns)


def _futures(task: Task, awaited: Sequence[Awaited], begin: str, what: str) -> Cause:
    kind = CauseKind.DEPENDENCY
    if not awaited:
        return Cause(kind, begin + count(task.waiting, what, what.replace("future", "futures")))
    ids = tuple(one.task_id for one in awaited if one.task_id is not None)[:_IDS]
    if len(awaited) == 1:
        return Cause(kind, f"{begin}{awaited[0].who}, which is {shown_state(awaited[0].state)}", ids)
    named = ", ".join(f"{one.who} is {shown_state(one.state)}" for one in _in_order(awaited)[:_NAMED])
    more = f", ... ({_tally(awaited)} in all)" if len(awaited) > _NAMED else ""
    return Cause(kind, f"{begin}{count(len(awaited), what, what.replace('future', 'futures'))}: {named}{more}", ids)


def _in_order(awaited: Sequence[Awaited]) -> list[Awaited]:
    """Return futures in the order of their states: running first, then waiting by themselves, then for others."""
    order = ("running", "launched", "staging", "fail_retryable", "joining")
    return sorted(awaited, key=lambda one: order.index(one.state) if one.state in order else len(order))


def _tally(awaited: Sequence[Awaited]) -> str:
    numbers: dict[str, int] = {}
    for one in awaited:
        numbers[one.state] = numbers.get(one.state, 0) + 1
    return ", ".join(f"{number:,} {shown_state(state)}" for state, number in numbers.items())


def _failed_parents(task: Task) -> list[Cause]:
    failures = task.details.failures if task.details is not None else ()
    if not failures:
        return []
    named = "; ".join(f"{who} ended with {one_line(error).rstrip('.')}" for who, error, _future in failures[:_NAMED])
    more = f"; {len(failures) - _NAMED:,} more" if len(failures) > _NAMED else ""
    text = f"a dependency has failed, so it will not run but fail too, once the others have ended: {named}{more}"
    return [Cause(CauseKind.DEPENDENCY, text)]


def _refusals(task: Task) -> list[Cause]:
    details = task.details
    if details is None or not details.refused_by:
        return []
    why = f" ({one_line(details.refused).rstrip('.')})" if details.refused is not None else ""
    labels = ", ".join(repr(label) for label in sorted(details.refused_by))
    return [Cause(CauseKind.RESOURCES, f"executor {labels} has refused it{why}")]


def _tries(task: Task, budgets: Budgets) -> list[Cause]:
    spent = task.spent
    if spent is None:
        return []
    parts = _spent_parts(spent, budgets)
    if not parts:
        return []
    if more := growth_text(task.options.spec, task.spec):
        parts.append(f"it asks for more now: {more}")
    last = f"; the last: {spent.last.rstrip('.')}" if spent.last else ""
    return [Cause(CauseKind.RETRY, f"of {count(task.tries, 'try', 'tries')} so far {', '.join(parts)}{last}")]


def _spent_parts(spent: RetryUsage, budgets: Budgets) -> list[str]:
    parts = []
    if spent.failures:
        parts.append(f"{spent.failures} failed (cost {spent.cost:g} of retries={budgets.retries:g})")
    if spent.losses:
        lost = f"{spent.losses} {'was' if spent.losses == 1 else 'were'} lost"
        parts.append(f"{lost} (infrastructure_retries={budgets.infrastructure_retries})")
    if spent.requeues:
        were = "was" if spent.requeues == 1 else "were"
        parts.append(f"{spent.requeues} {were} to be run again, told that the block ends (which costs nothing)")
    if spent.returns:
        parts.append(f"{spent.returns} came back unstarted")
    return parts


def _executor(task: Task) -> str:
    return "an executor" if task.executor is None else f"executor {task.executor.label!r}"

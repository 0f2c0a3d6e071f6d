"""Circles in the graph: found where a join app makes one, and only there."""

from __future__ import annotations

from concurrent.futures import CancelledError

import pytest

from flow_core.apps.definition import NO_OPTIONS, AppDefinition, AppKind
from flow_core.errors import DependencyError, JoinError
from flow_core.futures.app_future import AppFuture
from flow_core.graph.graph_core import GraphCore
from flow_core.graph.retry import Budgets
from flow_core.graph.states import State
from flow_core.graph.task import SharedParents, Task
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.memoizer import AppIdentity
from flow_core.interfaces.outcome import Outcome, Verdict


def nothing() -> None:
    return None


class Graph:
    """A core with a join app whose body has returned."""

    def __init__(self) -> None:
        self.core = GraphCore(Budgets(0, 0, 1))
        self.count = 0
        self.join = self.submit(kind=AppKind.JOIN)
        self.core.placed(self.join)
        self.core.finished([Outcome(TryKey(self.join.key), Verdict.OK)])

    def submit(self, *parents: Task | SharedParents, kind: AppKind = AppKind.PYTHON) -> Task:
        definition = AppDefinition(nothing, "app", kind, None, False, AppIdentity("app", nothing))
        task = Task(self.count, definition, (), {}, NO_OPTIONS, AppFuture(self.count))
        self.count += 1
        if kind is AppKind.JOIN:
            task.more().joins = True
        self.core.submitted((task, parents, 0, []))
        return task

    def chain(self, length: int) -> Task:
        last = self.join
        for _ in range(length):
            last = self.submit(last)
        return last


def test_a_join_app_cannot_wait_for_itself() -> None:
    graph = Graph()
    graph.core.joining((graph.join, [graph.join], 0, []))
    assert isinstance(graph.join.error, JoinError)
    assert "its own future" in str(graph.join.error)


@pytest.mark.parametrize("length", [1, 2, 900])
def test_nor_for_what_waits_for_it_at_any_distance(length: int) -> None:
    graph = Graph()
    last = graph.chain(length)
    graph.core.joining((graph.join, [graph.submit(), last], 0, []))
    assert isinstance(graph.join.error, JoinError)
    assert f"task {last.tid} (app), which waits for task 0 (app) itself" in str(graph.join.error)
    assert isinstance(last.error, DependencyError)


def test_a_circle_goes_through_junctions_too() -> None:
    graph = Graph()
    junction = SharedParents(())
    graph.core.meeting((junction, [graph.join, graph.submit()]))
    last = graph.submit(junction)
    graph.core.joining((graph.join, [last], 0, []))
    assert isinstance(graph.join.error, JoinError)


def test_what_was_cancelled_meanwhile_waits_for_nothing() -> None:
    graph = Graph()
    child = graph.submit(graph.join)
    assert graph.core.cancel(child)
    graph.core.joining((graph.join, [child], 0, []))
    assert isinstance(graph.join.error, JoinError)
    assert isinstance(graph.join.error.__cause__, CancelledError)


def test_other_tasks_are_joined_whoever_waits_for_the_join_app() -> None:
    graph = Graph()
    graph.chain(2000)
    other = graph.submit()
    graph.core.joining((graph.join, [other, other], 0, []))
    assert graph.join.state is State.joining

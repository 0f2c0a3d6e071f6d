"""Invariants of the graph, which hold between any two events; tests check them."""

from __future__ import annotations

from flow_core.graph.graph_core import GraphCore
from flow_core.graph.states import State


def check(core: GraphCore) -> None:
    """Raise AssertionError naming what does not hold."""
    for tid, task in core.live.items():
        assert task.tid == tid
        assert not task.state.final, f"{task!r} has ended and is not forgotten"
        assert bool(task.key) == (core.tries.get(task.key) is task), f"{task!r} and its try disagree"
        waits = task.state in (State.pending, State.joining)
        assert waits or not task.waiting, f"{task!r} does not wait for its parents"
        if task.state in (State.launched, State.running) and not task.started:
            assert task.key, f"{task!r} has no try"
    for key, task in core.tries.items():
        assert task.key == key, f"try {key} of {task!r} is not its current one"
        assert task.tid in core.live, f"{task!r} has ended but its try is not fenced"

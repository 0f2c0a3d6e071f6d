"""What keeps a task from nodes, in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from flow_executors.pending_reasons import _nodes
from flow_executors.wire.commands import Whereabouts


def test_nodes_that_a_task_avoids_may_have_lost_it() -> None:
    runtime: Any = SimpleNamespace(keeper=None)
    (cause,) = _nodes(Whereabouts(at="queue", avoided=("node2",)), runtime)
    assert cause.text.startswith("it failed or was lost on node2 before: other nodes come first")

"""What a RayExecutor refuses at once, since no node of its cluster will ever have it."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from flow_core.interfaces.call import Resources, TaskSpec
from flow_executors import RayExecutor
from flow_executors.engines.engine import EngineWorker
from flow_executors.engines.ray import RayEngine

pytestmark = pytest.mark.timeout(30)


def engine(**options: Any) -> RayEngine:
    context: Any = SimpleNamespace(logger=logging.getLogger("refusals"))
    return RayEngine(RayExecutor(max_workers=2, **options), context)


def test_memory_that_no_node_has_is_refused_where_nodes_tell_theirs() -> None:
    made = engine()
    made._known["node"] = EngineWorker("node", "here", 2, memory_bytes=8 * 10**9)
    assert made.refusal(TaskSpec(Resources(memory_mb=7000))) == ""
    assert made.refusal(TaskSpec(Resources(memory_mb=9000))) == "it asks for 9000 MB, and no node has more than 8 GB"


def test_memory_is_not_refused_before_a_node_has_told_its_own() -> None:
    assert engine().refusal(TaskSpec(Resources(memory_mb=9000))) == ""


@pytest.mark.parametrize("options", [{}, {"address": "127.0.0.1:6379"}])
def test_a_number_beyond_those_that_ray_counts_is_refused(options: dict[str, Any]) -> None:
    refusal = engine(**options).refusal(TaskSpec(Resources(memory_mb=10**9)))
    assert refusal == "it asks for 1e+09 MB, which is more than Ray can count"

"""What the executors of blocks declare to honour."""

from __future__ import annotations

from flow_core.kernel.honouring import BY_HIGH_THROUGHPUT
from flow_executors import HighThroughputExecutor, LowLatencyExecutor

RANKS = {"nodes", "ranks_per_node", "ranks", "cores_per_rank", "gpus_per_rank", "exclusive"}


def test_advice_of_the_core_names_what_the_executor_honours() -> None:
    assert HighThroughputExecutor().honours == BY_HIGH_THROUGHPUT


def test_an_executor_of_one_node_honours_no_ranks() -> None:
    assert LowLatencyExecutor().honours == BY_HIGH_THROUGHPUT - RANKS

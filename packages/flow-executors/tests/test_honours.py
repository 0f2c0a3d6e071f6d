"""What the executors of blocks declare to honour."""

from __future__ import annotations

import pytest

from flow_core.kernel.honouring import BY_HIGH_THROUGHPUT
from flow_executors import HighThroughputExecutor, LowLatencyExecutor


@pytest.mark.parametrize("kind", [HighThroughputExecutor, LowLatencyExecutor])
def test_advice_of_the_core_names_what_the_executors_honour(kind: type[HighThroughputExecutor]) -> None:
    assert kind().honours == BY_HIGH_THROUGHPUT

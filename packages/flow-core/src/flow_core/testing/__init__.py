"""Tools for tests of executors, sinks and memoizers: contracts, an in-memory executor, a clock. Loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_core.lazy import loading

if TYPE_CHECKING:
    from flow_core.testing.driver import Driver as Driver
    from flow_core.testing.executor_contract import ExecutorContract as ExecutorContract
    from flow_core.testing.fake_clock import FakeClock as FakeClock
    from flow_core.testing.memoizer_contract import MemoizerContract as MemoizerContract
    from flow_core.testing.memory_executor import MemoryExecutor as MemoryExecutor
    from flow_core.testing.recording import RecordingListener as RecordingListener, make_context as make_context
    from flow_core.testing.sink_contract import SinkContract as SinkContract

_HOMES = {
    "Driver": "flow_core.testing.driver",
    "ExecutorContract": "flow_core.testing.executor_contract",
    "FakeClock": "flow_core.testing.fake_clock",
    "MemoizerContract": "flow_core.testing.memoizer_contract",
    "MemoryExecutor": "flow_core.testing.memory_executor",
    "RecordingListener": "flow_core.testing.recording",
    "SinkContract": "flow_core.testing.sink_contract",
    "make_context": "flow_core.testing.recording",
}

__all__ = [*_HOMES]
__getattr__, __dir__ = loading(__name__, _HOMES)

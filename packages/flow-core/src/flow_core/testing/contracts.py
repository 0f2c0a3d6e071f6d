"""The contract tests in one place: subclass one, give it a factory, and pytest does the rest."""

from __future__ import annotations

from flow_core.testing.executor_contract import ExecutorContract
from flow_core.testing.memoizer_contract import MemoizerContract
from flow_core.testing.sink_contract import SinkContract

__all__ = ["ExecutorContract", "MemoizerContract", "SinkContract"]

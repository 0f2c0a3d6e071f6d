"""The in-memory executor keeps the contract when it has threads, and obeys the test when it has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.outcome import LossKind, Verdict
from flow_core.testing import calls
from flow_core.testing.contracts import ExecutorContract
from flow_core.testing.memory_executor import MemoryExecutor
from flow_core.testing.recording import RecordingListener, make_context


class TestMemoryExecutorContract(ExecutorContract):
    kills_started = True

    def make_executor(self) -> Executor:
        return MemoryExecutor("memory", slots=self.slots)


@pytest.fixture
def listener() -> RecordingListener:
    return RecordingListener()


@pytest.fixture
def executor(tmp_path: Path, listener: RecordingListener) -> MemoryExecutor:
    executor = MemoryExecutor()
    executor.start(make_context(tmp_path, listener))
    return executor


def _submit(executor: MemoryExecutor, *numbers: int) -> list[TryKey]:
    keys = [TryKey(number) for number in numbers]
    for key in keys:
        executor.submit(key, Call(calls.double, (int(key),)))
    return keys


def test_a_try_waits_until_the_test_moves_it(executor: MemoryExecutor, listener: RecordingListener) -> None:
    (key,) = _submit(executor, 1)
    assert (executor.waiting, executor.running, listener.outcomes) == ([key], [], {})
    executor.begin(key)
    assert (executor.waiting, executor.running) == ([], [key])
    executor.finish(key, "done")
    assert listener.outcomes[key][0].value == "done"


def test_run_calls_the_function(executor: MemoryExecutor, listener: RecordingListener) -> None:
    keys = _submit(executor, 1, 2)
    assert executor.run_all() == 2
    assert [listener.outcomes[key][0].value for key in keys] == [2, 4]


def test_every_verdict_can_be_reported(executor: MemoryExecutor, listener: RecordingListener) -> None:
    keys = _submit(executor, 1, 2, 3, 4)
    executor.fail(keys[0], ValueError("no"))
    executor.lose(keys[1], LossKind.BLOCK)
    executor.give_back(keys[2])
    executor.refuse(keys[3], TypeError("never"))
    verdicts = [listener.outcomes[key][0].verdict for key in keys]
    assert verdicts == [Verdict.APP_ERROR, Verdict.LOST, Verdict.RETURNED, Verdict.REFUSED]


def test_an_outcome_for_a_try_that_has_one_is_refused(executor: MemoryExecutor) -> None:
    (key,) = _submit(executor, 1)
    executor.finish(key)
    with pytest.raises(AssertionError, match="try 1 is not on executor"):
        executor.finish(key)

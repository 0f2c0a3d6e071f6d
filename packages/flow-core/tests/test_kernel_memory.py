"""Remembered results in the kernel: batches, outputs, what the log tells."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from kernel_apps import Load

import flow_core as flow
from flow_core.errors import BadCheckpoint
from flow_core.interfaces.memoizer import MemoEntry
from flow_core.interfaces.outcome import Outcome, Verdict
from flow_core.kernel.kernel import DataFlowKernel
from flow_core.memo.memoizer import BasicMemoizer
from flow_core.testing import MemoryExecutor


@flow.python_app(cache=True)
def double(x: int) -> int:
    return 2 * x


@flow.bash_app(cache=True)
def note(journal: str, outputs: Sequence[Any] = ()) -> str:
    return f"echo ran >> {journal}; touch {' '.join(map(str, outputs))}"


def log_of(kernel: DataFlowKernel) -> str:
    return (kernel.run_dir / "flow.log").read_text()


class CountingMemoizer(BasicMemoizer):
    """Notes how many entries each call of store brings."""

    batches: list[int]

    def store(self, entries: Sequence[MemoEntry]) -> None:
        self.batches.append(len(entries))
        super().store(entries)


def test_the_results_of_a_batch_of_outcomes_are_stored_at_once(load: Load, tmp_path: Path) -> None:
    memoizer = CountingMemoizer(checkpoint_mode="task_exit", checkpoint_dir=tmp_path / "checkpoint")
    memoizer.batches = []
    executor = MemoryExecutor()
    kernel = load(executor, memoizer=memoizer)
    futures = [double(number) for number in range(50)]
    keys = executor.wait_submitted(50)
    kernel._reactor.finished([Outcome(key, Verdict.OK, number) for number, key in enumerate(keys)])
    assert [future.result(10) for future in futures] == list(range(50))
    assert memoizer.batches == [50]


def test_calls_with_different_outputs_are_different(load: Load, tmp_path: Path) -> None:
    load()
    journal = tmp_path / "journal"
    for name in ("a", "b", "a"):
        assert note(str(journal), outputs=[tmp_path / name]).result(10) == 0
    assert len(journal.read_text().splitlines()) == 2


def test_outputs_set_by_options_are_part_of_the_call_too(load: Load, tmp_path: Path) -> None:
    load()
    journal = tmp_path / "journal"

    @flow.bash_app(cache=True)
    def touch(journal: str) -> str:
        return f"echo ran >> {journal}; touch {journal}.a {journal}.b"

    for name in ("a", "b", "a"):
        made = touch.options(outputs=[f"{journal}.{name}"])(str(journal))
        assert made.outputs[0].result(10).filepath == f"{journal}.{name}"
    assert len(journal.read_text().splitlines()) == 2


def test_a_call_whose_outputs_are_gone_is_run_again(load: Load, tmp_path: Path) -> None:
    kernel = load()
    journal, output = tmp_path / "journal", tmp_path / "made"
    for _ in range(2):
        note(str(journal), outputs=[output]).result(10)
    assert len(journal.read_text().splitlines()) == 1
    output.unlink()
    note(str(journal), outputs=[output]).result(10)
    assert output.exists()
    assert len(journal.read_text().splitlines()) == 2
    assert "Calls are run again whose outputs are gone" in log_of(kernel)


def test_remembered_results_are_told_of_once_and_counted_at_the_end(load: Load) -> None:
    kernel = load()
    assert [double(1).result(10) for _ in range(100)] == [2] * 100
    kernel.cleanup()
    log = log_of(kernel)
    assert log.count("Remembered results are used") == 1
    assert "100 tasks: 1 completed, 99 from memory" in log
    assert len(log.splitlines()) < 10


def test_checkpoints_can_be_loaded_into_a_running_kernel(load: Load, tmp_path: Path) -> None:
    first = load()
    assert double(21).result(10) == 42
    place = first.checkpoint()
    assert place is not None
    flow.clear()
    kernel = load()
    loaded = kernel.load_checkpoints([place])
    assert [future.result(0) for future in loaded.values()] == [42]
    assert all(isinstance(digest, str) for digest in loaded)
    assert double(21).result(10) == 42
    assert kernel.summary().memoized == 1
    with pytest.raises(BadCheckpoint):
        kernel.load_checkpoints([tmp_path / "nowhere"])


def test_without_memoization_no_checkpoints_are_loaded(load: Load, tmp_path: Path) -> None:
    assert load(app_cache=False).load_checkpoints([tmp_path]) == {}


def test_two_kernels_in_one_process_write_logs_of_their_own(tmp_path: Path) -> None:
    one = DataFlowKernel(flow.Config(run_dir=tmp_path / "one", name="first.py"))
    two = DataFlowKernel(flow.Config(run_dir=tmp_path / "two", name="second.py"))
    gate = threading.Event()

    def fail(what: str) -> None:
        gate.wait(10)
        raise ValueError(what)

    futures = [one.submit(fail, "in the first"), two.submit(fail, "in the second")]
    gate.set()
    assert all(isinstance(future.exception(10), ValueError) for future in futures)
    one.cleanup()
    two.cleanup()
    for kernel, own, other in ((one, "first", "second"), (two, "second", "first")):
        log = log_of(kernel)
        assert f"of {own}.py began" in log
        assert f"ValueError: in the {own}" in log
        assert other not in log
        assert log.splitlines()[-1].count("1 failed") == 1

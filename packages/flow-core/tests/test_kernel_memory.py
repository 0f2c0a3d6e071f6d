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
from flow_core.files import File
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import MemoEntry, MemoKey, Stored
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


class ByCall(BasicMemoizer):
    """Decides by what a call was made with, too."""

    def lookup_call(self, key: MemoKey, call: Call) -> Stored | None:
        return None if call.kwargs.get("fresh") else super().lookup_call(key, call)


def test_a_memoizer_may_decide_by_the_call(load: Load, tmp_path: Path) -> None:
    kernel = load(memoizer=ByCall(checkpoint_dir=tmp_path / "checkpoint"))

    @flow.python_app(cache=True, ignore_for_cache=["fresh"], cache_globals="named")
    def compute(x: int, fresh: bool = False) -> int:
        return x

    for fresh in (False, False, True, False):
        assert compute(1, fresh=fresh).result(10) == 1
    assert (kernel.summary().completed, kernel.summary().memoized) == (2, 2)


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
        return f"echo ran >> {journal}; for each in a b; do test -e {journal}.$each || touch {journal}.$each; done"

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
    assert "Remembered calls are run again whose outputs are gone" in log_of(kernel)


@pytest.mark.parametrize("keyword", ["stdout", "stderr"])
@pytest.mark.parametrize("taken", [True, False], ids=["as a parameter", "by Flow alone"])
def test_a_stream_to_a_file_is_an_output_of_the_call(load: Load, tmp_path: Path, keyword: str, taken: bool) -> None:
    kernel = load()
    journal = tmp_path / "journal"
    command = f"echo ran >> {journal}; echo text; echo text >&2"

    def taking(n: int, stdout: Any = None, stderr: Any = None) -> str:
        return command

    def not_taking(n: int) -> str:
        return command

    app = flow.bash_app(cache=True)(taking if taken else not_taking)

    def call(name: str) -> int:
        made = getattr(app(1, **{keyword: File(str(tmp_path / name))}), keyword)
        assert Path(made.result(10)).read_text() == "text\n"
        return len(journal.read_text().splitlines())

    assert [call("x1"), call("x1"), call("x2"), call("x1"), call("x2")] == [1, 1, 2, 2, 2]
    (tmp_path / "x1").unlink()
    assert [call("x1"), call("x1")] == [3, 3]
    assert "Remembered calls are run again whose outputs are gone" in log_of(kernel)
    with (tmp_path / "x2").open("a") as stream:
        stream.write("by hand")
    assert app(1, **{keyword: File(str(tmp_path / "x2"))}).result(10) == 0
    assert len(journal.read_text().splitlines()) == 4
    # Without a File nothing is declared to be made, and any such call finds any other.
    for name in ("y1", "y2"):
        assert app(1, **{keyword: str(tmp_path / name)}).result(10) == 0
    assert len(journal.read_text().splitlines()) == 5
    checkpoints = [kernel.checkpoint()]
    flow.clear()
    load(checkpoint_files=checkpoints)
    assert call("x1") == 5
    (tmp_path / "x1").unlink()
    assert call("x1") == 6


def test_identical_calls_with_streams_to_other_files_make_each_its_own(load: Load, tmp_path: Path) -> None:
    load()
    hold = tmp_path / "hold"

    @flow.bash_app(cache=True)
    def waits(n: int) -> str:
        return f"n=0; while [ ! -e {hold} ] && [ $n -lt 1000 ]; do sleep 0.01; n=$((n+1)); done; echo text"

    futures = [waits(1, stdout=File(str(tmp_path / name))) for name in ("x1", "x2")]
    hold.touch()
    for future in futures:
        assert isinstance(future.stdout, flow.DataFuture)
        assert Path(future.stdout.result(15)).read_text() == "text\n"


def test_a_call_whose_output_was_changed_is_run_again_also_from_a_checkpoint(load: Load, tmp_path: Path) -> None:
    kernel = load()
    journal, output, log = tmp_path / "journal", tmp_path / "made", tmp_path / "log"
    for _ in range(2):
        note(str(journal), outputs=[output, File(str(log), update=True)]).result(10)
    assert len(journal.read_text().splitlines()) == 1
    checkpoints = [kernel.checkpoint()]
    for change, runs in ((None, 1), (log, 1), (output, 2), (None, 2)):
        flow.clear()
        kernel = load(checkpoint_files=checkpoints)
        if change is not None:
            with change.open("a") as stream:
                stream.write("by hand")
        note(str(journal), outputs=[output, File(str(log), update=True)]).result(10)
        assert len(journal.read_text().splitlines()) == runs
        told = "Remembered calls are run again whose outputs are not as it made them"
        assert log_of(kernel).count(told) == (change is output)
        checkpoints.append(kernel.checkpoint())
    found = kernel.load_checkpoints([each for each in checkpoints if each is not None])
    assert [future.result(0) for future in found.values()] == [0]


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


def test_several_remembered_calls_may_append_to_one_stream(load: Load, tmp_path: Path) -> None:
    kernel = load()

    @flow.bash_app(cache=True)
    def say(n: int) -> str:
        return f"echo {n}"

    log = tmp_path / "log"
    for n in (1, 2, 1, 2):
        assert say(n, stdout=File(str(log), update=True)).result(10) == 0
    assert log.read_text() == "1\n2\n"
    assert kernel.summary().memoized == 2

"""Loading, waiting, cleaning up."""

from __future__ import annotations

import builtins
import errno
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from kernel_apps import Load, add, divide, hold

import flow_core as flow
from flow_core.checkpoint.log import CheckpointLog
from flow_core.errors import CleanupIncomplete, ConfigurationError, KernelClosedError, NoDataFlowKernelError
from flow_core.events import Event, EventKind
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.interfaces.executor import ShutdownReport
from flow_core.interfaces.sinks import RunInfo
from flow_core.kernel.kernel import DataFlowKernel
from flow_core.kernel.loaded import DataFlowKernelLoader
from flow_core.testing import MemoryExecutor


def _double(x: int) -> int:
    return 2 * x


def test_runs_get_numbered_directories_and_a_log(load: Load, tmp_path: Path) -> None:
    first = load()
    divide(1, 0).exception(10)
    flow.clear()
    second = load()
    assert [first.run_dir.name, second.run_dir.name] == ["000", "001"]
    text = (first.run_dir / "flow.log").read_text()
    assert "ZeroDivisionError" in text
    assert "1 failed" in text
    assert first.run_id != second.run_id


def test_a_config_can_be_loaded_again_and_is_not_changed(tmp_path: Path) -> None:
    config = flow.Config(executors=[ThreadPoolExecutor()], run_dir=tmp_path / "runinfo")
    before = repr(config)
    for _ in range(2):
        with flow.load(config) as kernel:
            assert add(1).result(10) == 2
        assert kernel.config is not config
    assert repr(config) == before


def test_loading_twice_says_how_to_clear(load: Load) -> None:
    load()
    with pytest.raises(ConfigurationError, match=r"flow\.clear\(\)"):
        load()


def test_a_dictionary_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Config"):
        flow.load({"sites": []})  # type: ignore[arg-type]  # the point of the test


def test_without_a_config_an_app_says_what_to_do() -> None:
    with pytest.raises(NoDataFlowKernelError, match="load"):
        add(1)


def test_cleanup_cancels_what_is_unfinished_and_is_idempotent(load: Load) -> None:
    executor = MemoryExecutor("memory")
    kernel = load(executor)
    futures = [add(1), add(add(2))]
    kernel.cleanup()
    kernel.cleanup()
    assert all(future.cancelled() for future in futures)
    with pytest.raises(KernelClosedError, match="cleaned up"):
        add(1)
    assert kernel.summary().unfinished == 0


def test_cleanup_returns_in_its_bound_though_a_task_goes_on(load: Load) -> None:
    kernel = load()
    release = threading.Event()
    started = threading.Event()

    @flow.python_app
    def stubborn(release: threading.Event, started: threading.Event) -> None:
        while not release.is_set():
            try:
                started.set()
                release.wait(0.01)
            except BaseException:
                continue

    future = stubborn(release, started)
    assert started.wait(10)
    kernel.cleanup(timeout_s=0.3)
    assert future.cancelled()
    release.set()


def test_exit_mode_wait_finishes_everything(tmp_path: Path) -> None:
    with flow.load(flow.Config(run_dir=tmp_path / "runinfo", exit_mode="wait")):
        futures = [add(add(n)) for n in range(50)]
    assert [f.result(0) for f in futures] == [n + 2 for n in range(50)]


def test_exit_mode_skip_leaves_the_kernel_loaded(tmp_path: Path) -> None:
    with flow.load(flow.Config(run_dir=tmp_path, exit_mode="skip")) as kernel:
        assert add(1).result(10) == 2
    assert flow.dfk() is kernel
    assert add(2).result(10) == 3
    with pytest.raises(ConfigurationError, match="is loaded already"):
        flow.load(flow.Config(run_dir=tmp_path))
    flow.clear()
    assert not kernel.is_open


def test_a_kernel_that_was_cleaned_up_is_no_longer_loaded(tmp_path: Path) -> None:
    with flow.load(flow.Config(run_dir=tmp_path, exit_mode="skip")) as kernel:
        pass
    kernel.cleanup()
    with pytest.raises(NoDataFlowKernelError, match="no Config is loaded"):
        flow.dfk()
    with flow.load(flow.Config(run_dir=tmp_path)) as other:
        kernel.cleanup()
        assert flow.dfk() is other


def test_wait_for_current_tasks_waits_for_all(load: Load) -> None:
    kernel = load()
    futures = [add(add(n)) for n in range(200)] + [divide(1, 0)]
    kernel.wait_for_current_tasks()
    assert all(future.done() for future in futures)


def test_several_kernels_live_side_by_side(tmp_path: Path) -> None:
    kernels = [DataFlowKernel(flow.Config(run_dir=tmp_path / "runinfo")) for _ in range(2)]
    apps = [flow.python_app(_double, data_flow_kernel=kernel) for kernel in kernels]
    assert apps[1](apps[0](2)).result(10) == 8
    assert [kernel.task_count for kernel in kernels] == [1, 1]
    for kernel in kernels:
        kernel.cleanup()


def test_max_pending_holds_submission_back(load: Load) -> None:
    executor = MemoryExecutor("memory")
    kernel = load(executor, max_pending=3)
    for number in range(3):
        add(number)
    passed = threading.Event()
    thread = threading.Thread(target=lambda: (add(9), passed.set()))
    thread.start()
    assert not passed.wait(0.1)
    executor.run(hold(executor))
    assert passed.wait(10)
    thread.join(10)
    assert kernel.task_count == 4


def test_submit_is_the_kernels_own_face(load: Load) -> None:
    kernel = load()
    assert kernel.submit(_double, kernel.submit(_double, 2), executors=["threads"]).result(10) == 8
    assert kernel.submit(dict, func=1).result(10) == {"func": 1}


def test_ctrl_c_during_the_clean_up_is_raised_when_it_is_done(tmp_path: Path) -> None:
    class Interrupting(MemoryExecutor):
        def shutdown(self, timeout_s: float) -> ShutdownReport:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.2)
            return super().shutdown(timeout_s)

    kernel = DataFlowKernel(flow.Config(executors=[Interrupting()], run_dir=tmp_path))
    future = kernel.submit(int)
    with pytest.raises(KeyboardInterrupt):
        kernel.cleanup()
    assert future.cancelled()
    assert "1 cancelled" in (kernel.run_dir / "flow.log").read_text().splitlines()[-1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_loader_of_older_scripts_is_the_same(tmp_path: Path) -> None:
    kernel = DataFlowKernelLoader.load(flow.Config(run_dir=tmp_path))
    future = add(1)
    DataFlowKernelLoader.wait_for_current_tasks()
    assert future.done()
    assert DataFlowKernelLoader.dfk() is kernel is flow.dfk()
    DataFlowKernelLoader.clear()
    assert not kernel.is_open


def test_a_run_whose_files_cannot_be_made_names_its_directory_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("flow_core.kernel.assembly.open_log", full)
    expected = r"the run in '.*runinfo/000' could not begin: No space left on device\. Free space there"
    with pytest.raises(ConfigurationError, match=expected):
        flow.load(flow.Config(run_dir=tmp_path / "runinfo"))
    monkeypatch.undo()
    with flow.load(flow.Config(run_dir=tmp_path / "runinfo")):
        pass


def test_a_deleted_working_directory_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for run_dir in ("runinfo", str(tmp_path / "runinfo")):
        with pytest.raises(ConfigurationError, match="working directory was deleted"):
            flow.load(flow.Config(run_dir=run_dir))


@pytest.mark.parametrize("how", ["cleanup", "with", "an error"])
def test_what_does_not_answer_at_the_end_is_given_up_and_told_and_all_else_is_done(
    load: Load, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    release, reached = threading.Event(), threading.Event()
    monkeypatch.setattr(CheckpointLog, "open", lambda _self: reached.set() or release.wait(60))
    monkeypatch.setattr("flow_core.kernel.shutdown.EXIT_S", 2.0)
    executor = MemoryExecutor("memory")
    kernel = load(executor, checkpoint_mode="dfk_exit")
    future = add(1)
    try:
        if how == "cleanup":
            with pytest.raises(CleanupIncomplete, match="could not write the checkpoint: what this waits for") as told:
                kernel.cleanup(2.0)
            assert told.value.steps == ["write the checkpoint"]
        elif how == "with":
            with pytest.raises(CleanupIncomplete), kernel:
                pass
        else:
            with pytest.raises(KeyError, match="the script's"), kernel:
                raise KeyError("the script's")
            assert f"flow: the run in {kernel.run_dir} could not write the checkpoint: " in capfd.readouterr().err
    finally:
        release.set()
    assert reached.is_set()
    assert future.cancelled()
    assert "Run " in (kernel.run_dir / "flow.log").read_text().splitlines()[-1]
    assert not executor.waiting


def test_jobs_that_could_not_be_ended_make_the_end_incomplete(
    load: Load, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    executor = MemoryExecutor("memory")
    left = "end job 7 of block 0 of memory, which may still run: node1 does not answer"
    monkeypatch.setattr(executor, "shutdown", lambda timeout_s: ShutdownReport(not_ended=(left,)))
    kernel = load(executor)
    with pytest.raises(CleanupIncomplete) as told:
        kernel.cleanup(5.0)
    assert told.value.steps == [left]
    assert str(told.value) == f"the run in {kernel.run_dir} could not {left}"
    assert f"Executor 'memory' could not {left}" in (kernel.run_dir / "flow.log").read_text()


def _remembered(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize("mode", ["task_exit", "periodic", "dfk_exit"])
def test_results_that_the_checkpoint_has_no_room_for_make_the_end_incomplete(
    load: Load, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    def full(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kernel = load(checkpoint_mode=mode)
    monkeypatch.setattr("flow_core.checkpoint.log._write", full)
    assert flow.python_app(_remembered, cache=True)(1).result(10) == 2
    with pytest.raises(CleanupIncomplete) as told:
        kernel.cleanup(5.0)
    place = kernel.run_dir / "checkpoint"
    assert f"could not write all results: the checkpoint {place} lacks 1 result, " in str(told.value)
    assert "No space left on device. Free space there" in str(told.value)
    assert "\n" not in str(told.value)
    assert f"Could not write all results: the checkpoint {place}" in (kernel.run_dir / "flow.log").read_text()


def test_a_checkpoint_without_room_is_told_on_standard_error_where_nothing_can_be_raised(
    load: Load, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kernel = load(checkpoint_mode="dfk_exit")
    monkeypatch.setattr("flow_core.checkpoint.log._write", full)
    assert flow.python_app(_remembered, cache=True)(1).result(10) == 2
    with pytest.raises(KeyError, match="the script's"), kernel:
        raise KeyError("the script's")
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("flow: ")]
    assert len(lines) == 1
    assert f"the checkpoint {kernel.run_dir / 'checkpoint'} lacks 1 result" in lines[0]


class _Lingering(MemoryExecutor):
    """An executor of the user's own whose end does not come."""

    let_go = threading.Event()

    def shutdown(self, timeout_s: float) -> ShutdownReport:
        self.let_go.wait(60)
        return super().shutdown(timeout_s)


def test_an_executor_whose_shutdown_does_not_return_is_named_on_standard_error_with_the_place(
    load: Load, capfd: pytest.CaptureFixture[str]
) -> None:
    kernel = load(_Lingering("mine"))
    try:
        kernel.cleanup(1.0)
    except CleanupIncomplete:
        pass
    finally:
        _Lingering.let_go.set()
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("flow: executor 'mine'")]
    assert len(told) == 1
    assert "was left behind at the end of the run: _Lingering.shutdown has not returned for" in told[0]
    assert ", in _Lingering.shutdown (" in told[0]


def test_a_cell_that_loads_a_config_with_sinks_can_be_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Sink:
        wants = EventKind.TASK

        def __repr__(self) -> str:
            return "Sink()"

        def start(self, run: RunInfo) -> None:
            pass

        def emit(self, events: Sequence[Event]) -> None:
            pass

        def close(self, timeout_s: float) -> int:
            return 0

    monkeypatch.setattr(builtins, "__IPYTHON__", True, raising=False)
    with flow.load(flow.Config(run_dir=str(tmp_path), sinks=[Sink()])) as kernel:
        assert flow.load(flow.Config(run_dir=str(tmp_path), sinks=[Sink()])) is kernel
        assert "goes on" in capsys.readouterr().err
        with pytest.raises(ConfigurationError, match="is loaded already"):
            flow.load(flow.Config(run_dir=str(tmp_path)))

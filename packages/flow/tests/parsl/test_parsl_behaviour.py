from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flow.compat import parsl
from flow.compat.parsl.adapters.configuration import Config
from flow.compat.parsl.adapters.executors import HighThroughputExecutor, ThreadPoolExecutor
from flow.compat.parsl.adapters.providers import LocalProvider, SlurmProvider
from flow_core.errors import BashExitFailure, ConfigurationError, DependencyError, JoinError, NoDataFlowKernelError


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.chdir(tmp_path)
    with parsl.load(Config(executors=[ThreadPoolExecutor(max_threads=4)])) as dfk:
        yield dfk
    parsl.clear()


@parsl.python_app
def double(x: Any) -> Any:
    return 2 * x


@parsl.python_app
def fail(text: str) -> None:
    raise ValueError(text)


@parsl.bash_app
def fill(x: object, y: object = 3, outputs: Any = (), stdout: Any = None) -> str:
    return "echo {x} {y} {unknown} '{print}' > {outputs[0]}"


def test_arguments_that_do_not_fit_fail_in_the_future(kernel: Any) -> None:
    assert isinstance(double().exception(timeout=20), TypeError)


def test_a_resource_specification_that_is_wrong_fails_in_the_future(kernel: Any) -> None:
    from flow.compat.parsl.executors.errors import InvalidResourceSpecification

    error = double(1, parsl_resource_specification={"cors": 1}).exception(timeout=20)
    assert isinstance(error, InvalidResourceSpecification)


def test_names_of_arguments_in_a_command_line_are_filled_in(kernel: Any) -> None:
    future = fill(1, outputs=[parsl.File("out.txt")])
    assert future.result(timeout=20) == 0
    assert Path("out.txt").read_text() == "1 3 {unknown} {print}\n"


def test_the_name_of_the_future_of_a_file_is_its_path(kernel: Any, tmp_path: Path) -> None:
    future = fill(1, outputs=[parsl.File(str(tmp_path / "out.txt"))])
    assert future.outputs[0].filename == str(tmp_path / "out.txt")
    future.result(timeout=20)


def test_failed_dependencies_are_told_with_their_tasks(kernel: Any) -> None:
    @parsl.python_app
    def both(a: Any, b: Any) -> None: ...

    first, second = fail("A"), fail("B")
    error = both(first, second).exception(timeout=20)
    assert isinstance(error, DependencyError)
    told: Any = error.dependent_exceptions_tids  # type: ignore[attr-defined]
    assert [(str(one), who) for one, who in told] == [("A", f"task {first.tid}"), ("B", f"task {second.tid}")]


def test_a_join_app_that_returns_no_future_is_a_type_error(kernel: Any) -> None:
    @parsl.join_app
    def join() -> int:
        return 5

    assert isinstance(join().exception(timeout=20), TypeError)


def test_a_join_app_whose_futures_fail_has_their_exceptions(kernel: Any) -> None:
    @parsl.join_app
    def join() -> Any:
        return [fail("A"), double(1)]

    error = join().exception(timeout=20)
    assert isinstance(error, JoinError)
    assert [str(one) for one, _ in error.dependent_exceptions_tids] == ["A"]  # type: ignore[attr-defined]


def test_a_python_app_may_be_a_join_app(kernel: Any) -> None:
    from flow.compat.parsl.app.python import PythonApp

    assert PythonApp(lambda: double(4), join=True)().result(timeout=20) == 8


def test_the_arguments_of_apps_may_be_given_in_either_order(kernel: Any) -> None:
    from flow.compat.parsl.app.bash import BashApp
    from flow.compat.parsl.app.python import PythonApp

    assert PythonApp(len, None, True, "all").cache  # today
    assert PythonApp(len, None, 60, "all", True).cache  # 0.9, with a walltime
    assert isinstance(BashApp(lambda: "exit 3")().exception(timeout=20), BashExitFailure)


def test_the_directory_of_a_run_is_text(kernel: Any) -> None:
    assert kernel.run_dir + "/x" == f"{kernel.run_dir}/x"


def test_the_log_of_a_run_has_the_name_that_it_had(kernel: Any) -> None:
    assert "executors: threads" in (Path(kernel.run_dir) / "parsl.log").read_text()


def test_numbers_of_tasks_are_told_by_state(kernel: Any) -> None:
    from flow.compat.parsl.dataflow.states import States

    double(1).result(timeout=20)
    fail("A").exception(timeout=20)
    assert (kernel.task_state_counts[States.exec_done], kernel.task_state_counts[States.failed]) == (1, 1)
    assert kernel.tasks == {}


def test_a_task_is_told_by_its_record(kernel: Any) -> None:
    gate: concurrent.futures.Future[int] = concurrent.futures.Future()
    future = double(gate)
    record = future.task_record
    assert (record["id"], record["func_name"], record["status"].name) == (future.tid, "double", "pending")
    assert kernel.tasks[future.tid]["app_fu"] is future
    gate.set_result(4)
    assert future.result(timeout=20) == 8
    assert future.task_record["status"].name == "exec_done"


def test_functions_are_submitted_with_the_arguments_of_parsl(kernel: Any) -> None:
    future = kernel.submit(pow, app_args=(2,), executors="all", cache=False, ignore_for_cache=[], app_kwargs={"exp": 5})
    assert future.result(timeout=20) == 32


def test_a_retry_handler_is_given_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []

    def handler(error: Exception, record: Any) -> float:
        seen.append((str(error), record["func_name"], record["id"], record["args"]))
        return 1

    with parsl.load(Config(retries=1, retry_handler=handler)):
        assert isinstance(fail("A").exception(timeout=20), ValueError)
    assert seen[0] == ("A", "fail", 0, ("A",))


def test_a_kernel_that_is_skipped_stays_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with parsl.load(Config(exit_mode="skip")) as dfk:
        pass
    assert parsl.dfk() is dfk
    assert double(2).result(timeout=20) == 4
    dfk.cleanup()
    with pytest.raises(NoDataFlowKernelError):
        parsl.dfk()


def test_all_checkpoints_are_loaded_where_a_memoizer_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flow.compat.parsl.dataflow.memoization import BasicMemoizer

    monkeypatch.chdir(tmp_path)

    @parsl.python_app(cache=True)
    def cached(x: int) -> int:
        return x + 1

    counts = []
    for _ in range(2):
        with parsl.load(Config(memoizer=BasicMemoizer(checkpoint_mode="task_exit"))) as dfk:
            assert cached(1).result(timeout=20) == 2
            counts.append(dfk.summary().memoized)
    assert counts == [0, 1]


def test_a_memoizer_of_ones_own_is_asked_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flow.compat.parsl.dataflow.memoization import Memoizer

    monkeypatch.chdir(tmp_path)

    class Own(Memoizer):
        def __init__(self) -> None:
            self.known: dict[Any, Any] = {}
            self.told: list[str] = []

        def start(self, *, run_dir: str, config_run_dir: str) -> None:
            self.told.append(f"start {config_run_dir}")

        def check_memo(self, task: Any) -> Any:
            if task["args"] not in self.known:
                return None
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()
            future.set_result(self.known[task["args"]])
            return future

        def update_memo_result(self, task: Any, r: Any) -> None:
            self.known[task["args"]] = r

        def update_memo_exception(self, task: Any, e: BaseException) -> None:
            self.told.append(f"{task['func_name']} {e}")

        def close(self) -> None:
            self.told.append("close")

    @parsl.python_app(cache=True)
    def half(x: int) -> float:
        return 1 / x

    own = Own()
    with parsl.load(Config(memoizer=own)) as dfk:
        assert [half(2).result(timeout=20), half(2).result(timeout=20)] == [0.5, 0.5]
        assert half(0).exception(timeout=20)
        assert (dfk.summary().memoized, own.known) == (1, {(2,): 0.5})
    assert own.told == ["start runinfo", "half division by zero", "close"]


def test_a_pool_runs_functions_as_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flow.compat.parsl.concurrent import ParslPoolExecutor

    monkeypatch.chdir(tmp_path)
    with ParslPoolExecutor(config=Config()) as pool:
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
        assert pool.submit(pow, 2, 3).result(timeout=20) == 8
        assert pool.app_count == 2
    with pytest.raises(RuntimeError):
        pool.submit(abs, -1)


def test_one_block_is_asked_for_unless_more_are() -> None:
    assert (LocalProvider().max_blocks, SlurmProvider("debug").max_blocks) == (1, 1)
    assert LocalProvider(init_blocks=3).max_blocks == 3


def test_options_that_flow_lacks_become_directives() -> None:
    assert SlurmProvider("debug", gres="gpu:2").scheduler_options == "#SBATCH --gres=gpu:2"


def test_launchers_take_debug() -> None:
    from flow.compat.parsl.launchers import MpiExecLauncher, SingleNodeLauncher, SrunLauncher, WrappedLauncher

    assert "srun" in SrunLauncher(debug=False, overrides="-c 2")("true", 1, 2)
    assert "--bind none -x" in MpiExecLauncher(True, "--bind", "-x")("true", 1, 2)
    assert SingleNodeLauncher(debug=True, fail_on_any=True)("true", 1, 1)
    assert WrappedLauncher("nice -n 5")("a b", 1, 1) == "nice -n 5 bash -c 'a b'"


def test_a_launcher_of_ones_own_may_be_a_subclass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flow.compat.parsl.launchers.base import Launcher

    monkeypatch.chdir(tmp_path)

    class Plain(Launcher):
        def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
            return command

    assert LocalProvider(launcher=Plain()).launcher("true", 1, 1) == "true"


def test_an_executor_has_the_options_of_parsl() -> None:
    from flow.compat.parsl.executors.base import ParslExecutor
    from flow.compat.parsl.executors.high_throughput.manager_selector import BlockIdManagerSelector
    from flow.compat.parsl.executors.status_handling import BlockProviderExecutor

    made = HighThroughputExecutor(
        max_workers_per_node=2, worker_port=54321, available_accelerators=["0", "1"], working_dir=Path("/tmp"),
        manager_selector=BlockIdManagerSelector(), address=None,
    )  # fmt: skip
    assert (made.max_workers, made.worker_ports, made.manager_selector) == (2, (54321,), "block")
    assert isinstance(made, ParslExecutor)
    assert isinstance(made, BlockProviderExecutor)
    assert made.provider is not None


def test_an_executor_of_ones_own_may_be_a_subclass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flow.compat.parsl.executors.base import ParslExecutor

    monkeypatch.chdir(tmp_path)

    class Own(ParslExecutor):
        label = "own"

        def start(self) -> None:
            self.pool = concurrent.futures.ThreadPoolExecutor(1)

        def submit(self, func: Any, resource_specification: Any, *args: Any, **kwargs: Any) -> Any:
            return self.pool.submit(func, *args, **kwargs)

        def shutdown(self) -> None:
            self.pool.shutdown()

    with parsl.load(Config(executors=[Own()])):
        assert double(4).result(timeout=20) == 8


def test_a_handler_of_failed_blocks_sets_a_bad_state() -> None:
    from flow.compat.parsl.adapters import blocks
    from flow_providers.interfaces.job_state import JobState
    from flow_providers.interfaces.job_status import JobStatus

    failed = {str(number): JobStatus(JobState.FAILED, exit_code=1) for number in range(3)}
    for handler in (blocks.simple_error_handler, blocks.windowed_error_handler):
        answer = blocks.in_flow(handler)(HighThroughputExecutor(label="h"), failed)
        assert "'h': 3 blocks failed" in str(answer)
        assert blocks.in_flow(handler)(HighThroughputExecutor(label="h"), dict(list(failed.items())[:2])) is None
    assert blocks.in_flow(blocks.noop_error_handler)(HighThroughputExecutor(label="h"), failed) is None


def test_an_executor_that_flow_does_not_have_refuses_by_name() -> None:
    with pytest.raises(ConfigurationError, match="Flow has no FluxExecutor"):
        parsl.executors.FluxExecutor()


def test_an_executor_that_flow_has_by_now_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    import flow_executors

    monkeypatch.setattr(flow_executors, "FluxExecutor", lambda label: f"flux {label}", raising=False)
    assert parsl.executors.FluxExecutor("a") == "flux a"


def test_an_unknown_option_of_a_config_is_named() -> None:
    with pytest.raises(ConfigurationError, match="has no option 'retires': did you mean 'retries'"):
        Config(retires=2)


def test_the_options_of_a_config_may_be_changed() -> None:
    config = Config(internal_tasks_max_threads=4, usage_tracking=3, project_name="mine")
    config.internal_tasks_max_threads = 5
    assert (config.data_management_max_threads, config.usage_tracking, config.name) == (5, True, "mine")
    assert config.internal_tasks_max_threads == 5


def test_a_lower_priority_number_runs_first() -> None:
    from flow.compat.parsl.adapters.apps import resources_in_flow

    assert resources_in_flow({"priority": 3, "num_nodes": 2}) == {"priority": -3, "num_nodes": 2}


def test_monitoring_takes_the_options_of_parsl() -> None:
    hub = parsl.MonitoringHub(
        hub_address="localhost", hub_port=55055, resource_monitoring_interval=0, logging_endpoint=None
    )
    assert hub.resource_monitoring_interval > 10**6
    assert hub.logging_endpoint.startswith("sqlite:///")


def test_keys_of_values_are_bytes_and_types_can_be_registered() -> None:
    from flow.compat.parsl.dataflow.memoization import id_for_memo

    class Sample:
        def __init__(self, name: str) -> None:
            self.name = name

    @id_for_memo.register(Sample)
    def _(sample: Sample, output_ref: bool = False) -> bytes:
        return sample.name.encode()

    assert id_for_memo(Sample("a")) == id_for_memo(Sample("a")) != id_for_memo(Sample("b"))
    assert isinstance(id_for_memo({"x": [1, 2]}), bytes)


def test_loggers_are_taken_back(tmp_path: Path) -> None:
    import logging

    end = parsl.set_file_logger(tmp_path / "own.log")
    logging.getLogger("flow.kernel").info("seen")
    end()
    logging.getLogger("flow.kernel").info("unseen")
    assert "seen" in (tmp_path / "own.log").read_text()
    assert "unseen" not in (tmp_path / "own.log").read_text()


def test_the_level_and_the_format_of_a_log_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flow.compat.parsl.adapters.configuration import FileLogging

    monkeypatch.chdir(tmp_path)
    logs = FileLogging(format_string="%(levelname)s: %(message)s", level=10)
    with parsl.load(Config(executors=[ThreadPoolExecutor()], initialize_logging=logs)):
        assert double(1).result(20) == 2
    parsl.clear()
    lines = (tmp_path / "runinfo" / "000" / "flow.log").read_text().splitlines()
    assert any(line.startswith("DEBUG: ") and "double" in line for line in lines)
    assert any(line.startswith("INFO: ") for line in lines)


def test_what_each_manager_does_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    executor = HighThroughputExecutor(label="htex", max_workers_per_node=1, provider=LocalProvider())
    with parsl.load(Config(executors=[executor])):
        assert double(1).result(60) == 2
        deadline = time.monotonic() + 60
        # The script may have a result before the executor has counted the task off.
        while (manager := executor.connected_managers()[0])["tasks"] and time.monotonic() < deadline:
            time.sleep(0.02)
    parsl.clear()
    told = {name: manager[name] for name in ("tasks", "active", "draining", "worker_count")}
    assert told == {"tasks": 0, "active": True, "draining": False, "worker_count": 1}

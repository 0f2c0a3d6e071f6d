"""What tasks, files, logs and monitoring are in an MPI job, on this machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import flow
from flow import Config, File, bash_app, python_app
from flow.executors import ExtremeScaleExecutor
from flow.launchers import SimpleLauncher
from flow.monitoring import MonitoringHub
from flow.providers import LocalProvider
from flow_core.errors import ExecutorBroken, TaskRefused
from flow_core.interfaces.outcome import Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors import runtime
from flow_executors.common.run_marker import RunMarker
from flow_executors.errors import InsufficientMPIRanks
from flow_executors.htex import PilotExecutor
from flow_executors.testing.extreme_run import AS_ROOT, make_extreme_executor
from flow_monitor import open_database
from flow_monitor.queries import resources, workflows

sys.path.insert(0, str(Path(__file__).parent))

from extreme_tasks import PATIENCE_S, connected, of_mpi, ranks_of, size_of, zeros  # needs the line above

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]
Drive = Callable[..., Driver]
SEEDS_COMMAND = (
    "mpiexec --oversubscribe -np {ranks_per_node} mpi_worker_pool.py {debug} --task_url={task_url} "
    "--result_url={result_url}"
)


@python_app
def rank() -> tuple[int, int]:
    """Return the number of the worker, and how many there are."""
    import os

    return int(os.environ["FLOW_WORKER_RANK"]), int(os.environ["FLOW_WORKER_COUNT"])


def test_the_example_of_the_seeds_runs(tmp_path: Path) -> None:
    config = Config(
        executors=[
            ExtremeScaleExecutor(
                label="extreme_local",
                ranks_per_node=4,
                provider=LocalProvider(init_blocks=0, max_blocks=1, launcher=SimpleLauncher(), worker_init=AS_ROOT),
            )
        ],
        run_dir=str(tmp_path / "runinfo"),
    )
    with flow.load(config):
        seen = [future.result(timeout=PATIENCE_S) for future in [rank() for _ in range(30)]]
    assert {count for _, count in seen} == {3}
    assert {number for number, _ in seen} <= {0, 1, 2}


def test_the_command_of_the_seeds_starts_the_ranks(drive: Drive) -> None:
    driver = drive(launch_cmd=SEEDS_COMMAND)
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8
    assert len(ranks_of(driver)) == 3


def test_a_job_of_one_rank_says_so_by_the_name_of_its_error(drive: Drive) -> None:
    driver = drive(launch_cmd="mpiexec -n 1 {python} -P -m {module} {options}", recovery_timeout=5.0)
    outcome = driver.outcome(driver.submit(calls.double, 4))
    assert isinstance(outcome.error, ExecutorBroken)
    assert "has 1 rank: at least 2 are needed" in str(outcome.error)


def test_mpi4py_that_is_missing_on_nodes_is_named_with_what_helps(drive: Drive, tmp_path: Path) -> None:
    (tmp_path / "mpi4py.py").write_text("raise ModuleNotFoundError(\"No module named 'mpi4py'\")\n")
    command = f"export PYTHONPATH={tmp_path}; mpiexec --oversubscribe -n 3 {{python}} -P -m {{module}} {{options}}"
    driver = drive(launch_cmd=command, recovery_timeout=5.0)
    outcome = driver.outcome(driver.submit(calls.double, 4))
    assert isinstance(outcome.error, ExecutorBroken)
    assert "pip install mpi4py" in str(outcome.error)


def test_tasks_are_no_ranks(drive: Drive) -> None:
    driver = drive()
    assert driver.outcome(driver.submit(of_mpi)).value == []


def test_what_is_longer_than_a_message_of_mpi_arrives_whole(drive: Drive) -> None:
    driver = drive()
    size = (64 << 20) + 12_345
    assert driver.outcome(driver.submit(size_of, bytes(size))).value == size
    assert driver.outcome(driver.submit(zeros, size)).value == bytes(size)


def test_a_block_that_is_drained_finishes_what_it_has(drive: Drive) -> None:
    driver = drive()
    executor = connected(driver)
    key = driver.hold("task")
    driver.wait_held("task")
    assert executor.scale_in(block_ids=["0"]) == ["0"]
    driver.release("task")
    assert driver.outcome(key).value == "task"
    driver.poll(lambda: not executor.connected_managers(), "it did not leave")


def test_a_job_that_its_scheduler_ends_gives_its_tasks_back(drive: Drive) -> None:
    driver = drive()
    key = driver.hold("task")
    driver.wait_held("task")
    os.kill(ranks_of(driver)["flow-manager"], signal.SIGTERM)
    outcome = driver.outcome(key)
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert "SIGTERM" in outcome.loss.reason


def test_each_worker_has_a_log_beside_the_managers(drive: Drive, tmp_path: Path) -> None:
    driver = drive()
    driver.outcomes([driver.submit(print, "something said") for _ in range(8)])
    driver.shutdown(10)
    logs = {path.name: path.read_text() for path in tmp_path.glob("run0/extreme/block-0/*/*.log")}
    assert {"manager.log", "worker_0.log", "worker_1.log"} <= logs.keys()
    assert "something said" in logs["worker_0.log"] + logs["worker_1.log"]


@python_app
def hog() -> int:
    """Hold memory for a while."""
    import time

    held = bytearray(80 << 20)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        time.sleep(0.01)
    return len(held)


def test_what_tasks_use_is_sampled_on_their_ranks(tmp_path: Path) -> None:
    config = Config(
        executors=[make_extreme_executor()],
        monitoring=MonitoringHub(resource_monitoring_interval=0.2),
        run_dir=str(tmp_path / "runinfo"),
    )
    with flow.load(config):
        assert hog().result(timeout=PATIENCE_S) == 80 << 20
    with open_database(str(tmp_path / "runinfo" / "monitoring.db")) as database, database.connect() as connection:
        run = workflows.page(connection).items[0]
        assert max(use.memory for use in resources.usage(connection, run.run_id)) >= 80 << 20
        assert resources.node_load(connection, run.run_id)


@python_app
def shout(inputs=(), outputs=()):
    """Write the text of one file into another, in capitals."""
    with open(inputs[0]) as source, open(outputs[0], "w") as target:
        target.write(source.read().upper())


@bash_app
def greet(stdout=None):
    return "echo hello"


def test_files_of_nodes_that_do_not_see_the_scripts_go_over_mpi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_marker", lambda context: RunMarker("/nowhere/marker", "0" * 32, "0" * 64))
    monkeypatch.setattr(PilotExecutor, "carries_files", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    Path("in.txt").write_text("quiet")
    with flow.load(Config(executors=[make_extreme_executor()], run_dir=str(tmp_path / "runinfo"))):
        futures = [shout(inputs=[File("in.txt")], outputs=[File(f"out{n}.txt")]) for n in range(8)]
        for future in futures:
            future.result(timeout=PATIENCE_S)
        greet(stdout="said.txt").result(timeout=PATIENCE_S)
    assert [Path(f"out{n}.txt").read_text() for n in range(8)] == ["QUIET"] * 8
    assert Path("said.txt").read_text() == "hello\n"
    assert [path for path in (tmp_path / "node").rglob("*") if path.is_file()] == []


def test_a_task_that_asks_for_cores_is_refused_by_name(tmp_path: Path) -> None:
    config = Config(executors=[make_extreme_executor()], run_dir=str(tmp_path / "runinfo"))
    with flow.load(config), pytest.raises(TaskRefused, match="cores"):
        rank.options(resource_specification={"cores": 2})()


def test_fewer_than_two_ranks_are_refused_by_the_name_of_the_seeds() -> None:
    with pytest.raises(InsufficientMPIRanks, match="1 rank"):
        ExtremeScaleExecutor()

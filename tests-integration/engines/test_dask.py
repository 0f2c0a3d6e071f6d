"""DaskExecutor: clusters of its own and of others, and what dies there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import ExecutorBroken, TaskRefused
from flow_core.interfaces.call import Call, Resources, TaskSpec
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.outcome import Verdict
from flow_core.interfaces.waiting import CauseKind
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors import DaskExecutor

pytestmark = [pytest.mark.services, pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore::ResourceWarning")]

Drive = Callable[[Executor], Driver]


def pid_of(driver: Driver) -> int:
    """Return the process of the worker that is free."""
    place = driver.outcome(driver.submit(calls.nothing)).place
    assert place is not None
    return place.pid


def test_a_cluster_of_its_own_runs_tasks_and_leaves_nothing(tmp_path: Path) -> None:
    import psutil

    executor = DaskExecutor(label="own", max_workers=2, host="127.0.0.1", available_accelerators=2, mem_per_worker=1)
    driver = Driver(executor, tmp_path, 60)
    driver.start()
    try:
        gpu = TaskSpec(Resources(gpus=1, memory_mb=500))
        key = driver.submit_call(Call(calls.environment, ("CUDA_VISIBLE_DEVICES",), spec=gpu))
        assert driver.outcome(key).value in ("0", "1")
        pids = [pid_of(driver)]
        below = [one.pid for one in psutil.Process().children(recursive=True)]
    finally:
        driver.shutdown()
    driver.check()
    assert below
    gone = time.monotonic() + 10
    while (left := [one for one in [*below, *pids] if psutil.pid_exists(one)]) and time.monotonic() < gone:
        time.sleep(0.05)
    # The reaper stays for a moment, until it has seen that nothing is left.
    assert not [one for one in left if "distributed" in " ".join(psutil.Process(one).cmdline())]


def test_a_task_that_is_too_large_for_a_worker_is_refused_by_name(drive: Drive) -> None:
    driver = drive(DaskExecutor(label="own", max_workers=1, cores_per_worker=2, mem_per_worker=0.5))
    for spec, text in (
        (TaskSpec(Resources(cores=64)), "no worker has more than 2"),
        (TaskSpec(Resources(memory_mb=10**9)), "no worker has more than"),
        (TaskSpec(Resources(gpus=1)), "available_accelerators"),
        (TaskSpec(Resources(named=(("license", 1.0),))), "resources"),
    ):
        outcome = driver.outcome(driver.submit_call(Call(calls.nothing, spec=spec)))
        assert outcome.verdict is Verdict.REFUSED
        assert isinstance(outcome.error, TaskRefused)
        assert text in str(outcome.error)
    assert driver.outcome(driver.submit_call(Call(calls.nothing, spec=TaskSpec(Resources(cores=2))))).error is None


def test_named_resources_of_workers_are_asked_for(drive: Drive) -> None:
    driver = drive(DaskExecutor(label="own", max_workers=1, resources={"license": 1}))
    spec = TaskSpec(Resources(named=(("license", 1.0),)))
    assert driver.outcome(driver.submit_call(Call(calls.double, (2,), spec=spec))).value == 4


def test_the_client_of_a_script_is_used_and_stays(drive: Drive, dask_cluster: Any) -> None:
    from distributed import Client

    with Client(dask_cluster, set_as_default=False) as client:
        driver = drive(DaskExecutor(label="theirs", client=client, max_batch=5))
        keys = [driver.submit(calls.double, number) for number in range(200)]
        assert [one.value for one in driver.outcomes(keys)] == [2 * number for number in range(200)]
        driver.shutdown()
        assert client.submit(lambda: 7).result(timeout=30) == 7


def test_what_workers_of_others_do_not_declare_is_refused(drive: Drive, dask_cluster: Any) -> None:
    from distributed import Client

    with Client(dask_cluster, set_as_default=False) as client:
        driver = drive(DaskExecutor(label="theirs", client=client))
        refused = driver.outcome(driver.submit_call(Call(calls.nothing, spec=TaskSpec(Resources(gpus=1)))))
        assert "--resources 'GPU=1'" in str(refused.error)
        spec = TaskSpec(Resources(named=(("license", 1.0),)))
        assert driver.outcome(driver.submit_call(Call(calls.double, (2,), spec=spec))).value == 4


def test_a_batch_that_is_lost_loses_one_task(drive: Drive, dask_cluster: Any) -> None:
    """Short tasks go together: those before the one that kills its worker are done, those after it begin elsewhere."""
    driver = drive(DaskExecutor(label="theirs", address=dask_cluster.scheduler_address, security=dask_cluster.security))
    driver.outcomes([driver.submit(end_if, 1, 0) for _ in range(20)])
    keys = [driver.submit(end_if, number, 250) for number in range(500)]
    verdicts = [one.verdict for one in driver.outcomes(keys)]
    assert [index for index, one in enumerate(verdicts) if one is Verdict.LOST] == [250]
    assert set(verdicts) <= {Verdict.OK, Verdict.LOST, Verdict.RETURNED}


def test_a_large_argument_goes_by_the_store_of_the_workers(drive: Drive, dask_cluster: Any) -> None:
    driver = drive(DaskExecutor(label="theirs", address=dask_cluster.scheduler_address, security=dask_cluster.security))
    assert driver.outcome(driver.submit(len, b"x" * 20_000_000)).value == 20_000_000


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_a_scheduler_that_is_killed_or_hangs_breaks_the_executor(
    drive: Drive, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    import psutil

    monkeypatch.setattr("flow_executors.engines.dask.SILENT_S", 3.0)

    executor = DaskExecutor(label="own", max_workers=1)
    driver = drive(executor)
    driver.outcome(driver.submit(calls.nothing))
    held = driver.hold("held")
    driver.wait_held("held")
    waiting = driver.submit(calls.nothing)
    # Below its guard, whose own command line has that of the scheduler in it.
    [scheduler] = [
        one
        for one in psutil.Process().children(recursive=True)
        if "distributed.cli.dask_scheduler" in one.cmdline()[:3]
    ]
    scheduler.send_signal(signum)
    assert driver.outcome(held).verdict is Verdict.LOST
    assert driver.outcome(waiting).verdict in (Verdict.REFUSED, Verdict.LOST)
    driver.poll(lambda: broken(driver), "the executor did not notice")


def broken(driver: Driver) -> bool:
    try:
        driver.submit(calls.nothing)
    except ExecutorBroken as error:
        return "scheduler" in str(error)
    return False


def test_a_task_without_any_worker_is_explained(drive: Drive) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", processes=True, silence_logs=50) as cluster:
        driver = drive(DaskExecutor(label="theirs", address=cluster.scheduler_address))
        key = driver.submit(calls.nothing)
        driver.poll(lambda: bool(driver.executor.why_waiting(key)), "no cause")
        assert CauseKind.NO_WORKER in {cause.kind for cause in driver.executor.why_waiting(key)}
        cluster.scale(1)
        assert driver.outcome(key).verdict is Verdict.OK


def test_nothing_is_left_of_a_killed_script(tmp_path: Path) -> None:
    import psutil

    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "runs\n"
            found = processes_in(tmp_path)
        finally:
            process.kill()
    assert len(found) > 4  # the script, scheduler, nanny, worker, and who watches over them
    _, alive = psutil.wait_procs(found, timeout=60)
    assert not alive


def processes_in(directory: Path) -> list[Any]:
    """Return the processes whose current directory it is: jobs are no children of their script."""
    import psutil

    return [one for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(directory)]


def end_if(number: int, fatal: int) -> int:
    """End this worker if two numbers are the same."""
    if number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


SCRIPT = """
import time
import flow
from flow import Config, python_app
from flow.executors import DaskExecutor

@python_app
def wait(seconds):
    import time
    time.sleep(seconds)

if __name__ == "__main__":
    flow.load(Config(executors=[DaskExecutor(max_workers=1)]))
    wait(0).result(60)
    wait(600)
    print("runs", flush=True)
    time.sleep(600)
"""

"""RayExecutor: clusters of its own and of others, and what dies there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from flow_core.interfaces.call import Call, Resources, TaskSpec
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.outcome import Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors import RayExecutor

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

Drive = Callable[[Executor], Driver]


def test_a_batch_that_is_lost_loses_one_task(drive: Drive, ray_cluster: str) -> None:
    """Short tasks go together: those before the one that kills its worker are done, those after it begin elsewhere."""
    driver = drive(RayExecutor(label="theirs", address=ray_cluster))
    driver.outcomes([driver.submit(end_if, 1, 0) for _ in range(20)])
    keys = [driver.submit(end_if, number, 250) for number in range(500)]
    verdicts = [one.verdict for one in driver.outcomes(keys)]
    assert [index for index, one in enumerate(verdicts) if one is Verdict.LOST] == [250]
    assert set(verdicts) <= {Verdict.OK, Verdict.LOST, Verdict.RETURNED}


def test_a_large_argument_and_a_large_result_go_by_the_object_store(drive: Drive, ray_cluster: str) -> None:
    driver = drive(RayExecutor(label="theirs", address=ray_cluster))
    outcome = driver.outcome(driver.submit(calls.echo, b"x" * 20_000_000))
    assert outcome.value == ((b"x" * 20_000_000,), {})


def test_named_resources_of_nodes_are_asked_for(drive: Drive, ray_cluster: str) -> None:
    driver = drive(RayExecutor(label="theirs", address=ray_cluster))
    spec = TaskSpec(Resources(named=(("license", 1.0),)))
    assert driver.outcome(driver.submit_call(Call(calls.double, (2,), spec=spec))).value == 4


def test_a_cluster_of_its_own_refuses_what_no_node_has_and_breaks_with_its_head(tmp_path: Path) -> None:
    """In a process of its own, since one has one connection to Ray."""
    said = run(OWN, tmp_path)
    assert said == ["cores refused", "gpus refused", "memory refused", "tea refused", "0", "held LOST", "broken", "end"]


@pytest.mark.soak
def test_nothing_is_left_of_a_killed_script(tmp_path: Path) -> None:
    with started(KILLED, tmp_path) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "runs\n"
            found = processes_in(tmp_path)
        finally:
            process.kill()
    assert {"gcs_server", "raylet"} <= {one.info["name"] for one in found}
    _, alive = psutil.wait_procs(found, timeout=90)
    assert not alive


def started(script: str, directory: Path) -> subprocess.Popen[str]:
    (directory / "script.py").write_text(script)
    return subprocess.Popen([sys.executable, "script.py"], cwd=directory, stdout=subprocess.PIPE, text=True)


def run(script: str, directory: Path) -> list[str]:
    """Return the lines of a script that begin with a mark."""
    with started(script, directory) as process:
        try:
            output, _ = process.communicate(timeout=150)
        finally:
            process.kill()
    return [line.removeprefix("> ") for line in output.splitlines() if line.startswith("> ")]


def processes_in(directory: Path) -> list[Any]:
    """Return the processes whose current directory it is: jobs are no children of their script."""
    return [one for one in psutil.process_iter(["cwd", "name"]) if one.info["cwd"] == str(directory)]


def end_if(number: int, fatal: int) -> int:
    """End this worker if two numbers are the same."""
    if number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


OWN = """
import os, psutil, time
from pathlib import Path
from flow_core.errors import ExecutorBroken
from flow_core.interfaces.call import Call, Resources, TaskSpec
from flow_core.interfaces.outcome import Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors import RayExecutor

if __name__ == "__main__":
    executor = RayExecutor(
        max_workers=2, mem_per_worker=0.1, host="127.0.0.1", gpus_per_node=1, resources={"license": 1}
    )
    driver = Driver(executor, Path("run").absolute(), 60)
    driver.start()
    for name, wanted in (
        ("cores", Resources(cores=64)),
        ("gpus", Resources(gpus=2)),
        ("memory", Resources(memory_mb=10**9)),
        ("tea", Resources(named=(("tea", 1.0),))),
    ):
        outcome = driver.outcome(driver.submit_call(Call(calls.nothing, spec=TaskSpec(wanted))))
        print(">", name, "refused" if outcome.verdict is Verdict.REFUSED else outcome)
    wanted = Resources(cores=2, gpus=1, memory_mb=50, named=(("license", 1.0),))
    call = Call(calls.environment, ("CUDA_VISIBLE_DEVICES",), spec=TaskSpec(wanted))
    outcome = driver.outcome(driver.submit_call(call))
    print(">", outcome.value)
    held = driver.hold("held")
    driver.wait_held("held")
    [head] = [one for one in psutil.Process().children(recursive=True) if one.name() == "gcs_server"]
    head.kill()
    print("> held", driver.outcome(held).verdict.name)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            driver.submit(calls.nothing)
            time.sleep(0.05)
        except ExecutorBroken:
            print("> broken")
            break
    driver.shutdown()
    driver.check()
    print("> end", flush=True)
    os._exit(0)
"""

KILLED = """
import time
import flow
from flow import Config, python_app
from flow.executors import RayExecutor

@python_app
def wait(seconds):
    import time
    time.sleep(seconds)

if __name__ == "__main__":
    flow.load(Config(executors=[RayExecutor(max_workers=1)]))
    wait(0).result(90)
    wait(600)
    print("runs", flush=True)
    time.sleep(600)
"""

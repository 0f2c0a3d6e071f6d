"""IPyParallelExecutor: controllers of its own and of others, and what dies there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import ConfigurationError, ExecutorBroken
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.outcome import Verdict
from flow_core.interfaces.waiting import CauseKind
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors import Controller, IPyParallelExecutor
from flow_executors.errors import ControllerError
from flow_providers import LocalProvider

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.usefixtures("with_ipyparallel"),
]

Drive = Callable[[Executor], Driver]


def own(**options: Any) -> IPyParallelExecutor:
    """Return an executor with a controller and one block of its own."""
    provider = LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1)
    return IPyParallelExecutor(**{"label": "own", "provider": provider, **options})


def below(*words: str) -> list[Any]:
    """Return the processes below this one whose command line begins so, after the Python."""
    import psutil

    return [one for one in psutil.Process(os.getpid()).children(recursive=True) if one.cmdline()[1:3] == list(words)]


def test_a_controller_of_its_own_runs_tasks_and_a_killed_engine_comes_again(drive: Drive) -> None:
    driver = drive(own())
    first = driver.outcome(driver.submit(calls.nothing)).place
    assert first is not None
    outcome = driver.outcome(driver.submit(calls.kill_self))
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert "engine died" in outcome.loss.reason
    second = driver.outcome(driver.submit(calls.nothing)).place
    assert second is not None
    assert second.pid != first.pid


def test_a_task_that_runs_is_ended_with_its_engine(drive: Drive) -> None:
    driver = drive(own())
    key = driver.hold("held")
    driver.wait_held("held")
    driver.executor.cancel([key], kill=True)
    assert driver.outcome(key).verdict is Verdict.CANCELLED
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_a_controller_that_is_killed_or_hangs_breaks_the_executor(
    drive: Drive, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    import psutil

    monkeypatch.setattr("flow_executors.engines.ipyparallel.SILENT_S", 3.0)
    driver = drive(own())
    held = driver.hold("held")
    driver.wait_held("held")
    for controller in below("-m", "ipyparallel.controller"):
        with suppress(psutil.NoSuchProcess):  # its guard ends it once the first is dead
            controller.send_signal(signum)
    assert driver.outcome(held).verdict is Verdict.LOST
    driver.poll(lambda: broken(driver), "the executor did not notice")


def broken(driver: Driver) -> bool:
    try:
        driver.submit(calls.nothing)
    except ExecutorBroken as error:
        return "controller" in str(error)
    return False


def test_a_task_without_any_engine_is_explained(drive: Drive) -> None:
    driver = drive(own())  # its engine takes seconds to come
    key = driver.submit(calls.nothing)
    assert CauseKind.NO_WORKER in {cause.kind for cause in driver.executor.why_waiting(key)}
    assert driver.outcome(key).verdict is Verdict.OK


def test_options_of_controller_and_engines_reach_them(drive: Drive, tmp_path: Path) -> None:
    # Below the ports that the system gives to connections, which may be in use at any moment.
    controller = Controller(ipython_dir=str(tmp_path / "ipython"), profile="mine", port_range="20500,20999", log=False)
    driver = drive(own(controller=controller, engine_dir=str(tmp_path / "engines"), engine_debug_level="ERROR"))
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4
    assert (tmp_path / "ipython" / "profile_mine" / "security" / "ipcontroller-client.json").exists()
    assert (tmp_path / "engines" / "1").is_dir()
    [running] = below("-m", "ipyparallel.controller")[:1]
    ports = {one.laddr.port for one in running.net_connections("tcp") if one.status == "LISTEN"}
    assert ports
    assert all(20500 <= port <= 20999 for port in ports)


def test_a_controller_that_is_not_there_is_named(tmp_path: Path) -> None:
    controller = Controller(mode="manual", ipython_dir=str(tmp_path))
    driver = Driver(IPyParallelExecutor(label="theirs", controller=controller), tmp_path, 60)
    with pytest.raises(ControllerError, match="no controller is there"):
        driver.start()


def test_the_client_of_a_script_is_used_and_stays(drive: Drive, ipp_client: Any) -> None:
    driver = drive(IPyParallelExecutor(label="theirs", client=ipp_client))
    keys = [driver.submit(calls.double, number) for number in range(200)]
    assert [one.value for one in driver.outcomes(keys)] == [2 * number for number in range(200)]
    driver.shutdown()
    assert ipp_client.load_balanced_view().apply_async(abs, -7).get(timeout=30) == 7


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mode": "somehow"}, "mode"),
        ({"port_range": "50000"}, "port_range"),
        ({"port": 0}, "port"),
        ({"profile": "a/b"}, "profile"),
        ({"reuse": True}, "ipython_dir"),
        ({"mode": "manual", "port": 5}, "port"),
    ],
)
def test_an_impossible_controller_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Controller(**options)


def test_nothing_is_left_of_a_killed_script(tmp_path: Path) -> None:
    import psutil

    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "runs\n"
            found = [one for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(tmp_path)]
        finally:
            process.kill()
    assert len(found) > 3  # the script, controller and engine, and who watches over them
    _, alive = psutil.wait_procs(found, timeout=60)
    assert not alive


SCRIPT = """
import time
import flow
from flow import Config, python_app
from flow.executors import IPyParallelExecutor

@python_app
def wait(seconds):
    import time
    time.sleep(seconds)

if __name__ == "__main__":
    flow.load(Config(executors=[IPyParallelExecutor()]))
    wait(0).result(60)
    wait(600)
    print("runs", flush=True)
    time.sleep(600)
"""

"""Processes that are stopped and that nobody lets go on: their tasks end, and their places are filled again."""

from __future__ import annotations

import os
import signal

import pytest

from flow_core.interfaces.outcome import Verdict
from flow_core.remote.processes import below, look, table
from flow_core.testing import calls
from flow_executors.testing.local_run import manager_pid, wait_until

pytestmark = pytest.mark.slow

QUICK = {"heartbeat_period": 0.2, "heartbeat_threshold": 2}


@pytest.fixture(params=["htex", "llex"])
def driver(request, drive, drive_direct):
    """A started executor of two workers with short heartbeats."""
    return {"htex": drive, "llex": drive_direct}[request.param](**QUICK)


def workers(driver):
    """Return the pids of the workers, once there are two."""

    def found():
        return [one.pid for one in below((manager_pid(driver),), table()) if one.name.startswith("flow-w")]

    wait_until(lambda: len(found()) == 2, "there are no two workers")
    return found()


def fork_client(driver):
    (pid,) = [one.pid for one in below((manager_pid(driver),), table()) if one.name == "flow-forkserver"]
    return pid


def stop_self(times):
    import os
    import signal

    for _ in range(times):
        os.kill(os.getpid(), signal.SIGSTOP)
    return times


def wait_for_stopped_command():
    import subprocess

    return subprocess.run(["bash", "-c", "while true; do kill -STOP $$; done"], check=False).returncode


def test_workers_that_are_stopped_go_on_with_their_tasks(driver, caplog):
    keys = [driver.hold(name) for name in ("one", "two")]
    for name in ("one", "two"):
        driver.wait_held(name)
    for pid in workers(driver):
        os.kill(pid, signal.SIGSTOP)
    driver.release()
    assert [outcome.verdict for outcome in driver.outcomes(keys)] == [Verdict.OK, Verdict.OK]
    assert "stopped (state T) for" in caplog.text


def test_workers_that_are_stopped_while_idle_do_not_keep_tasks(driver):
    for pid in workers(driver):
        os.kill(pid, signal.SIGSTOP)
    outcomes = driver.outcomes([driver.submit(calls.double, number) for number in range(20)])
    assert all(outcome.verdict is Verdict.OK for outcome in outcomes)


def test_a_task_that_stops_itself_once_goes_on(driver):
    assert driver.outcome(driver.submit(stop_self, 1)).value == 1


@pytest.mark.parametrize(
    ("driver", "task"), [("htex", (stop_self, 1000)), ("llex", (wait_for_stopped_command,))], indirect=["driver"]
)
def test_a_task_that_stops_itself_for_ever_is_lost_and_says_so(driver, task):
    outcome = driver.outcome(driver.submit(*task))
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert "stopped (state T" in outcome.loss.reason
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8


def test_a_fork_server_that_is_stopped_is_told_to_go_on(driver):
    first = workers(driver)
    pid = fork_client(driver)
    os.kill(pid, signal.SIGSTOP)
    for worker in first:
        os.kill(worker, signal.SIGKILL)
    outcomes = driver.outcomes([driver.submit(calls.double, number) for number in range(4)])
    assert all(outcome.verdict is Verdict.OK for outcome in outcomes if outcome.verdict is not Verdict.LOST)
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8
    process = look(pid)
    assert process is not None
    assert not process.stopped


def test_a_manager_that_was_stopped_and_counted_as_lost_leaves_and_starts_nothing(drive, network, tmp_path):
    driver = drive(max_workers=1, **network, **QUICK)
    driver.outcomes([driver.submit(calls.nothing) for _ in range(100)])  # so that tasks are handed out in advance
    keys = [driver.hold("first"), *(driver.submit(os.mkdir, str(tmp_path / name)) for name in "ab")]
    driver.wait_held("first")
    pid = manager_pid(driver)
    os.kill(pid, signal.SIGSTOP)
    lost = [driver.outcome(key) for key in keys]
    assert {outcome.verdict for outcome in lost} <= {Verdict.LOST, Verdict.RETURNED}
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: look(pid) is None, "the manager did not leave")
    assert not [name for name in "ab" if (tmp_path / name).exists()]

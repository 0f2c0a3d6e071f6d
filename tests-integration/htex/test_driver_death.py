"""The script is killed: interchange, managers, workers and jobs end by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flow_core.errors import ExecutorClosed
from flow_core.interfaces.call import Call, TryKey
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_core.testing.recording import run_id_in
from flow_executors.testing.local_run import processes_of, wait_gone, wait_until

_SCRIPT = """
import sys, time
from pathlib import Path
from flow_executors.testing.local_run import make_executor
from flow_core.testing.driver import Driver
from flow_core.testing.recording import run_id_in
driver = Driver(make_executor(), Path(sys.argv[1]), 30.0)
driver.start()
driver.hold("task")
driver.wait_held("task")
print("ready", flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("stopped", [(), ("flow_executors.interchange", "flow_providers.jobs.reaper")])
def test_all_processes_end_with_a_script_killed_by_sigkill(tmp_path: Path, stopped: tuple[str, ...]) -> None:
    directory = tmp_path / "killed-driver"
    command = [sys.executable, "-c", _SCRIPT, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "ready\n"
        run_id = run_id_in(directory)
        processes = processes_of(run_id)
        assert len(processes) >= 2
        frozen = [pid for pid, words in processes.items() if any(module in words for module in stopped)]
        assert len(frozen) == len(stopped)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        script.send_signal(signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{script.pid}"), "the script lives")
    wait_gone(run_id)


def test_a_forked_child_neither_disturbs_the_executor_nor_keeps_it_alive(drive: Callable[..., Driver]) -> None:
    driver = drive()
    driver.outcome(driver.submit(calls.nothing))
    child = os.fork()
    if child == 0:
        try:
            driver.executor.submit(TryKey(99), Call(calls.nothing))
        except ExecutorClosed:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert driver.outcome(driver.submit(calls.double, 4)).value == 8

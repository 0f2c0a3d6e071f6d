"""The script is killed: interchange, managers, workers and jobs end by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from flow_executors.testing.local_run import processes_of, wait_gone, wait_until

_SCRIPT = """
import sys, time
from pathlib import Path
from flow_executors.testing.local_run import make_executor
from flow_core.testing.driver import Driver
driver = Driver(make_executor(), Path(sys.argv[1]), 30.0)
driver.start()
driver.hold("task")
driver.wait_held("task")
print("ready", flush=True)
time.sleep(100)
"""


def test_all_processes_end_with_a_script_killed_by_sigkill(tmp_path: Path) -> None:
    directory = tmp_path / "killed-driver"
    command = [sys.executable, "-c", _SCRIPT, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "ready\n"
        run_id = f"test-{directory.name}"
        assert len(processes_of(run_id)) >= 2
        script.send_signal(signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{script.pid}"), "the script lives")
    wait_gone(run_id)

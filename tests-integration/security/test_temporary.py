"""Places that all users of a machine share: nothing of a run is found there by its name, or was put there before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from security_attacker import Attacker

SCRIPT = """
import os, sys, tempfile
import flow
from flow import Config, python_app
from flow.executors import HighThroughputExecutor, LowLatencyExecutor, ThreadPoolExecutor
from flow.monitoring import MonitoringHub
from flow.providers import LocalProvider

def look(data, places):
    import os
    return len(data), [name for place in places for name in os.listdir(place)]

if __name__ == "__main__":
    top, places = sys.argv[1], sys.argv[2:]
    assert tempfile.gettempdir() == places[0]
    far = [kind(max_workers=1, provider=LocalProvider()) for kind in (HighThroughputExecutor, LowLatencyExecutor)]
    executors = [ThreadPoolExecutor(label="threads"), *far]
    names = [executor.label for executor in executors]
    hub = MonitoringHub(logging_endpoint=f"sqlite:///{top}/monitoring.db", resource_monitoring_interval=0.1)
    with flow.load(Config(executors, run_dir=f"{top}/runinfo", monitoring=hub)):
        big = os.urandom(5_000_000)
        for name in names:
            size, seen = python_app(executors=[name])(look)(big, places).result()
            assert size == len(big)
            print(*sorted(seen))
"""


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_nothing_of_a_run_lies_in_directories_that_all_users_share(tmp_path: Path, attacker: Attacker) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    planted = ["flow", f"flow-{os.geteuid()}", ".flow", f".flow-staged-{os.geteuid()}", "runinfo", "pymp-x"]
    made = "import os, sys; [os.symlink('/', f'{sys.argv[1]}/{name}') for name in sys.argv[2:]]"
    assert attacker.run(made, shared, *planted) == ""
    (tmp_path / "script.py").write_text(SCRIPT)
    before = sorted(os.listdir(shared))
    memory = {name for name in os.listdir("/dev/shm") if "flow" in name}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "mine"), str(shared), "/dev/shm"],
        env={**os.environ, "TMPDIR": str(shared)}, capture_output=True, text=True, timeout=140, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        seen = set(line.split())
        assert seen >= set(before)
        assert {name for name in seen - set(before) if "flow" in name} <= memory
    assert len(done.stdout.splitlines()) == 3
    assert sorted(os.listdir(shared)) == before

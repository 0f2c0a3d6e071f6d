"""Signals to a script with a wrapped pool of processes: it ends at once, and no worker is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_SCRIPT = """
import concurrent.futures, os, signal, sys, time
from pathlib import Path
import flow
from flow_core.executors.futures import FuturesExecutor

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell has set

@flow.python_app
def long(number):
    import os, time
    from pathlib import Path
    Path(f"worker.{os.getpid()}").touch()
    time.sleep(100)

make = lambda: concurrent.futures.ProcessPoolExecutor(2)
pool = FuturesExecutor("pool", make) if sys.argv[1] == "made" else make()
flow.load(flow.Config(executors=[pool]))
futures = [long(number) for number in range(4)]
while len(list(Path().glob("worker.*"))) < 2:
    time.sleep(0.05)
print("running", flush=True)
futures[0].result()
"""


def _run(tmp_path: Path, pool: str, number: signal.Signals) -> tuple[int, str]:
    """Run the script, send it a signal when its tasks run, and return how it ended and its standard error."""
    (tmp_path / "script.py").write_text(_SCRIPT)
    process = subprocess.Popen(
        [sys.executable, "script.py", pool],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=50)
    finally:
        process.kill()
        process.wait()
    return process.returncode, errors


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("pool", ["made", "given"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_script_and_the_workers_of_its_pool(
    tmp_path: Path, pool: str, number: signal.Signals
) -> None:
    code, errors = _run(tmp_path, pool, number)  # tasks take 100 s, for which nothing waits
    assert code == -number, errors
    workers = [int(path.suffix[1:]) for path in tmp_path.glob("worker.*")]
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while not all(map(_gone, workers)):
        assert time.monotonic() < deadline, f"{workers} are left"
        time.sleep(0.05)
    if number == signal.SIGINT:
        assert "4 unfinished tasks were cancelled at exit" in errors


_CANCELLING = """
import concurrent.futures, os, time
from pathlib import Path
import flow

@flow.python_app
def touch(name, until):
    import time
    from pathlib import Path
    Path(name).touch()
    while not Path(until).exists():
        time.sleep(0.02)

with concurrent.futures.ProcessPoolExecutor(1) as pool, flow.load(flow.Config(executors=[pool])):
    futures = [touch(f"task.{number}", "go") for number in range(4)]
    while not os.path.exists("task.0"):
        time.sleep(0.02)
    kept = [futures[0].cancel(), futures[0].cancel(kill=True), futures[0].cancelled(), futures[0].task_status()]
    taken = [futures[3].cancel(), futures[3].cancelled()]
    Path("go").touch()
    print(kept, taken, futures[0].result(30), futures[1].result(30), os.path.exists("task.3"))
"""


def test_a_task_that_a_pool_runs_is_not_told_to_be_cancelled(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CANCELLING], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "[False, False, False, 'running'] [True, True] None None False\n", done.stderr


_SHARED = """
import concurrent.futures, time
from pathlib import Path
import flow

def others():
    time.sleep(1)
    Path("others").touch()

@flow.python_app
def short():
    import time
    time.sleep(2)

pool = concurrent.futures.ProcessPoolExecutor(2)
flow.load(flow.Config(executors=[pool]))
future, mine = short(), pool.submit(others)
raise ValueError("the script fails")
"""


def test_a_script_that_fails_leaves_the_calls_that_others_gave_its_pool(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SHARED], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "ValueError: the script fails" in done.stderr
    assert (tmp_path / "others").exists()

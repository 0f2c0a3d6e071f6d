"""What goes wrong around a run, seen from the script: each a named error or no harm at all, and the pool goes on."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys

import flow_core as flow
from flow_core import AppFuture, python_app
from flow_core.errors import (
    ExecutorBroken,
    ExecutorError,
    NoDataFlowKernelError,
    SerializationError,
    TaskKillsWorkers,
    WorkerLost,
)
from flow_core.testing.recording import run_id_in
from flow_executors.testing.local_run import processes_of, wait_gone, wait_until


@python_app
def double(x):
    return 2 * x


@python_app
def end_worker(how, out):
    import os
    import sys

    with open(out, "a") as file:
        file.write(f"{os.getpid()}\n")
    print("the last words", file=sys.stderr)
    if how == "kill":
        os.kill(os.getpid(), 9)
    os._exit(7)


@python_app
def call_an_app():
    return double(1).result()


@python_app
def sleep(seconds):
    import time

    time.sleep(seconds)
    return seconds


@python_app
def use_missing_package():
    import no_such_package_anywhere

    return no_such_package_anywhere


@python_app
def large(size):
    return bytes(size)


def test_an_app_called_in_a_task_says_how_else(config):
    with flow.load(config()):
        error = call_an_app().exception(50)
    assert isinstance(error, NoDataFlowKernelError)
    assert "inside a task" in str(error)
    assert "@join_app" in str(error)


def test_a_task_whose_worker_is_killed_is_retried_and_then_named(config, tmp_path):
    with flow.load(config({"infrastructure_retries": 1})):
        error = end_worker("kill", str(tmp_path / "out")).exception(timeout=40)
        assert isinstance(error, WorkerLost)
        assert "the last words" in str(error)
        assert "often: the node ran out of memory" in str(error)
        assert "end_worker" in str(error)
        assert double(2).result(timeout=40) == 4
    assert len((tmp_path / "out").read_text().split()) == 2


def test_a_task_that_kills_three_workers_is_stopped_and_named(config, tmp_path):
    with flow.load(config()):
        error = end_worker("kill", str(tmp_path / "out")).exception(timeout=40)
        assert isinstance(error, TaskKillsWorkers)
        assert len(set(re.findall(r"pid (\d+)", str(error)))) == 1  # that of the worker that died, not of the first one
    assert len((tmp_path / "out").read_text().split()) == 3


def test_another_python_on_the_nodes_is_named(config, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sitecustomize.py").write_text("import platform\nplatform.python_version = lambda: '3.9.1'\n")
    provider = {"worker_init": f"export PYTHONPATH={tmp_path / 'other'}:$PYTHONPATH"}
    with flow.load(config(provider=provider)):
        error = double(1).exception(timeout=40)
    assert isinstance(error, ExecutorBroken)
    assert "Python 3.9.1" in str(error)
    assert "worker_init" in str(error)


def test_a_package_that_is_missing_on_the_worker_is_named(config):
    with flow.load(config()):
        error = use_missing_package().exception(timeout=40)
        assert isinstance(error, ModuleNotFoundError)
        assert "no_such_package_anywhere" in str(error)
        assert double(2).result(timeout=40) == 4


_NOT_ON_NODES = "import os\nif 'FLOW_WORKER_RANK' in os.environ: raise ImportError('not on this node')\n"


def test_a_function_of_a_module_that_the_worker_has_not_travels_by_value(config, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text(f"{_NOT_ON_NODES}def triple(x): return 3 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    with flow.load(config()):
        assert python_app(only_here.triple)(1).result(timeout=40) == 3


def test_a_module_that_the_worker_has_not_and_that_cannot_travel_is_named(config, tmp_path, monkeypatch):
    (tmp_path / "locked_here.py").write_text(
        f"{_NOT_ON_NODES}import threading\nLOCK = threading.Lock()\n"
        "def triple(x):\n    with LOCK:\n        return 3 * x\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import locked_here

    with flow.load(config()):
        error = python_app(locked_here.triple)(1).exception(timeout=40)
        assert error is not None
        assert "locked_here" in str(error) or "not on this node" in str(error)
        assert double(2).result(timeout=40) == 4


def test_a_result_beyond_the_limit_is_refused_by_name(config):
    with flow.load(config(max_result_bytes=10_000)):
        assert len(large(1000).result(timeout=40)) == 1000
        error = large(20_000).exception(timeout=40)
        assert isinstance(error, SerializationError)
        assert "max_result_bytes" in str(error)


_FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
from pathlib import Path
from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_core.testing.recording import run_id_in
from flow_executors.testing.local_run import make_executor
driver = Driver(make_executor(), Path(sys.argv[1]), 30.0)
try:
    driver.start()
    print("value", driver.outcome(driver.submit(calls.double, 4)).value)
    driver.shutdown()
except Exception as error:
    print(type(error).__name__, error)
"""


def test_too_few_file_descriptors_are_named(tmp_path):
    command = [sys.executable, "-c", _FEW_FILES, str(tmp_path / "few"), "18"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)
    assert "Too many open files" in done.stdout + done.stderr, done
    wait_gone(run_id_in(tmp_path / "few"))


@python_app
def slow_mark(path, seconds):
    import time

    with open(path, "a") as file:
        file.write("x")
    time.sleep(seconds)
    return seconds


def test_a_long_task_goes_on_and_runs_once_though_the_interchange_is_killed_twice(config, tmp_path):
    kernel = flow.load(config())
    try:
        mark = tmp_path / "mark"
        future: AppFuture[object] = slow_mark(str(mark), 1.5)
        wait_until(mark.exists, "the task did not start")
        for _ in range(2):
            pids = [pid for pid, words in processes_of(kernel.run_id).items() if "interchange" in words]
            os.kill(pids[0], signal.SIGKILL)
            wait_until(
                lambda gone=pids[0]: any(
                    "interchange" in words and pid != gone for pid, words in processes_of(kernel.run_id).items()
                ),
                "no new interchange",
            )
        assert future.result(timeout=40) == 1.5
        assert mark.read_text() == "x"
    finally:
        kernel.cleanup()
        flow.clear()


def test_the_soft_limit_of_descriptors_is_raised_on_the_nodes(config):
    with flow.load(config()):
        soft, hard = python_app(resource.getrlimit)(resource.RLIMIT_NOFILE).result(timeout=40)
    assert soft == hard


def test_an_address_that_nobody_can_reach_is_explained(config):
    elsewhere = "{python} -m flow_executors.manager {options} --addresses=127.0.0.9"
    with flow.load(config(heartbeat_threshold=1, launch_cmd=elsewhere)):
        error = double(1).exception(timeout=50)
    assert isinstance(error, (ExecutorBroken, ExecutorError))
    assert "127.0.0.9 (refused)" in str(error)
    assert "address" in str(error)

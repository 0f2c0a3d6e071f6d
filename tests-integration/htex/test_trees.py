"""All that a task has started ends with it, when it is killed, cancelled, beyond its walltime, or its block ends."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

import flow_core as flow
from flow_core import bash_app, python_app
from flow_core.errors import AppTimeout
from flow_core.remote.processes import look
from flow_executors.testing.local_run import wait_until

pytestmark = pytest.mark.slow

WAYS = {
    "daemon": "(setsid {} &)",
    "own session": "setsid {} &",
    "other environment": "setsid env -i PATH=$PATH {} &",
    "plain": "{} &",
}


def marking(path):
    """Return a command that leaves its pid in a file and sleeps for long."""
    return f"bash -c 'echo $$ > {path}.new; mv {path}.new {path}; exec sleep 600'"


@bash_app
def start(commands, last="sleep 600"):
    return "\n".join([*commands, last])


@bash_app(walltime=3)
def start_for_a_while(commands):
    return "\n".join([*commands, "sleep 600"])


@python_app(walltime=3)
def start_from_python(commands):
    import os
    import subprocess
    import time

    for command in commands:
        subprocess.Popen(["bash", "-c", command])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open("forked.new", "w") as file:
                file.write(str(os.getpid()))
            os.rename("forked.new", "forked")
            time.sleep(600)
        os._exit(0)
    time.sleep(600)


@python_app
def double(x):
    return 2 * x


@python_app
def worker_pid():
    import os

    return os.getpid()


class Started:
    """Files of pids of what a task has started, each in another way."""

    def __init__(self, directory, *more):
        self._files = {name: directory / name.replace(" ", "_") for name in WAYS}
        self.commands = [WAYS[name].format(marking(path)) for name, path in self._files.items()]
        self._files |= {name: directory / name for name in more}

    def wait(self):
        """Wait until all run; return their pids by what they are."""
        wait_until(lambda: all(path.exists() for path in self._files.values()), "not all was started")
        return {name: int(path.read_text()) for name, path in self._files.items()}


def gone(pid):
    process = look(pid)
    return process is None or process.state in "ZX"


def check_gone(pids, spared=()):
    left = {name for name in pids if name not in spared}
    wait_until(lambda: all(gone(pids[name]) for name in left), f"not all have ended: {pids}", 10)
    assert not [name for name in spared if gone(pids[name])]


@pytest.fixture
def started(tmp_path, monkeypatch):
    """What a task is to start."""
    monkeypatch.chdir(tmp_path)
    made = Started(tmp_path)
    yield made
    for path in made._files.values():
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(path.read_text()), signal.SIGKILL)


def test_cancelling_a_running_task_ends_all_that_it_started(config, started):
    with flow.load(config()):
        future = start(started.commands)
        pids = started.wait()
        assert future.cancel(kill=True)

        check_gone(pids)
        assert double(2).result(timeout=30) == 4


def test_the_walltime_of_a_command_ends_all_that_it_started(config, started):
    with flow.load(config()):
        future = start_for_a_while(started.commands)
        pids = started.wait()
        assert isinstance(future.exception(timeout=30), AppTimeout)
        check_gone(pids)


def test_the_walltime_of_a_python_app_ends_all_that_it_started(config, started, tmp_path):
    started._files["forked"] = tmp_path / "forked"
    with flow.load(config()):
        future = start_from_python(started.commands)
        pids = started.wait()
        assert isinstance(future.exception(timeout=30), AppTimeout)
        assert not gone(pids.pop("other environment"))  # nothing tells whose it was, once its parents have ended
        check_gone(pids)
        assert double(2).result(timeout=30) == 4


def test_the_death_of_a_worker_ends_what_can_be_known_of_its_task(config, started):
    with flow.load(config({"infrastructure_retries": 0})):
        worker = worker_pid().result(timeout=40)
        future = start(started.commands)
        pids = started.wait()
        os.kill(worker, signal.SIGKILL)
        assert future.exception(timeout=30) is not None
        check_gone({name: pid for name, pid in pids.items() if name != "other environment"})
    check_gone(pids)  # at the latest with the run


def test_what_a_successful_task_left_running_is_spared_by_the_end_of_a_later_one(config, started):
    with flow.load(config()):
        begun = " ".join(f"[ -e {path} ] &&" for path in started._files.values())
        start(started.commands, f"until {begun} true; do sleep 0.01; done").result(timeout=40)
        pids = started.wait()
        future = start_for_a_while([])
        assert isinstance(future.exception(timeout=30), AppTimeout)
        assert not [name for name, pid in pids.items() if gone(pid)]
        wait = start(["touch running"])
        wait_until(lambda: os.path.exists("running"), "it does not run")
        wait.cancel(kill=True)
        assert double(2).result(timeout=30) == 4  # by the next worker
        check_gone(pids, spared=("daemon", "own session", "other environment"))
    check_gone(pids)

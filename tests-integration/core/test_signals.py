"""Signals to a script with worker processes: it ends by the signal, and takes everything with it."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

_FAILING = """
import os, signal, sys
import flow

@flow.python_app
def divide(x, y):
    return x / y

flow.load(flow.Config(executors=[flow.ThreadPoolExecutor()]))
divide(1, 0)
flow.dfk().wait_for_current_tasks()
os.kill(os.getpid(), getattr(signal, sys.argv[1]))
signal.pause()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_script_that_a_signal_ends_tells_of_failures_that_nobody_looked_at(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", _FAILING, name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == -getattr(signal, name), done.stderr
    assert done.stderr.count("1 task failed and nobody looked") == 1
    assert "1 x ZeroDivisionError, such as task 0 (divide)" in done.stderr


_SCRIPT = """
import multiprocessing, os, signal, sys, time
import flow

@flow.python_app
def pid():
    import os
    return os.getpid()

@flow.python_app
def long():
    import pathlib, time
    pathlib.Path("mark").touch()
    time.sleep(50)

def child():
    print("child", signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, flush=True)

with flow.load(flow.Config(executors=[flow.HighThroughputExecutor(max_workers=1)])):
    print(pid().result(), flush=True)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=child)
    process.start()
    process.join()
    future = long()
    while not os.path.exists("mark"):
        time.sleep(0.05)
    print("running", flush=True)
    future.result()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_script_and_its_workers(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        worker = int(process.stdout.readline())
        assert process.stdout.readline() == "child True\n"
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=50)
    finally:
        process.kill()
        process.communicate(timeout=10)  # which closes its pipes as well
    assert process.returncode == -number, err
    assert ("Traceback" in err) == (number == signal.SIGINT), err
    assert _gone(worker)
    assert "1 cancelled" in (tmp_path / "runinfo" / "000" / "flow.log").read_text().splitlines()[-1]


def _in_session_of(terminal: int) -> None:
    """In the child: begin a session whose terminal this is, as sshd and terminal programs do."""
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_a_closed_terminal_ends_the_script_and_its_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    ours, theirs = pty.openpty()
    told = tmp_path / "told"
    with told.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=tmp_path,
            stdin=theirs,
            stdout=out,
            stderr=theirs,
            preexec_fn=lambda: _in_session_of(theirs),
        )
    os.close(theirs)
    try:
        assert _within(30, lambda: "running\n" in told.read_text())
        os.close(ours)  # what a dropped connection does
        process.wait(50)
    finally:
        process.kill()
        process.wait(10)
    assert process.returncode == -signal.SIGHUP
    assert _gone(int(told.read_text().split()[0]))
    log = (tmp_path / "runinfo" / "000" / "flow.log").read_text()
    assert "SIGHUP: cleaning up" in log
    assert "1 cancelled" in log.splitlines()[-1]


def _within(seconds: float, done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if done():
            return True
        time.sleep(0.05)
    return False


def _gone(pid: int) -> bool:
    return _within(20, lambda: not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

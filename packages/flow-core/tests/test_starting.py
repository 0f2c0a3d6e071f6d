"""Processes are started while no other thread forks, and neither waits for the other for ever."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import pytest

from flow_core import starting as module
from flow_core.starting import _ForkLock, starting

SOON_S = 30.0

_FORKING = """
import os, signal, subprocess, threading
from flow_core.starting import starting
done = []
def start():
    for _ in range(150):
        with starting():
            process = subprocess.Popen(["true"])
        process.wait()
    done.append(1)
threads = [threading.Thread(target=start, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
children = []
while len(done) < 2 and len(children) < 400:
    pid = os.fork()
    if not pid:
        signal.pause()
    children.append(pid)
for thread in threads:
    thread.join(10)
ended = len(done)
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print(ended)
"""


def test_processes_that_are_forked_while_others_start_hold_none_of_them_up() -> None:
    done = subprocess.run([sys.executable, "-c", _FORKING], capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout == "2\n", done.stderr


def _apart(function: object) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


class Turns:
    """Forks and starts of several threads, without processes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turns = _ForkLock()
        monkeypatch.setattr(module, "_fork_lock", self.turns)

    def begin_fork(self) -> threading.Event:
        """Begin a fork on another thread; return what is set once it may fork."""
        begun = threading.Event()

        def fork() -> None:
            self.turns.begin_fork()
            begun.set()

        _apart(fork)
        return begun


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    return Turns(monkeypatch)


def test_a_fork_waits_for_a_start_of_another_thread(turns: Turns) -> None:
    with starting():
        begun = turns.begin_fork()
        assert not begun.wait(0.2)
    assert begun.wait(SOON_S)


def test_a_start_waits_for_a_fork_of_another_thread(turns: Turns) -> None:
    forked, started = threading.Event(), threading.Event()
    begun = threading.Event()

    def fork() -> None:
        turns.turns.begin_fork()
        begun.set()
        forked.wait(SOON_S)
        turns.turns.end_fork()

    def start() -> None:
        with starting():
            started.set()

    _apart(fork)
    assert begun.wait(SOON_S)
    _apart(start)
    assert not started.wait(0.2)
    forked.set()
    assert started.wait(SOON_S)


def test_starts_do_not_wait_for_each_other(turns: Turns) -> None:
    started = threading.Event()

    def start() -> None:
        with starting():
            started.set()

    with starting():
        _apart(start)
        assert started.wait(SOON_S)


def test_a_thread_does_not_wait_for_itself(turns: Turns) -> None:
    with starting():
        turns.turns.begin_fork()  # as the hooks of a fork do in the midst of a start
        turns.turns.end_fork()
    turns.turns.begin_fork()
    with starting():
        turns.turns.end_fork()


@pytest.mark.parametrize("what", ["start", "fork"])
def test_what_hangs_holds_the_other_up_for_a_while_only(
    what: str, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    if what == "start":
        with starting():
            assert turns.begin_fork().wait(SOON_S)
    else:
        assert turns.begin_fork().wait(SOON_S)
        with starting():
            pass


def test_a_start_that_was_interrupted_before_its_body_holds_no_fork_up(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 10 * SOON_S)
    start = starting()
    start.__enter__()
    del start  # without __exit__: an exception came asynchronously
    gc.collect()
    assert turns.begin_fork().wait(SOON_S)

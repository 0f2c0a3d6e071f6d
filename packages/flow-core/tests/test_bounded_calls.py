"""Calls that are waited for no longer than is wanted."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from flow_core.bounded_calls import BoundedCall, WorkAside, start_unless_ending


@pytest.fixture
def aside() -> Iterator[WorkAside]:
    aside = WorkAside("aside")
    yield aside
    aside.close()


def test_a_call_is_waited_for_as_long_as_it_works(aside: WorkAside) -> None:
    ended = threading.Event()

    def works() -> None:
        until = time.thread_time() + 0.8
        while time.thread_time() < until:
            pass
        ended.set()

    assert aside.ends(0.4, works)
    assert ended.is_set()


def test_a_call_that_does_nothing_is_given_up(aside: WorkAside) -> None:
    release = threading.Event()
    assert not aside.ends(0.1, lambda: release.wait(30))
    release.set()


def test_what_a_call_raises_comes_out(aside: WorkAside) -> None:
    def fails() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit, match="3"):
        aside.ends(5, fails)


def test_calls_are_made_by_one_thread_until_one_hangs(aside: WorkAside) -> None:
    threads: list[int] = []
    release = threading.Event()

    def call() -> None:
        threads.append(threading.get_ident())

    assert aside.ends(30, call)
    assert aside.ends(30, call)
    assert not aside.ends(0.1, lambda: release.wait(30))
    assert aside.ends(30, call)
    release.set()
    first, second, third = threads
    assert first == second != third


def test_work_of_an_earlier_call_is_none_of_the_next_one(aside: WorkAside) -> None:
    def works() -> None:
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            pass

    assert aside.ends(30, works)
    began, release = threading.Event(), threading.Event()
    waiting = BoundedCall("waits", lambda: (began.set(), release.wait(30)), begin=aside._begin)
    assert began.wait(30)
    assert waiting.worked_ns() < 50_000_000
    release.set()


def at_exit(text: str) -> str:
    """Return what a script writes that makes calls while the interpreter ends."""
    script = (
        "import atexit, threading\n"
        f"from flow_core.bounded_calls import keep_in_reserve, start_unless_ending, within\n{text}"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert not ended.stderr
    return ended.stdout


def test_calls_are_bounded_while_the_interpreter_ends() -> None:
    hangs = "within(0.2, lambda: threading.Event().wait(50), 'hangs')"
    text = f"keep_in_reserve(2)\natexit.register(lambda: print({hangs}, {hangs}))"
    assert at_exit(text) == "False False\n"


def test_a_thread_of_the_reserve_makes_one_call_after_the_other() -> None:
    call = "within(20, lambda: done.append(threading.get_ident()), 'call')"
    calls = f"[{call} for _ in range(50)].count(True)"
    text = f"done = []\nkeep_in_reserve(1)\natexit.register(lambda: print({calls}, len(done)))"
    assert at_exit(text) == "50 50\n"


def test_calls_beyond_the_reserve_are_made_by_the_caller() -> None:
    text = "atexit.register(lambda: print(within(20, lambda: print('made'), 'call')))"
    assert at_exit(text) == "made\nTrue\n"


def test_a_thread_that_cannot_start_since_the_interpreter_ends_is_told() -> None:
    text = """
def start():
    try:
        threading.Thread(target=int, daemon=True).start()
    except RuntimeError:
        return False
    return True

atexit.register(lambda: print(start() == start_unless_ending(threading.Thread(target=int, daemon=True))))
"""
    assert at_exit(text) == "True\n"


def test_any_other_reason_why_a_thread_cannot_start_is_raised() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    with pytest.raises(RuntimeError, match="once"):
        start_unless_ending(thread)

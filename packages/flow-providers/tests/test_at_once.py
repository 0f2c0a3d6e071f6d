"""Calls that are made at once, also where no thread can be started."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from flow_providers.at_once import NotAnsweredError, at_once

LIMIT_S = 20.0


def test_calls_are_made_at_the_same_time() -> None:
    met = threading.Barrier(3)
    answers = at_once([lambda: met.wait(LIMIT_S)] * 3)
    assert sorted(answer.result() for answer in answers) == [0, 1, 2]


def test_each_call_has_its_own_answer_and_error() -> None:
    def fails() -> int:
        raise OSError("gone")

    first, second, third = at_once([lambda: 1, fails, lambda: 3])
    assert (first.result(), third.result()) == (1, 3)
    with pytest.raises(OSError, match="gone"):
        second.result()


def test_calls_are_made_while_the_interpreter_ends() -> None:
    script = """
import atexit
from flow_providers.at_once import at_once
atexit.register(lambda: print([answer.result() for answer in at_once([lambda: 1, lambda: 2, lambda: 3])]))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("[1, 2, 3]\n", "")


def test_a_call_with_a_limit_is_left_when_its_time_is_over() -> None:
    release = threading.Event()
    try:
        hangs, answers = at_once([lambda: release.wait(LIMIT_S), lambda: True], [0.05, None])
        assert answers.result()
        with pytest.raises(NotAnsweredError):
            hangs.result()
    finally:
        release.set()

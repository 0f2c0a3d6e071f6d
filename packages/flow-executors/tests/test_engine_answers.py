"""Answers: an engine that hangs is told from one that answers, and from a script that hung itself."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from flow_executors.engines.answers import Answers

pytestmark = pytest.mark.timeout(30)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def ended(answers: Answers) -> None:
    """Wait until the open question has ended."""
    assert answers._open is not None
    answers._open._done.wait(20)


def raising(error: Exception) -> Callable[[], None]:
    def ask() -> None:
        raise error

    return ask


def test_an_engine_that_answers_is_never_silent() -> None:
    clock = Clock()
    answers = Answers(lambda: None, "ask", clock=clock)
    for _ in range(5):
        assert answers.silent_s() == 0.0
        ended(answers)
        clock.now += 1.5


def test_seconds_without_an_answer_are_counted_until_one_comes() -> None:
    clock, answer = Clock(), threading.Event()
    answers = Answers(lambda: answer.wait(20), "ask", clock=clock)
    answers.silent_s()
    for _ in range(3):
        clock.now += 1.0
        silent_s = answers.silent_s()
    assert silent_s == 3.0
    answer.set()
    ended(answers)
    assert answers.silent_s() == 0.0


def test_a_script_that_was_stopped_does_not_take_its_engine_for_silent() -> None:
    clock, answer = Clock(), threading.Event()
    answers = Answers(lambda: answer.wait(20), "ask", clock=clock)
    answers.silent_s()
    clock.now += 3600.0
    assert answers.silent_s() <= 2.0
    answer.set()


def test_an_error_of_the_connection_is_no_answer() -> None:
    clock = Clock()
    answers = Answers(raising(ConnectionError("refused")), "ask", clock=clock)
    for turn in range(4):
        assert answers.silent_s() == float(turn)
        ended(answers)
        clock.now += 1.0


def test_an_error_of_the_engine_is_an_answer() -> None:
    clock = Clock()
    answers = Answers(raising(ValueError("no engines registered")), "ask", clock=clock)
    for _ in range(4):
        assert answers.silent_s() == 0.0
        ended(answers)
        clock.now += 1.0

"""What is to be done when the process ends by SIGTERM or SIGHUP, which no handler of ``atexit`` outlives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from flow_core.bounded_calls import BoundedCall, NoAnswerError

LAST_CALLS_S = 6.0
"""Seconds that all last calls have together."""
_calls: list[Callable[[], object]] = []


def at_termination(call: Callable[[], object]) -> None:
    """Have something called, once, on a thread of its own when all kernels are cleaned up after such a signal.

    It has some seconds. What it raises is dropped: there is nobody left to tell.
    """
    if call not in _calls:
        _calls.append(call)


def make_last_calls() -> None:
    """Make the calls, at once. Blocks for ``LAST_CALLS_S`` at most; never raises."""
    for ending in [BoundedCall("flow-terminate-last", call) for call in _calls]:
        with suppress(NoAnswerError, Exception):
            ending.wait(LAST_CALLS_S / len(_calls))

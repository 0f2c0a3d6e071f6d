"""What is made of where a task is: causes for users."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings, strategies as st

from flow_core.errors import ExecutorError
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.waiting import Cause, CauseKind
from flow_executors.pending_reasons import causes_of
from flow_executors.wire.commands import Whereabouts

KEY = TryKey(1)
BLOCK = Cause(CauseKind.BLOCK, "block 0 is pending")


class Client:
    """A client that knows one task, and where it is."""

    def __init__(self, place: Whereabouts | Exception) -> None:
        self.place = place
        self.outstanding = 7
        self.credit = SimpleNamespace(managers=0, slots=0)

    def knows(self, key: TryKey) -> bool:
        return key == KEY

    def whereabouts(self, key: TryKey, timeout_s: float) -> Whereabouts:
        if isinstance(self.place, Exception):
            raise self.place
        return self.place


def causes(place: Whereabouts | Exception, key: TryKey = KEY, held: Mapping[str, str] | None = None) -> list[Cause]:
    plan = SimpleNamespace(heartbeat_period_s=30.0, heartbeat_threshold_s=120.0)
    scaler = SimpleNamespace(why_waiting=lambda: [BLOCK])
    runtime: Any = SimpleNamespace(client=Client(place), label="htex", plan=plan, scaler=scaler, keeper=None)
    if held is not None:
        runtime.keeper = SimpleNamespace(reasons=lambda: held)
    return causes_of(runtime, key, 1.0)


def texts(place: Whereabouts | Exception) -> list[str]:
    return [cause.text for cause in causes(place)]


def test_a_task_that_was_not_sent_waits_for_others_of_its_kind() -> None:
    (held, block) = causes(Whereabouts("script", 1234, managers=1, slots=4))
    assert held.kind is CauseKind.BACK_PRESSURE
    assert held.text == "1,234 tasks are ahead of it in the script: enough of its kind are out at 'htex' already"
    assert block is BLOCK


def test_a_queue_priorities_and_resources_are_all_told_at_once() -> None:
    place = Whereabouts("queue", 9, 2, needs=8, most_free=3, closed=1, reserved=1, managers=2, slots=16, busy=13)
    assert texts(place) == [
        "9 tasks are ahead of it in the queue, 13 of 16 workers of 'htex' busy",
        "of the tasks ahead of it 2 tasks have a higher priority",
        "it needs 8 workers of one node at once, of which at most 3 are free now",
        "1 node takes nothing new: held, draining, or out of reach (of 2 that are connected)",
        "1 node is kept free for a task that needs more room",
        "block 0 is pending",
    ]


def test_a_task_on_a_node_that_is_held_since_is_told_that() -> None:
    place = Whereabouts("manager", manager="m", node="n", block="0", outstanding=1, workers=4, managers=2)
    running, hold = causes(place, held={"n": "it failed", "other": "it failed"})
    assert (running.kind, hold.kind) == (CauseKind.RUNNING, CauseKind.HELD)
    assert hold.text == "node n is held and gets no more tasks: it failed (free it by: flow nodes free n)"


def test_a_manager_that_is_silent_is_named() -> None:
    place = Whereabouts("manager", manager="m", node="n", block="0", outstanding=1, workers=4, managers=1)
    assert [cause.kind for cause in causes(place)] == [CauseKind.RUNNING]
    (silent,) = causes(replace(place, silent_s=95.0, started_ns=time.time_ns() - 200 * 10**9))
    assert silent.kind is CauseKind.NO_WORKER
    assert re.fullmatch(
        r"the link is down, or the node is: manager m of 'htex' \(block 0, node n\) ran it since .* \(3 min\), as "
        r"far as was heard, and has been silent since .* \(95 s\), though it speaks every 30 s: it counts as lost "
        r"after 120 s",
        silent.text,
    )
    (unbegun,) = causes(replace(place, silent_s=95.0))
    assert "has it, and had not begun it" in unbegun.text


def test_no_answer_is_told_beside_what_is_known() -> None:
    unknown, block = causes(ExecutorError("the interchange of htex did not answer 'why' in 1 s"))
    assert unknown.kind is CauseKind.UNKNOWN
    assert "did not answer" in unknown.text
    assert block is BLOCK


def test_what_the_executor_has_not_got_has_no_cause() -> None:
    assert causes(Whereabouts("queue"), TryKey(2)) == []


@settings(max_examples=200, deadline=None)
@given(
    st.builds(
        Whereabouts,
        at=st.sampled_from(["script", "sent", "queue", "manager", ""]),
        ahead=st.integers(0, 9),
        urgent=st.integers(0, 9),
        misfits=st.sampled_from([(), ("it asks for 8 cores, the node's workers have 4",)]),
        needs=st.integers(1, 9),
        most_free=st.integers(0, 9),
        cramped=st.booleans(),
        closed=st.integers(0, 2),
        reserved=st.integers(0, 2),
        managers=st.integers(0, 2),
        started_ns=st.integers(0, 1 << 60),
        silent_s=st.floats(0, 1e6).filter(math.isfinite),
    )
)
def test_wherever_a_task_is_there_is_a_cause(place: Whereabouts) -> None:
    found = causes(place)
    assert found
    assert all(cause.text and not cause.text.endswith(".") for cause in found)

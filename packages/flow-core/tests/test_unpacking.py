"""Results that are unpickled elsewhere: reported together, and none holds the others up."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence

from hypothesis import given, strategies as st

from flow_core.errors import ExecutorError
from flow_core.futures.callbacks import packing_calls
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.outcome import Outcome, Verdict
from flow_core.kernel.unpacking import Unpacking
from flow_core.remote.naming import names_globals

SOON_S = 30.0


class Reports:
    """What was reported."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.batches: list[list[int]] = []
        self.outcomes: dict[int, Outcome] = {}
        self.unpacking = Unpacking(self.finished, lambda key: None)

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        with self.changed:
            self.batches.append([outcome.key for outcome in outcomes])
            self.outcomes.update({outcome.key: outcome for outcome in outcomes})
            self.changed.notify_all()

    def wait_for(self, *keys: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.outcomes.keys() >= set(keys), SOON_S), self.batches


def _made(key: int) -> tuple[TryKey, Callable[[], Outcome]]:
    return TryKey(key), lambda: Outcome(TryKey(key), Verdict.OK, key)


def test_results_that_come_together_are_reported_together() -> None:
    reports = Reports()
    reports.unpacking.take([_made(key) for key in range(5)])
    reports.wait_for(*range(5))
    assert reports.batches == [[0, 1, 2, 3, 4]]


def test_a_result_that_hangs_is_left_behind_by_the_others_and_reported_when_it_comes() -> None:
    reports, gate = Reports(), threading.Event()

    def hangs() -> Outcome:
        gate.wait(SOON_S)
        return Outcome(TryKey(1), Verdict.OK, 1)

    try:
        reports.unpacking.take([_made(0), (TryKey(1), hangs), _made(2)])
        reports.wait_for(0, 2)
        assert 1 not in reports.outcomes
    finally:
        gate.set()
    reports.wait_for(1)
    assert packing_calls.drain(SOON_S)
    assert sorted(key for batch in reports.batches for key in batch) == [0, 1, 2]


def test_what_raises_after_all_is_an_outcome_too() -> None:
    reports = Reports()

    def raises() -> Outcome:
        raise SystemExit(3)

    reports.unpacking.take([(TryKey(1), raises), _made(2)])
    reports.wait_for(1, 2)
    assert isinstance(reports.outcomes[1].error, ExecutorError)


class Mine:
    """A class of a user's."""


@given(st.lists(st.integers(-100, 100) | st.text(alphabet="abc") | st.floats(0, 1) | st.none()), st.integers(0, 5))
def test_a_class_in_a_pickle_is_found_wherever_it_is(value: list[object], depth: int) -> None:
    hidden: object = Mine()
    for _ in range(depth):
        hidden = {"key": [hidden]}
    assert names_globals(pickle.dumps([*value, hidden], 5))
    assert names_globals(pickle.dumps([Mine, *value], 5))


@given(st.lists(st.integers(-100, 100) | st.text(alphabet="abc") | st.none(), max_size=100))
def test_pickles_of_plain_data_name_nothing(value: list[object]) -> None:
    assert not names_globals(pickle.dumps(value, 5))


def test_long_pickles_are_not_searched() -> None:
    assert names_globals(bytes(100_000))
    assert not names_globals(memoryview(bytes(1000)))

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.tracker import JobTracker

MISSING_AFTER = 60.0


@pytest.fixture
def tracker() -> JobTracker:
    tracker = JobTracker(MISSING_AFTER)
    tracker.submitted("1")
    return tracker


def ask(tracker: JobTracker, now: float, queue: dict[str, JobState], history: dict[str, JobState]) -> JobState:
    asked = tracker.asked(["1"])
    absent = tracker.listed(now, asked, {job: JobStatus(state) for job, state in queue.items()})
    tracker.looked_up(now, absent, {job: JobStatus(state) for job, state in history.items()})
    return tracker.status("1").state


def test_a_new_job_that_is_not_listed_yet_is_pending(tracker) -> None:
    assert ask(tracker, 0, {}, {}) is JobState.PENDING


def test_a_job_nobody_knows_for_long_is_missing(tracker) -> None:
    ask(tracker, 0, {"1": JobState.RUNNING}, {})
    assert ask(tracker, 100, {}, {}) is JobState.RUNNING
    assert ask(tracker, 159, {}, {}) is JobState.RUNNING
    assert ask(tracker, 160, {}, {}) is JobState.MISSING


def test_a_job_of_somebody_else_that_nobody_knows_is_missing_at_once() -> None:
    assert ask(JobTracker(MISSING_AFTER), 0, {}, {}) is JobState.MISSING


def test_a_job_that_left_the_queue_takes_its_state_from_history(tracker) -> None:
    ask(tracker, 0, {"1": JobState.RUNNING}, {})
    assert ask(tracker, 1, {}, {"1": JobState.TIMEOUT}) is JobState.TIMEOUT


def test_history_that_says_running_for_ever_is_not_believed(tracker) -> None:
    ask(tracker, 0, {"1": JobState.RUNNING}, {})
    assert ask(tracker, 1, {}, {"1": JobState.RUNNING}) is JobState.RUNNING
    assert ask(tracker, 61, {}, {"1": JobState.RUNNING}) is JobState.MISSING


def test_a_job_that_comes_back_to_the_queue_is_not_missing(tracker) -> None:
    ask(tracker, 0, {}, {})
    ask(tracker, 59, {"1": JobState.PENDING}, {})
    assert ask(tracker, 100, {}, {}) is JobState.PENDING


def test_an_answer_that_cannot_be_understood_keeps_the_state(tracker) -> None:
    ask(tracker, 0, {"1": JobState.RUNNING}, {})
    assert ask(tracker, 1, {"1": JobState.UNKNOWN}, {}) is JobState.RUNNING


def test_ended_jobs_are_not_asked_for_again(tracker) -> None:
    ask(tracker, 0, {"1": JobState.COMPLETED}, {})
    assert tracker.asked(["1"]) == []
    assert tracker.live() == []


def test_a_cancelled_job_that_nobody_knows_is_cancelled_at_once(tracker) -> None:
    tracker.cancelled("1")
    assert tracker.live() == []
    assert ask(tracker, 0, {}, {}) is JobState.CANCELLED


ANSWERS = st.dictionaries(
    st.sampled_from(["1", "2", "3", "other"]), st.sampled_from([s for s in JobState if s is not JobState.SCALED_IN])
)


class Tracking(RuleBasedStateMachine):
    """Any order of submissions, answers, silences and cancellations."""

    @initialize()
    def begin(self) -> None:
        self.tracker = JobTracker(MISSING_AFTER)
        self.now = 0.0
        self.known: set[str] = set()
        self.ended: dict[str, JobStatus] = {}
        self.silent_since: dict[str, float] = {}

    @rule(job=st.sampled_from(["1", "2", "3"]))
    def submit(self, job: str) -> None:
        self.tracker.submitted(job)
        self.known.add(job)
        self.ended.pop(job, None)
        self.silent_since.pop(job, None)

    @rule(job=st.sampled_from(["1", "2", "3"]))
    def cancel(self, job: str) -> None:
        self.tracker.cancelled(job)

    @rule(queue=ANSWERS, history=ANSWERS, later=st.floats(0, 100))
    def answer(self, queue: dict[str, JobState], history: dict[str, JobState], later: float) -> None:
        self.now += later
        self.known |= {"1", "2", "3"}
        asked = self.tracker.asked(["1", "2", "3"])
        absent = self.tracker.listed(self.now, asked, {j: JobStatus(s) for j, s in queue.items()})
        assert set(absent) == set(asked) - set(queue)
        self.tracker.looked_up(self.now, absent, {j: JobStatus(s) for j, s in history.items()})
        for job in asked:
            if job in queue:
                self.silent_since.pop(job, None)
            else:
                since = self.silent_since.setdefault(job, self.now)
                if self.now - since >= MISSING_AFTER:
                    assert self.tracker.status(job).terminal

    @invariant()
    def what_has_ended_stays_ended(self) -> None:
        for job, status in self.ended.items():
            assert self.tracker.status(job) == status
        for job in self.known:
            if self.tracker.status(job).terminal:
                self.ended[job] = self.tracker.status(job)

    @invariant()
    def live_jobs_are_not_terminal(self) -> None:
        assert not any(self.tracker.status(job).terminal for job in self.tracker.live())


TestTracking = Tracking.TestCase

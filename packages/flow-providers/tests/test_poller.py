from __future__ import annotations

from collections.abc import Iterator, Mapping
from queue import Queue

import pytest

from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.poller import JobPoller
from flow_testing.fake_provider import FakeProvider

Changes = Queue[Mapping[str, JobStatus]]


@pytest.fixture
def fake() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def changes() -> Changes:
    return Queue()


@pytest.fixture
def poller(fake: FakeProvider, changes: Changes) -> Iterator[JobPoller]:
    poller = JobPoller(fake, changes.put, interval_s=0.02)
    yield poller
    poller.close()


def test_a_watched_job_is_told_of_at_once_and_at_each_change(fake, poller, changes) -> None:
    job = fake.submit("x", 1)
    poller.watch([job])
    assert changes.get(timeout=10)[job].state is JobState.PENDING
    fake.move(job, JobState.RUNNING)
    assert changes.get(timeout=10)[job].state is JobState.RUNNING
    fake.move(job, JobState.FAILED, exit_code=3)
    assert changes.get(timeout=10)[job].exit_code == 3


def test_ended_jobs_are_not_asked_for_any_more(fake, poller, changes) -> None:
    job = fake.submit("x", 1)
    fake.move(job, JobState.COMPLETED)
    poller.watch([job])
    changes.get(timeout=10)
    asked: Changes = Queue()
    fake.status = lambda ids: asked.put(ids) or [JobStatus(JobState.RUNNING) for _ in ids]
    other = fake.submit("y", 1)
    poller.watch([other])
    assert asked.get(timeout=10) == [other]


def test_a_scheduler_that_is_away_changes_nothing(fake, poller, changes) -> None:
    job = fake.submit("x", 1)
    fake.go_away()
    poller.watch([job])
    fake.go_away(False)
    assert changes.get(timeout=10)[job].state is JobState.PENDING


def test_a_listener_that_fails_does_not_stop_the_polling(fake, changes) -> None:
    def fails_once(changed: Mapping[str, JobStatus]) -> None:
        changes.put(changed)
        if changes.qsize() == 1:
            raise ValueError("listener")

    poller = JobPoller(fake, fails_once, interval_s=0.02)
    first, second = fake.submit("x", 1), fake.submit("y", 1)
    poller.watch([first])
    changes_of_first = changes.get(timeout=10)
    changes.put(changes_of_first)
    poller.watch([second])
    changes.get(timeout=10)
    assert second in changes.get(timeout=10)
    poller.close()


def test_closing_twice_is_the_same_as_once(fake) -> None:
    poller = JobPoller(fake, lambda changed: None)
    poller.close()
    poller.close()

"""What blocks without workers are said to be to tasks that wait for one."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from flow_core.interfaces.scaling import BlockLimits
from flow_core.interfaces.waiting import CauseKind
from flow_executors.scaling.pending_reasons import block_causes
from flow_executors.scaling.scaling_core import ScalingCore
from flow_executors.scaling.strategies import simple
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus


def core(**limits: int) -> ScalingCore:
    return ScalingCore(BlockLimits(**{"init_blocks": 1, "max_blocks": 2, **limits}), simple)  # type: ignore[arg-type]


def texts(one: ScalingCore, now: float = 100.0) -> list[str]:
    return [cause.text for cause in block_causes(one, "htex", now)]


def submitted(one: ScalingCore, status: JobStatus | None = None, at: float = 40.0) -> str:
    name = one.new_block()
    one.submitted(name, f"job-{name}", at)
    if status is not None:
        one.changed(name, status, at)
    return name


def test_a_block_in_the_queue_says_since_when_and_for_which_reason_of_the_scheduler() -> None:
    one = core()
    submitted(one, JobStatus(JobState.PENDING, reason="QOSMaxJobsPerUserLimit"))
    (text,) = texts(one)
    assert text.startswith("block 0 of 'htex' (job job-0) is pending at its scheduler, submitted 60 s ago, for the ")
    assert text.endswith("scheduler's reason 'QOSMaxJobsPerUserLimit'")


def test_a_held_block_is_said_to_be() -> None:
    one = core()
    submitted(one, JobStatus(JobState.HELD))
    assert "is held at its scheduler, submitted 60 s ago, and its scheduler gives no reason" in texts(one)[0]


def test_a_block_that_runs_without_workers_is_told_from_one_whose_workers_left() -> None:
    one = core()
    name = submitted(one, JobStatus(JobState.RUNNING))
    assert "runs, submitted 60 s ago, but none of its workers has connected yet" in texts(one)[0]
    one.joined(name, 50.0)
    assert "on its way" in texts(one)[0]
    one.left(name, "", 60.0)
    assert "but has no worker left" in texts(one)[0]


def test_blocks_that_failed_are_told_with_the_last_reason_and_the_next_attempt() -> None:
    one = core()
    for at in (90.0, 100.0):
        one.not_submitted(one.new_block(), "sbatch: invalid account", at)
    failed, limit = texts(one)
    assert "2 blocks of 'htex' failed one after another; the last, block 1: FAILED, not submitted" in failed
    assert "sbatch: invalid account; the next is tried in " in failed
    assert "0 blocks of max_blocks=2, and none is on its way" in limit


def test_limits_are_told() -> None:
    assert "may have no block at all" in texts(core(max_blocks=0, init_blocks=0))[0]
    one = core(max_blocks=1)
    one.joined(submitted(one, JobStatus(JobState.RUNNING)), 50.0)
    assert texts(one) == ["'htex' has as many blocks as it may have (max_blocks=1)"]


_STATUS = st.builds(JobStatus, st.sampled_from(JobState), reason=st.sampled_from(["", "Resources"]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["submit", "fail", "join", "leave", "change", "release"]), _STATUS)))
def test_there_is_always_a_cause_and_few_are_listed(steps: list[tuple[str, JobStatus]]) -> None:
    one = core(max_blocks=9)
    for step, status in steps:
        names = list(one.blocks)
        if step == "submit" or not names:
            submitted(one)
        elif step == "fail":
            one.not_submitted(one.new_block(), "no", 1.0)
        elif step == "join":
            one.joined(names[-1], 2.0)
        elif step == "leave":
            one.left(names[-1], "", 2.0)
        elif step == "change":
            one.changed(names[-1], status, 2.0)
        else:
            one.release(names[0], 3.0)
        causes = block_causes(one, "htex", 100.0)
        assert 1 <= len(causes) <= 6
        assert {cause.kind for cause in causes} == {CauseKind.BLOCK}

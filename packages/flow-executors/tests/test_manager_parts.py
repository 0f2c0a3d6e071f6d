"""The small parts of a manager that decide something, without I/O."""

import sys
import types
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest
from hypothesis import given, strategies as st

from flow_core.interfaces.call import Resources, TaskSpec, TryKey
from flow_core.interfaces.outcome import Verdict
from flow_core.interfaces.sampler import Sample, SamplerSpec
from flow_core.remote.sampling import Sampling
from flow_executors.common.resources import Capacity, ResourceAllocation, ResourceRequest, unsatisfiable_reason
from flow_executors.manager.code_cache import TasksAwaitingCode
from flow_executors.manager.interchange_liveness import ConnectionState, InterchangeLiveness, Phase
from flow_executors.manager.manager_core import MAX_DEPTH, PrefetchEstimator
from flow_executors.manager.results import ResultBuffer
from flow_executors.manager.worker_pool import RespawnPolicy
from flow_executors.wire.results import unpack_results

HOME = "10.0.0.1"


# -- prefetching


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(1e-7, 100.0)), max_size=30), st.none() | st.integers(0, 200))
def test_the_depth_stays_within_the_pipe_and_the_cap(batches, limit):
    estimator = PrefetchEstimator(4, limit)
    for count, each_s in batches:
        estimator.learn(count, count * each_s)
        assert 1 <= estimator.depth <= MAX_DEPTH
        assert estimator.prefetch >= 0
        if limit is not None:
            assert estimator.prefetch <= limit


def test_the_depth_holds_about_twenty_milliseconds_of_work():
    estimator = PrefetchEstimator(1, None)
    for _ in range(50):
        estimator.learn(10, 10 * 0.004)
    assert estimator.depth == 4


def test_the_depth_does_not_flicker_with_small_changes():
    estimator = PrefetchEstimator(1, None)
    estimator.learn(10, 10 * 0.004)
    changes = [estimator.learn(10, 10 * (0.004 + 0.0008 * (turn % 3))) for turn in range(50)]
    assert not any(changes)


# -- demand


@given(
    st.lists(
        st.builds(
            ResourceRequest,
            slots=st.integers(1, 3),
            memory_mb=st.integers(0, 500),
            gpus=st.sampled_from([0, 0.25, 0.5, 1, 2]),
        ),
        max_size=30,
    )
)
def test_what_fits_never_exceeds_the_node_and_comes_back_whole(demands):
    ledger = ResourceAllocation(Capacity(6, memory_mb=1000, devices=("0", "1", "2")))
    taken = [(demand, ledger.take(demand)) for demand in demands if ledger.fits(demand)]
    assert ledger.slots <= 6
    assert ledger.memory_mb <= 1000
    assert all(used <= 1 + 1e-6 for used in ledger.devices.values())
    for demand, devices in taken:
        assert len(devices) == (max(1, int(demand.gpus)) if demand.gpus else 0)
        ledger.give_back(demand, devices)
    assert (ledger.slots, ledger.memory_mb) == (0, 0)
    assert all(used < 1e-6 for used in ledger.devices.values())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Resources(cores=8), "asks for 8 cores"),
        (Resources(memory_mb=5000), "asks for 5000 MB"),
        (Resources(gpus=2), "asks for 2 GPUs"),
        (Resources(gpus=1.5), "GPUs"),
    ],
)
def test_what_can_never_run_is_told_with_its_reason(asked, said):
    assert said in unsatisfiable_reason(asked, Capacity(4, memory_mb=1000, devices=("0",)))


def test_what_fits_has_no_reason_against_it():
    assert (
        unsatisfiable_reason(Resources(cores=4, memory_mb=1000, gpus=1), Capacity(4, memory_mb=1000, devices=("0",)))
        == ""
    )


def test_a_task_without_stated_memory_counts_as_much_as_a_worker():
    assert ResourceRequest.of(TaskSpec(Resources(cores=2)), Capacity(4, mem_per_worker_mb=50)).memory_mb == 100


# -- contact


def contact(now=0.0, threshold=10.0):
    return InterchangeLiveness(1.0, threshold, now)


def test_an_interchange_that_never_answered_is_given_up_after_the_threshold_naming_all_addresses():
    one = contact()
    reach = {HOME: ConnectionState.UNKNOWN, "192.168.1.1": ConnectionState.REFUSED}
    assert one.verdict(reach, "", 9.0) == ""
    said = one.verdict(reach, "", 11.0)
    assert "10.0.0.1 (no answer)" in said
    assert "192.168.1.1 (refused)" in said
    assert "flow_executors.addresses" in said


def test_an_interchange_where_nobody_listens_any_more_is_gone_after_two_seconds():
    one = contact(threshold=120.0)
    one.registered(30.0, 120.0, 0.0)
    one.lost(100.0)
    one.heard(100.0)
    assert one.verdict({HOME: ConnectionState.REFUSED}, HOME, 100.1) == ""
    assert one.verdict({HOME: ConnectionState.REFUSED}, HOME, 102.0) == ""
    assert "is gone" in one.verdict({HOME: ConnectionState.REFUSED}, HOME, 102.2)


def test_an_interchange_that_is_being_restarted_is_waited_for():
    one = contact(threshold=120.0)
    one.registered(30.0, 120.0, 0.0)
    one.lost(100.0)
    for now in range(100, 119):
        assert one.verdict({HOME: ConnectionState.OPEN}, HOME, float(now)) == ""


def test_silence_beyond_the_threshold_ends_even_an_open_connection():
    one = contact()
    one.registered(1.0, 10.0, 0.0)
    assert "silent" in one.verdict({HOME: ConnectionState.OPEN}, HOME, 10.5)
    one.heard(10.6)
    assert one.verdict({HOME: ConnectionState.OPEN}, HOME, 10.7) == ""


def test_a_key_that_is_not_accepted_for_a_while_ends_the_search():
    one = contact()
    assert one.verdict({HOME: ConnectionState.DENIED}, "", 0.1) == ""
    assert one.seek_again(0.7)
    assert one.verdict({HOME: ConnectionState.UNKNOWN}, "", 0.8) == ""
    assert "key" in one.verdict({HOME: ConnectionState.DENIED}, "", 3.2)


def test_heartbeats_are_due_once_a_period_while_registered():
    one = contact()
    assert not one.heartbeat_due(0.0)
    one.registered(2.0, 10.0, 0.0)
    assert [one.heartbeat_due(now) for now in (0.0, 1.0, 2.0, 2.5, 4.1)] == [True, False, True, False, True]
    one.lost(4.2)
    assert one.phase is Phase.SEEKING
    assert not one.heartbeat_due(9.0)


# -- respawn


def test_a_worker_that_died_at_work_is_replaced_at_once():
    respawn = RespawnPolicy()
    assert respawn.died(3, True, 10.0)
    assert respawn.due(10.0) == [3]
    assert respawn.due(10.0) == []


def test_workers_that_die_as_they_start_are_tried_three_times_with_pauses():
    respawn = RespawnPolicy()
    assert respawn.died(0, False, 10.0)
    assert respawn.due(10.0) == []
    assert respawn.deadline() == 10.5
    assert respawn.died(0, False, 11.0)
    assert not respawn.died(0, False, 13.0)


def test_one_worker_that_starts_well_restores_hope():
    respawn = RespawnPolicy()
    respawn.died(0, False, 0.0)
    respawn.died(0, False, 0.0)
    respawn.ready()
    assert respawn.died(0, False, 1.0)


# -- tasks that wait for code


def test_a_batch_waits_for_all_its_blobs():
    awaiting_code = TasksAwaitingCode()
    awaiting_code.park([b"a", b"b"], (0, [(1, memoryview(b""))]))
    assert awaiting_code.arrived(b"a") == []
    assert awaiting_code.missing() == {b"b"}
    assert [tasks[0][0] for _, tasks in awaiting_code.arrived(b"b")] == [1]
    assert not awaiting_code


def test_parked_tasks_can_be_taken_out():
    awaiting_code = TasksAwaitingCode()
    awaiting_code.park([b"a"], (0, [(1, memoryview(b"")), (2, memoryview(b""))]))
    assert awaiting_code.remove({2, 9}) == [2]
    assert awaiting_code.keys() == [1]


# -- outbox


def test_results_are_kept_until_they_are_acknowledged_and_sent_again_under_a_new_number():
    outbox = ResultBuffer()
    outbox.manager = 7
    outbox.add_frames(1, [(11, 5, 6, 0, b"x"), (12, 6, 7, 1, b"")])
    outbox.add(13, Verdict.CANCELLED)
    first = outbox.pack(1.0)
    outbox.add(14, Verdict.OK)
    outbox.pack(3.0)
    assert unpack_results(first).keys == (11, 12, 13)
    outbox.manager = 9
    again = [unpack_results(message) for message in outbox.unacknowledged()]
    assert [batch.manager for batch in again] == [9, 9]
    assert [batch.sequence for batch in again] == [1, 2]
    assert outbox.acknowledge(1, 5.0) == 4.0
    assert outbox.keys() == [14]
    assert outbox.acknowledge(1, 6.0) == 0.0
    assert outbox.acknowledge(2, 6.0) == 3.0
    assert not outbox.anything_unsent


class LastLooks:
    """A sampler that remembers what it was asked."""

    asked: ClassVar[list[tuple[str, dict[int, int]]]] = []

    def sample(self, running: Mapping[int, TryKey], now_ns: int) -> Sequence[Sample]:
        """Sample."""
        self.asked.append(("sample", dict(running)))
        return [Sample(now_ns, key, pid, 1, 0.0, 0.0, 0.0, 0, 0.0, 0, 0) for pid, key in running.items()]

    def ended(self, ended: Mapping[int, TryKey], now_ns: int) -> Sequence[Sample]:
        """Look a last time."""
        self.asked.append(("ended", dict(ended)))
        if 13 in ended.values():
            raise OSError("no")
        return [Sample(now_ns, key, pid, 1, 0.0, 0.0, 0.0, 0, 0.0, 0, 0) for pid, key in ended.items()]

    def close(self) -> None:
        """Close."""


def test_only_tasks_that_were_sampled_get_a_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("flow_test_sampler")
    module.LastLooks = LastLooks  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flow_test_sampler", module)
    monkeypatch.setattr(LastLooks, "asked", [])
    sampling = Sampling(SamplerSpec("flow_test_sampler:LastLooks", 1.0), 0.0)
    assert sampling.ended(5, [1, 2]) == ()
    assert [sample.key for sample in sampling.take({5: 11, 6: 12}, 1.0)] == [11, 12]
    assert sampling.due == 2.0
    assert sampling.ended(5, [1, 2]) == ()
    assert [sample.key for sample in sampling.ended(5, [10, 11])] == [11]
    assert sampling.ended(5, [11]) == ()
    assert LastLooks.asked == [("sample", {5: 11, 6: 12}), ("ended", {5: 11})]


def test_a_sampler_that_fails_is_asked_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("flow_test_sampler")
    module.LastLooks = LastLooks  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flow_test_sampler", module)
    sampling = Sampling(SamplerSpec("flow_test_sampler:LastLooks", 1.0), 0.0)
    assert len(sampling.take({5: 13}, 1.0)) == 1
    assert sampling.ended(5, [13]) == ()
    assert sampling.take({5: 14}, 2.0) == ()

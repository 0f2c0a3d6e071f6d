"""Messages of one task are those of a batch of one, and nothing else is taken for one."""

from __future__ import annotations

from hypothesis import given, strategies as st

from flow_core.interfaces.outcome import Verdict
from flow_executors.wire.results import pack_results, result_head, unpack_results
from flow_executors.wire.tasks import (
    TOLD_AT,
    mark_delivered,
    one_result,
    one_task,
    pack_record,
    pack_result,
    pack_task,
    pack_tasks,
)

_KEYS = st.integers(0, 2**64 - 1)
_TIMES = st.integers(-(2**63), 2**63 - 1)


@given(st.binary(min_size=16, max_size=16), _KEYS, st.binary(max_size=200))
def test_a_task_is_packed_as_a_batch_of_one(digest: bytes, key: int, payload: bytes) -> None:
    record = pack_record(digest, key, 0, payload)
    message = pack_task(digest, key, record)
    assert message == pack_tasks(0, (digest,), (key,), (len(record),), record)
    assert one_task(message) == (digest, key, record)


@given(st.integers(0, 3), st.integers(0, 2), st.integers(0, 3))
def test_other_batches_are_not_taken_for_one_task(class_id: int, digests: int, tasks: int) -> None:
    record = pack_record(b"d" * 16, 1, class_id, b"")
    message = pack_tasks(class_id, [b"d" * 16] * digests, range(tasks), [len(record)] * tasks, record * tasks)
    assert (one_task(message) is not None) == ((class_id, digests, tasks) == (0, 1, 1))


@given(_KEYS, _TIMES, _TIMES, _TIMES, st.integers(0, 2**16 - 1), st.binary(max_size=200))
def test_one_result_is_read_as_a_batch_of_one(
    key: int, offset: int, start: int, end: int, worker: int, payload: bytes
) -> None:
    message = pack_results(7, 3, offset, [key], [start], [end], [worker], [Verdict.OK], [payload])
    assert message == pack_result(7, 3, offset, key, start, end, worker, Verdict.OK, payload)
    batch = unpack_results(message)
    assert one_result(message) == (7, offset, *batch.keys, *batch.starts, *batch.ends, *batch.workers, payload)
    told = mark_delivered(message)
    assert one_result(told) == one_result(message)
    assert result_head(told) == result_head(message)
    assert (message[TOLD_AT], told[TOLD_AT]) == (0, 1)


@given(st.integers(0, 255), st.integers(0, 3))
def test_results_with_more_to_say_are_left_to_the_general_reader(status: int, count: int) -> None:
    zeros = [0] * count
    message = pack_results(1, 1, 0, range(count), zeros, zeros, zeros, [status] * count, [b"x"] * count)
    assert (one_result(message) is not None) == (count == 1 and status == Verdict.OK)


@given(st.binary(max_size=100))
def test_noise_is_neither(noise: bytes) -> None:
    assert one_task(noise) is None
    assert one_result(noise) is None

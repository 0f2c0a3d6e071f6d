"""A large result passes from the worker's file to the client's; where that cannot be, it goes into the message."""

from __future__ import annotations

import os
import pickle

import pytest

from flow_core.interfaces.outcome import Verdict
from flow_executors.common.large_results import (
    LARGE,
    MANAGER,
    SharedMemoryParts,
    await_receipt,
    collector,
    signed,
    write_file,
)
from flow_executors.manager.worker_pool import SharedMemoryResults
from flow_executors.serialize.buffers import BufferGone, let_go, load_with_buffers
from flow_executors.wire.results import BUFFERS
from flow_executors.wire.tasks import BufferRef, pack_buffers

VALUE = [bytes(range(256)) * (LARGE // 256), b"x" * (2 * LARGE)]


@pytest.fixture
def shared_results():
    made = SharedMemoryResults()
    yield made
    made.close()


def shipped():
    """What a worker does with a large result: its file, and the frame."""
    found = []
    pickled = pickle.dumps([SharedMemoryParts(part) for part in VALUE], 5, buffer_callback=collector(found))
    descriptor, name, size = write_file(found)
    refs, at = [], 0
    for buffer in found:
        refs.append(BufferRef(name, at, buffer.nbytes, f"/proc/{os.getpid()}/fd/{descriptor}"))
        at += buffer.nbytes
    return descriptor, size, (7, 1, 2, int(Verdict.OK) | BUFFERS, pack_buffers(refs) + pickled)


def test_large_bytes_travel_beside_their_pickle():
    found = []
    assert len(pickle.dumps(SharedMemoryParts(VALUE[0]), 5, buffer_callback=collector(found))) < 100
    assert found[0] == VALUE[0]


def test_on_the_same_host_the_client_maps_the_file_that_the_manager_took_over(shared_results):
    shared_results.same_host = True
    descriptor, size, frame = shipped()
    assert not await_receipt(descriptor, size, 0.0)
    taken = shared_results.taken_over(frame)
    assert signed(descriptor, size, MANAGER)
    os.close(descriptor)
    assert len(taken[4]) < 1000
    shared_results.sweep()
    assert len(shared_results) == 1
    assert load_with_buffers(memoryview(taken[4]), True) == VALUE
    shared_results.sweep()
    assert len(shared_results) == 0


def test_for_another_host_the_buffers_go_into_the_message(shared_results):
    descriptor, _, frame = shipped()
    taken = shared_results.taken_over(frame)
    os.close(descriptor)
    assert len(shared_results) == 0
    assert load_with_buffers(memoryview(taken[4]), True) == VALUE


def test_a_result_whose_worker_died_before_it_was_taken_over_is_lost(shared_results):
    descriptor, _, frame = shipped()
    os.close(descriptor)
    assert shared_results.taken_over(frame)[3] == Verdict.LOST


def test_a_result_that_is_not_wanted_any_more_is_let_go(shared_results):
    shared_results.same_host = True
    descriptor, _, frame = shipped()
    taken = shared_results.taken_over(frame)
    os.close(descriptor)
    let_go(memoryview(taken[4]))
    shared_results.sweep()
    assert len(shared_results) == 0


def test_a_file_that_is_gone_is_told_from_what_unpickling_raises(shared_results):
    shared_results.same_host = True
    descriptor, _, frame = shipped()
    taken = shared_results.taken_over(frame)
    os.close(descriptor)
    shared_results.close()
    with pytest.raises(BufferGone):
        load_with_buffers(memoryview(taken[4]), True)

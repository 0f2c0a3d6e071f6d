"""What travels: large buffers out of band, functions by value and by name, classes of the script."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

from flow_core.interfaces.outcome import Verdict
from flow_core.testing import calls
from flow_core.testing.driver import Driver

Drive = Callable[..., Driver]


class Block:
    """A buffer that pickles out of band, as arrays do."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return Block, (pickle.PickleBuffer(self.data),)


def weigh(block: Block, factor: int = 1) -> tuple[int, int]:
    view = memoryview(block.data)
    return len(view) * factor, view[-1]


def test_a_large_buffer_arrives_and_its_memory_is_given_back(drive: Drive, way: dict[str, object]) -> None:
    driver = drive(**way)
    data = bytes(8_000_000) + b"\x07"
    outcomes = driver.outcomes([driver.submit(weigh, Block(data)) for _ in range(5)])
    assert [outcome.value for outcome in outcomes] == [(8_000_001, 7)] * 5
    wait_until(lambda: not files_of(str(os.getpid())))  # outcomes are told before


def make(size: int) -> list[object]:
    return [Block(bytes(size) + b"\x09"), b"small"]


def make_bytes(size: int) -> bytes:
    return b"b" * size


def test_large_results_arrive_and_their_memory_is_given_back(drive: Drive, way: dict[str, object]) -> None:
    driver = drive(**way)
    blocks = driver.outcomes([driver.submit(make, 8_000_000) for _ in range(5)])
    for outcome in blocks:
        block, small = outcome.value  # type: ignore[misc]  # a list of two
        assert (len(block.data), bytes(block.data[-1:]), small) == (8_000_001, b"\x09", b"small")
    plain = driver.outcomes([driver.submit(make_bytes, 3_000_000) for _ in range(5)])
    assert all(outcome.value == b"b" * 3_000_000 for outcome in plain)
    executor_pids = {str(offer.pid) for offer in driver.executor.connected_managers()}  # type: ignore[attr-defined]
    wait_until(lambda: not large_files_of(executor_pids))


def large_files_of(pids: set[str]) -> list[str]:
    """The files of results that managers still hold."""
    return [name for pid in pids for name, size in files_of(pid) if size > 1_000_000]


def files_of(pid: str) -> list[tuple[str, int]]:
    """The files in memory that a process holds, by name and size."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target, size = os.readlink(path), path.stat().st_size
        except OSError:
            continue
        if "memfd:flow-" in target:
            found.append((target, size))
    return found


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_functions_of_this_test_and_closures_travel_by_value(drive: Drive) -> None:
    driver = drive()
    factor = 3

    def closure(value: int) -> int:
        return value * factor

    assert driver.outcome(driver.submit(closure, 5)).value == 15
    assert driver.outcome(driver.submit(lambda: factor)).value == 3
    assert driver.outcome(driver.submit(weigh, Block(b"ab"), factor=2)).value == (4, 98)


def test_a_generator_is_refused_by_name(drive: Drive) -> None:
    driver = drive()
    outcome = driver.outcome(driver.submit(calls.double, (number for number in range(3))))
    assert outcome.verdict is Verdict.REFUSED
    assert "argument 1 (generator) of double" in str(outcome.error)


def test_ten_thousand_tasks_keep_their_results_apart(drive: Drive) -> None:
    driver = drive()
    keys = [driver.submit(calls.double, number) for number in range(10_000)]
    assert [outcome.value for outcome in driver.outcomes(keys)] == [2 * number for number in range(10_000)]


def test_a_function_for_each_of_many_tasks(drive: Drive) -> None:
    driver = drive()
    keys = [driver.submit(lambda number=number: number) for number in range(600)]
    assert [outcome.value for outcome in driver.outcomes(keys)] == list(range(600))

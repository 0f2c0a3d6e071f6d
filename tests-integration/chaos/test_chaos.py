"""Mixed tasks run while processes are killed and frozen: every future ends, each result is right, nothing is left."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from killer import Killer, processes_of

import flow
from flow import AppFuture, Config, bash_app, python_app
from flow.executors import HighThroughputExecutor, LowLatencyExecutor
from flow.providers import LocalProvider

SECONDS = float(os.environ.get("FLOW_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("FLOW_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
IN_FLIGHT = int(os.environ.get("FLOW_CHAOS_IN_FLIGHT", "0"))
"""Calls that are out at a time; 0: 300, or 3 where tasks are to find workers idle and go to them directly."""


@python_app
def square(x):
    return x * x


@python_app
def slow_square(x):
    import time

    time.sleep((x % 7) * 0.01)
    return x * x


@python_app
def digest(x, payload):
    import hashlib

    return hashlib.sha256(payload + str(x).encode()).hexdigest()


@bash_app
def shell(x):
    return f"exit $(( {x} % 2 * 0 ))"


PAYLOAD = bytes(200_000)


@python_app
def add(x, y):
    return x + y


def call(x: int) -> tuple[AppFuture[object], object]:
    """Call one of the mixed apps; return its future and what it must come to."""
    kind = x % 5
    if kind == 0:
        return slow_square(x), x * x
    if kind == 1:
        return digest(x, PAYLOAD), hashlib.sha256(PAYLOAD + str(x).encode()).hexdigest()
    if kind == 2:
        return shell(x), 0
    if kind == 3:
        return add(square(x), slow_square(x)), 2 * x * x
    return square(x), x * x


@pytest.mark.chaos
@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.parametrize(("kind", "usually"), [(HighThroughputExecutor, 300), (LowLatencyExecutor, 3)])
def test_no_task_is_lost_while_processes_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[HighThroughputExecutor], usually: int
) -> None:
    in_flight = IN_FLIGHT or usually
    print(f"FLOW_CHAOS_SEED={SEED} FLOW_CHAOS_SECONDS={SECONDS:g} FLOW_CHAOS_IN_FLIGHT={in_flight}")
    monkeypatch.chdir(tmp_path)
    config = Config(
        executors=[
            kind(
                label="chaos",
                max_workers=2,
                heartbeat_period=0.2,
                heartbeat_threshold=2,
                block_error_handler=False,  # as blocks are killed while they start, too
                provider=LocalProvider(init_blocks=2, min_blocks=2, max_blocks=2),
            )
        ],
        infrastructure_retries=10_000,
        max_worker_kills=10_000,
        strategy="simple",
        strategy_period=0.5,
    )
    files_before = _open_files()
    children_before = {process.pid for process in psutil.Process().children(recursive=True)}
    with flow.load(config) as kernel:
        assert square(3).result(timeout=60) == 9
        run_id = kernel.run_id
        count = 0
        open_calls: deque[tuple[AppFuture[object], object]] = deque()
        end = time.monotonic() + SECONDS
        with Killer(run_id, SEED) as killer:
            while time.monotonic() < end:
                while len(open_calls) < in_flight:
                    open_calls.append(call(count))
                    count += 1
                future, expected = open_calls.popleft()
                assert future.result(timeout=120) == expected
        for future, expected in open_calls:
            assert future.result(timeout=120) == expected
        summary = kernel.summary()
    print(f"{count} tasks, hits: {dict(killer.done)}")
    assert sum(killer.done.values()) > 0
    assert summary.failed == 0
    _ends(lambda: not processes_of(run_id), "processes of the run are left")
    _ends(
        lambda: {process.pid for process in psutil.Process().children(recursive=True)} <= children_before,
        "child processes are left",
    )
    _ends(lambda: not _open_files() - files_before, "descriptors, memory files or sockets are left")


def _open_files() -> Counter[str]:
    """Return what this process has open, by kind: memory files, sockets, pipes, and files by name."""
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(entry)
            kind = target.partition(":[")[0]
            if str(entry) not in target and not target.startswith(("/proc", "/dev", "/tmp/.", "pipe:")):
                found[kind] += 1
    return found


def _ends(condition: Callable[[], bool], complaint: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.05)

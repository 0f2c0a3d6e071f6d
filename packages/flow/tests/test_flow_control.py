"""FlowControl, FlowNoControl, Timer and Strategy, under the paths that old scripts use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow import Config, DataFlowKernel, python_app
from flow.dataflow.flow_control import FlowControl, FlowNoControl, Timer
from flow.dataflow.strategy import Strategy
from flow.executors import HighThroughputExecutor, ThreadPoolExecutor
from flow.providers import LocalProvider
from flow_core.errors import ConfigurationError

NEVER_S = 1000.0


class Watched(FlowControl):
    """A FlowControl that counts looks instead."""

    def __init__(self, kernel: DataFlowKernel, threshold: int, interval: float) -> None:
        self.looks = threading.Semaphore(0)
        super().__init__(kernel, threshold=threshold, interval=interval)
        self._callback = lambda *_args: self.looks.release()


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[DataFlowKernel]:
    made = DataFlowKernel(Config(executors=[ThreadPoolExecutor()], run_dir=str(tmp_path), strategy="none"))
    yield made
    made.cleanup()


def test_a_timer_calls_again_and_again_until_it_is_closed() -> None:
    called = threading.Semaphore(0)
    timer = Timer(lambda word: called.release() if word == "tick" else None, "tick", interval=0.01, name="mine")
    assert all(called.acquire(timeout=20) for _ in range(3))
    timer.close()
    assert not timer._thread.is_alive()


def test_a_callback_that_raises_is_called_again() -> None:
    called = threading.Semaphore(0)

    def fail() -> None:
        called.release()
        raise ValueError("no")

    timer = Timer(fail, interval=0.01)
    assert all(called.acquire(timeout=20) for _ in range(2))
    timer.close()


def test_events_bring_a_look_before_the_interval_is_over(kernel: DataFlowKernel) -> None:
    control = Watched(kernel, threshold=3, interval=NEVER_S)
    for _ in range(2):
        control.notify()
    assert not control.looks.acquire(timeout=0.05)
    control.notify("task 3")
    assert control.looks.acquire(timeout=20)
    control.close()


def test_the_interval_brings_a_look_without_events(kernel: DataFlowKernel) -> None:
    control = Watched(kernel, threshold=1000, interval=0.01)
    assert control.looks.acquire(timeout=20)
    control.close()


def test_no_control_does_nothing(kernel: DataFlowKernel) -> None:
    control = FlowNoControl(kernel, threshold=1, interval=0.01)
    control.notify()
    control.close()


@pytest.mark.parametrize("options", [{"threshold": 0}, {"interval": 0}, {"interval": "5"}])
def test_bounds_that_cannot_be_are_refused(kernel: DataFlowKernel, options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        FlowControl(kernel, **options)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Timer("callback")


@pytest.mark.timeout(120)
def test_a_strategy_asks_for_the_blocks_that_tasks_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))
    provider = LocalProvider(init_blocks=1, max_blocks=2)
    executor = HighThroughputExecutor(label="htex", provider=provider, max_workers=1)
    config = Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), strategy="none")
    with DataFlowKernel(config) as kernel:

        @python_app(data_flow_kernel=kernel)
        def meet(mine: str, other: str) -> bool:
            """Wait for a task that runs at the same time, on the other block."""
            import time
            from pathlib import Path

            Path(mine).touch()
            until = time.monotonic() + 50
            while not Path(other).exists() and time.monotonic() < until:
                time.sleep(0.01)
            return Path(other).exists()

        names = [str(tmp_path / name) for name in ("one", "other")]
        futures = [meet(*names), meet(*reversed(names))]
        control = FlowControl(kernel, threshold=1, interval=NEVER_S)
        try:
            control.notify()
            assert all(future.result(timeout=55) for future in futures)
            assert Strategy(kernel).strategize() == {}
        finally:
            control.close()

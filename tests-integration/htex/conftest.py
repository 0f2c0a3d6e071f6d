"""A started HighThroughputExecutor with short heartbeats, and the proof that nothing of it is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flow_core import Config
from flow_core.testing.driver import Driver
from flow_executors.testing.direct_run import make_direct_executor
from flow_executors.testing.local_run import driving, make_executor
from flow_providers.local.provider import LocalProvider


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Give a function that makes a Config of one such executor: settings, options of the provider, of the executor."""
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))

    def make(
        settings: dict[str, object] | None = None, provider: dict[str, object] | None = None, **options: object
    ) -> Config:
        blocks = LocalProvider(**({"max_blocks": 1} | (provider or {})))  # type: ignore[arg-type]  # checked there
        executor = make_executor(provider=blocks, **({"max_workers": 1} | options))
        given: dict[str, object] = {"run_dir": str(tmp_path / "runinfo"), "strategy_period": 0.2}
        return Config(executors=[executor], **(given | (settings or {})))  # type: ignore[arg-type]  # checked there

    return make


BY_NETWORK = "{python} -m {module} {debug} {options} --addresses=127.0.0.1"
"""Command of a manager that does not come by the way within the machine."""


@pytest.fixture(params=["local", "network"])
def way(request: pytest.FixtureRequest) -> dict[str, object]:
    """Options of an executor whose managers come by the way within the machine, or by the network."""
    return {} if request.param == "local" else {"launch_cmd": BY_NETWORK}


@pytest.fixture
def network() -> dict[str, object]:
    """Options of an executor whose managers come by the network."""
    return {"launch_cmd": BY_NETWORK}


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Give a function that starts an executor; at the end every key has one outcome and nothing is left."""
    yield from driving(make_executor, tmp_path)


@pytest.fixture
def drive_direct(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """The same with LowLatencyExecutors."""
    yield from driving(make_direct_executor, tmp_path)

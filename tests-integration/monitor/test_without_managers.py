"""Runs on executors without managers, monitored: what their tasks use arrives in the database as well."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

import flow
from flow import Config, bash_app, python_app
from flow.executors import ThreadPoolExecutor
from flow.monitoring import MonitoringHub
from flow_core.executors.futures import FuturesExecutor
from flow_core.futures.app_future import AppFuture
from flow_core.testing.sampling import SampledTasks
from flow_monitor import open_database
from flow_monitor.queries import resources, tasks, timeline, workflows

pytestmark = pytest.mark.timeout(120)


def apps() -> tuple[Callable[..., AppFuture[int]], Callable[..., AppFuture[int]]]:
    """Return an app that uses CPU and holds memory until a file is there, and one that uses CPU in another process.

    They are made here so that they travel by value: a spawned worker cannot import this module.
    """

    @python_app
    def hold(megabytes: int, path: str) -> int:
        import os
        import time

        held, end = bytearray(megabytes << 20), time.monotonic() + 60
        while not os.path.exists(path) and time.monotonic() < end:
            pass
        return len(held)

    @bash_app
    def hold_in_bash(path: str) -> str:
        return f"while [ ! -e {path} ]; do :; done"

    return hold, hold_in_bash


def pool() -> concurrent.futures.Executor:
    return concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.parametrize(
    "make", [lambda: ThreadPoolExecutor("x"), lambda: FuturesExecutor("x", pool)], ids=["threads", "process pool"]
)
def test_tasks_are_measured_and_sampled(tmp_path: Path, make: Callable[[], object]) -> None:
    go, sampled = tmp_path / "go", SampledTasks(2, times=3)
    hub = MonitoringHub(resource_monitoring_interval=0.2)
    hold, hold_in_bash = apps()
    config = Config(executors=[make()], run_dir=str(tmp_path / "runinfo"), monitoring=hub, sinks=[sampled])
    with flow.load(config):
        futures = [hold(50, str(go)), hold_in_bash(str(go))]
        assert sampled.seen.wait(60)
        go.touch()
        assert [future.result(60) for future in futures] == [50 << 20, 0]
    with open_database(str(tmp_path / "runinfo" / "monitoring.db")) as database, database.connect() as connection:
        run_id = workflows.page(connection).items[0].run_id
        lanes = {span.lane for span in timeline.spans(connection, run_id).spans}
        assert len(lanes) == 2, "they ran at the same time: each in a lane of its own"
        for task_id in (0, 1):
            (one,) = tasks.one(connection, run_id, task_id).tries
            assert one.host
            assert one.time_running is not None
            assert (one.cpu_user_s or 0) + (one.cpu_system_s or 0) > 0
            found = tasks.samples(connection, run_id, task_id)
            assert len(found) >= 4, "those while it ran, and one at its end"
            assert max(sample.cpu_user_s + sample.cpu_system_s for sample in found) > 0
        assert max(sample.memory for sample in tasks.samples(connection, run_id, 0)) >= 25 << 20
        assert resources.node_load(connection, run_id)
        assert max(use.cpu_cores for use in resources.usage(connection, run_id)) > 0.1
        assert {app.cpu_s > 0 for app in workflows.apps(connection, run_id)} == {True}
    assert list((tmp_path / "runinfo").glob("*/x/reports")) == []

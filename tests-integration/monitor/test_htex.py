"""A run on HTEX, monitored: what its managers tell arrives in the database, the use of resources too."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import flow
from flow import Config, python_app
from flow.executors import HighThroughputExecutor
from flow.monitoring import MonitoringHub
from flow.providers import LocalProvider
from flow_monitor import open_database
from flow_monitor.export.wfformat import wfformat
from flow_monitor.queries import blocks, resources, tasks, workflows
from flow_monitor.queries.records import RunState

HOG_MB = 60


@python_app
def busy_tree(seconds: float, megabytes: int) -> int:
    """Be busy here, and hold memory in a child process that is busy too."""
    import subprocess
    import sys
    import time

    held = f"import time; a = bytearray({megabytes << 20}); end = time.monotonic() + {seconds}"
    held += "\nwhile time.monotonic() < end: pass"
    child = subprocess.Popen([sys.executable, "-c", held])
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    return child.wait(60)


@pytest.mark.timeout(120)
def test_what_managers_tell_of_blocks_nodes_and_tasks_arrives(tmp_path: Path) -> None:
    executor = HighThroughputExecutor(
        label="htex",
        address="127.0.0.1",
        max_workers=1,
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
    )
    hub = MonitoringHub(resource_monitoring_interval=0.2, workflow_name="tree")
    with flow.load(Config(executors=[executor], strategy="none", run_dir=str(tmp_path / "runinfo"), monitoring=hub)):
        assert busy_tree(1.5, HOG_MB).result() == 0
    with open_database(str(tmp_path / "runinfo" / "monitoring.db")) as database, database.connect() as connection:
        run = workflows.page(connection).items[0]
        assert run.state is RunState.COMPLETED
        (block,) = blocks.blocks(connection, run.run_id)
        assert {"RUNNING"} <= {status for _, status, _ in block.history}
        assert block.job_id
        (node,) = blocks.nodes(connection, run.run_id)
        assert (node.executor, node.block, node.workers, node.tries) == ("htex", block.block, 1, 1)
        assert node.time_joined is not None
        assert node.cpu_count > 0
        assert node.memory > 1 << 28
        (one,) = tasks.one(connection, run.run_id, 0).tries
        assert (one.verdict, one.host, one.manager) == ("OK", node.host, node.manager)
        assert (one.cpu_user_s or 0) + (one.cpu_system_s or 0) >= 0.3, "the last figures: with the child's, which ended"
        assert (one.max_rss_kb or 0) >= HOG_MB << 10
        samples = tasks.samples(connection, run.run_id, 0)
        assert len(samples) >= 2
        assert max(sample.processes for sample in samples) >= 2
        assert max(sample.memory for sample in samples) >= HOG_MB << 20
        assert max(sample.cpu_user_s for sample in samples) > 0
        assert all(sample.try_id == 0 for sample in samples)
        assert resources.node_load(connection, run.run_id)
        assert max(use.memory for use in resources.usage(connection, run.run_id)) >= HOG_MB << 20
        assert wfformat(connection, run.run_id)["schemaVersion"] == "1.5"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("trace", [0, 1])
def test_an_exported_run_is_replayed(tmp_path: Path, trace: int) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "wfformat"))
    try:
        import replay
    finally:
        sys.path.pop(0)
    traced = replay.load_trace(replay.TRACES[trace])
    hub = MonitoringHub(resource_monitoring_enabled=False)
    with flow.load(Config(run_dir=str(tmp_path / "runinfo"), monitoring=hub)):
        assert replay.run(traced, 0.0, 1e-7) == []
    with open_database(str(tmp_path / "runinfo" / "monitoring.db")) as database, database.connect() as connection:
        made = wfformat(connection, workflows.page(connection).items[0].run_id)
    path = tmp_path / "again.json"
    path.write_text(json.dumps(made))
    again = replay.load_trace(path)
    assert len(again.tasks) == len(traced.tasks)
    assert sum(len(task.parents) for task in again.tasks) >= sum(len(task.parents) for task in traced.tasks)
    assert len(again.sizes) == len(traced.sizes)
    with flow.load(Config(run_dir=str(tmp_path / "runinfo"))):
        assert replay.run(again, 0.0, 1.0) == []

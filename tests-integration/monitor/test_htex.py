"""A run on HTEX, monitored: what its managers tell arrives in the database, the use of resources too."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

import flow
from flow import Config, python_app
from flow.executors import HighThroughputExecutor
from flow.monitoring import MonitoringHub
from flow.providers import LocalProvider
from flow_core.testing.sampling import SampledTasks
from flow_monitor import open_database
from flow_monitor.export.wfformat import wfformat
from flow_monitor.queries import blocks, resources, tasks, workflows
from flow_monitor.queries.records import RunState
from flow_monitor.testing.traffic import kernel_tells_traffic

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


@python_app
def brief(seconds: float) -> float:
    """Be busy for less than a sample takes to come."""
    import time

    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return seconds


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
        assert [one.result() for one in [brief(0.05) for _ in range(8)]] == [0.05] * 8
    with open_database(str(tmp_path / "runinfo" / "monitoring.db")) as database, database.connect() as connection:
        run = workflows.page(connection).items[0]
        assert run.state is RunState.COMPLETED
        (block,) = blocks.blocks(connection, run.run_id)
        assert {"RUNNING"} <= {status for _, status, _ in block.history}
        assert block.job_id
        (node,) = blocks.nodes(connection, run.run_id)
        assert (node.executor, node.block, node.workers, node.tries) == ("htex", block.block, 1, 9)
        assert node.time_joined is not None
        assert node.time_left is not None, "the run has ended"
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
        told = sum(app.cpu_s for app in workflows.apps(connection, run.run_id))
        for by in resources.Grouping:
            usage = resources.usage(connection, run.run_id, by)
            area = sum(one.cpu_cores * one.width_ns for one in usage) / 1e9
            assert area == pytest.approx(told, rel=0.05), "the area under the plot is the CPU time of the tasks"
        assert wfformat(connection, run.run_id)["schemaVersion"] == "1.5"


@python_app
def talk(port: int, first: int, last: int) -> int:
    """Send to a port, wait for an answer, send more; keep the connection, as those do who have a pool of them."""
    import socket
    import sys

    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"x" * first)
    answer = len(connection.recv(1000))
    connection.sendall(b"y" * last)
    sys.modules["kept_connection"] = connection  # type: ignore[assignment] # lives as long as the worker
    connection.recv(1)
    return answer


@pytest.mark.timeout(120)
@pytest.mark.skipif(not kernel_tells_traffic(), reason="the kernel refuses sock_diag here")
def test_what_a_task_sends_and_receives_is_counted_to_its_end(tmp_path: Path) -> None:
    first, last = 300_000, 70_000
    sink, received = SampledTasks(1), 0
    executor = HighThroughputExecutor(label="htex", address="127.0.0.1", max_workers=1, provider=LocalProvider())
    hub = MonitoringHub(resource_monitoring_interval=0.1)
    config = Config(
        executors=[executor], strategy="none", run_dir=str(tmp_path / "runinfo"), monitoring=hub, sinks=[sink]
    )
    with socket.create_server(("127.0.0.1", 0)) as server, flow.load(config):
        future = talk(server.getsockname()[1], first, last)
        server.settimeout(60)
        client, _ = server.accept()
        client.settimeout(60)
        with client:
            while received < first:
                received += len(client.recv(1 << 16))
            assert sink.seen.wait(60)
            client.sendall(b"z" * 500)
            while received < first + last:
                received += len(client.recv(1 << 16))
            client.sendall(b"!")
            assert future.result(60) == 500
    with open_database(str(tmp_path / "runinfo" / "monitoring.db")) as database, database.connect() as connection:
        run_id = workflows.page(connection).items[0].run_id
        (one,) = tasks.one(connection, run_id, 0).tries
        assert one.net_sent is not None
        assert one.net_received is not None
        assert first + last <= one.net_sent <= first + last + 2
        assert 501 <= one.net_received <= 503
        grown = [sample.net_sent or 0 for sample in tasks.samples(connection, run_id, 0)]
        assert grown == sorted(grown)


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

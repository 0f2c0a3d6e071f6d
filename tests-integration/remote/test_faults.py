"""Nodes that lack what others have: each with HighThroughputExecutor and LowLatencyExecutor."""

from __future__ import annotations

import pytest
from machines import Machines

pytestmark = [pytest.mark.services, pytest.mark.timeout(200)]

WORK = """
@python_app
def back(data):
    return data


@bash_app
def shell():
    return "echo $((6 * 7))"


with flow.load(config(HOST, kind=KIND, options={"retries": 0}, channel=CHANNEL)):
    tell(where=where().result(timeout=50))
    tell(length=len(back(bytes(SIZE)).result(timeout=50)), code=shell().result(timeout=50))
"""


def work(machines: Machines, kind: str, size: int = 50 << 20, channel: dict[str, object] | None = None) -> str:
    """Run tasks on node1 and return its name as the tasks saw it."""
    head = f"HOST, KIND, SIZE, CHANNEL = {machines.nodes[1]!r}, {kind!r}, {size}, {channel or {}!r}\n"
    said = machines.run(head + WORK, timeout_s=110)
    assert said[1] == {"length": size, "code": 0}
    return str(said[0]["where"])


@pytest.mark.parametrize("kind", ["htex", pytest.param("llex", marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"SM_NOSHM": "1"}, id="shared memory"),
        pytest.param({"SM_TMP_NOEXEC": "1", "SM_NO_NAMES": "1"}, id="programs in its temporary directory, and names"),
        pytest.param({"SM_NO_TMP": "1", "SM_V6": "1"}, id="a temporary directory, and IPv4"),
        pytest.param({"SM_NOFILE": "64"}, id="more than 64 open files"),
        pytest.param({"SM_FAKETIME": "+3600"}, id="the right time"),
    ],
)
@pytest.mark.slow
def test_tasks_run_on_a_node_that_lacks(machines: Machines, kind: str, fault: dict[str, str]) -> None:
    machines.start(1, **fault)
    assert work(machines, kind) == "node1"


@pytest.mark.soak
def test_more_workers_than_files_that_may_be_open_are_refused_with_the_reason(machines: Machines) -> None:
    machines.start(1, SM_NOFILE="64")
    said = machines.run(
        """
with flow.load(config("node1", options={"retries": 0}, max_workers=40, cores_per_worker=0.01)):
    tell(error=str(where().exception(timeout=80)))
""",
        timeout_s=110,
    )
    assert "open files" in str(said[0]["error"])


def test_a_node_whose_clock_is_an_hour_off_has_right_times_in_monitoring(machines: Machines) -> None:
    machines.start(1, SM_FAKETIME="+3600")
    said = machines.run(
        """
import sqlite3
from flow import MonitoringHub

began = time.time_ns()
hub = MonitoringHub(resource_monitoring_interval=0.5)
with flow.load(config("node1", options={"monitoring": hub})):
    nap(3).result(timeout=50)
    clock = python_app(lambda: __import__("time").time_ns())
    tell(off_s=(clock().result(timeout=50) - time.time_ns()) / 1e9)
ended = time.time_ns()
with sqlite3.connect("runinfo/monitoring.db") as database:
    tries = database.execute(
        'SELECT task_try_time_launched, task_try_time_running, task_try_time_returned FROM "try"'
    ).fetchall()
    samples = database.execute("SELECT timestamp FROM resource").fetchall()
tell(began=began, ended=ended, tries=tries, samples=[one for one, in samples])
"""
    )
    assert 3590 < float(str(said[0]["off_s"])) < 3610
    began, ended, tries, samples = (said[1][name] for name in ("began", "ended", "tries", "samples"))
    assert isinstance(began, int)
    assert isinstance(ended, int)
    assert isinstance(tries, list)
    assert isinstance(samples, list)
    assert len(tries) == 2
    assert samples
    for launched, running, returned in tries:
        assert began <= launched <= running <= returned <= ended
    assert all(began <= sample <= ended for sample in samples)

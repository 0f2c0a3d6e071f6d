"""A manager over a slow link: it registers however short the heartbeats are, says that they are, and is kept busy."""

from __future__ import annotations

import socket

import pytest

from flow_core.testing import calls
from flow_executors.testing.delay import SlowLink
from flow_executors.testing.local_run import wait_until

pytestmark = pytest.mark.slow

TRIP_S = 0.8
HEARTBEATS = {"heartbeat_period": 0.5, "heartbeat_threshold": 3.5}
TASKS = 60


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def test_a_slow_link_is_measured_named_and_made_up_for(drive, tmp_path, caplog):
    port = free_port()
    with SlowLink(port, TRIP_S / 2) as link:
        command = f"{{python}} -m {{module}} {{debug}} {{options}} --addresses=127.0.0.1 --port={link.port}"
        driver = drive(launch_cmd=command, worker_ports=(port,), **HEARTBEATS)
        driver.outcome(driver.submit(calls.nothing))  # five round trips take longer than the threshold
        outcomes = driver.outcomes([driver.submit(calls.nothing) for _ in range(TASKS)])
        lasted_s = max(one.ended_ns for one in outcomes) * 1e-9 - min(one.started_ns for one in outcomes) * 1e-9
        assert lasted_s < TASKS / 2 * TRIP_S / 4  # in turn with their results they would last four times as long
        wait_until(lambda: "heartbeat_threshold=3.5 s may be nothing but that" in caplog.text, "nobody was told", 10)
        link.delay_s = 0.0
        driver.shutdown()

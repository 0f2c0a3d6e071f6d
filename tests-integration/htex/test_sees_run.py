"""Managers say at registration whether their node sees the run's directory."""

from __future__ import annotations

from pathlib import Path

import pytest

import flow_core as flow
from flow_core.interfaces.events import EventKind, NodeJoined
from flow_executors.common.run_marker import RunMarker, make_marker
from flow_executors.testing.local_run import processes_of, run_id_of, wait_until
from flow_executors.testing.node import IsolatedNode
from flow_executors.testing.switchboard import Switchboard


def test_a_manager_that_reads_the_marker_sees_the_run(tmp_path):
    with IsolatedNode(tmp_path, switchboard=Switchboard(marker=make_marker(tmp_path))) as node:
        assert node.offer.sees_run is True


def test_a_manager_that_finds_another_file_there_is_apart(tmp_path):
    marker = make_marker(tmp_path)
    with IsolatedNode(tmp_path, switchboard=Switchboard(marker=RunMarker(marker.path, "0" * 32, "0" * 64))) as node:
        assert node.offer.sees_run is False
        assert node.offer.is_apart


def test_a_manager_that_is_not_asked_counts_as_before(tmp_path):
    with IsolatedNode(tmp_path) as node:
        assert node.offer.sees_run is None
        assert not node.offer.is_apart


class Joined:
    """A sink that keeps what managers said of their nodes."""

    wants = EventKind.NODE

    def __init__(self):
        self.events = []

    def start(self, run):
        """Nothing to open."""

    def emit(self, events):
        self.events += [event for event in events if isinstance(event, NodeJoined)]

    def flush(self, timeout_s):
        return True

    def close(self, timeout_s):
        """Nothing to close."""


def test_the_client_knows_it_of_each_manager_and_sinks_are_told(config, tmp_path):
    sink = Joined()
    with flow.load(config(settings={"sinks": [sink]})) as kernel:
        (executor,) = kernel.config.executors
        wait_until(lambda: bool(executor.connected_managers()), "no manager connected")
        (offer,) = executor.connected_managers()
        assert offer.sees_run is True
        (marker,) = (tmp_path / "runinfo").glob("*/htex/marker")
    assert [event.sees_run for event in sink.events] == [True]
    assert not marker.exists()


@pytest.mark.parametrize("way", ["drive", "drive_direct"])
def test_what_proves_it_is_on_no_command_line(way, request):
    driver = request.getfixturevalue(way)()
    wait_until(lambda: bool(driver.executor.connected_managers()), "no manager connected")
    assert [offer.sees_run for offer in driver.executor.connected_managers()] == [True]
    marker = driver.executor._runtime._marker
    nonce = Path(marker.path).read_bytes().hex()
    commands = processes_of(run_id_of(driver)).values()
    assert commands
    assert not any(marker.digest in words or nonce in words for words in commands)

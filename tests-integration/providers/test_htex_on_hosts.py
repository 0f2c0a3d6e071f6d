"""A workflow of the high-throughput executor on two hosts that ssh reaches, each with a network of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from htex_workflow import PATIENCE_S, run_workflow
from provider_services import host_channels, link_cut

import flow_core as flow
from flow_core import Config, python_app
from flow_executors import HighThroughputExecutor
from flow_executors.testing.local_run import wait_until
from flow_providers.adhoc.provider import AdHocProvider

pytestmark = [pytest.mark.services, pytest.mark.timeout(170)]

CUT_S = 30


@pytest.fixture
def provider(hosts: dict[str, str], tmp_path: Path) -> Iterator[AdHocProvider]:
    provider = AdHocProvider(channels=host_channels(hosts, tmp_path))
    yield provider
    provider.close()


def test_a_workflow_runs_on_two_hosts(
    provider: AdHocProvider, hosts: dict[str, str], tmp_path: Path, own_ledger: Path
) -> None:
    places = run_workflow(provider, tmp_path, blocks=2, nodes=1, address=hosts["HOSTS_TEST_HERE"])
    assert {host for _, _, host in places} == {"flowhost1", "flowhost2"}
    assert provider.current_capacity == 0


@python_app
def wait_on(place: str) -> str:
    """Tell the host this runs on by a file of its name, and return it when there is a file ``go``."""
    import os
    import time

    host = os.uname().nodename
    open(os.path.join(place, host), "w").close()
    while not os.path.exists(os.path.join(place, "go")):
        time.sleep(0.02)
    return host


def test_no_task_is_lost_when_the_way_to_a_host_is_cut_for_half_a_minute(
    provider: AdHocProvider, hosts: dict[str, str], tmp_path: Path, own_ledger: Path
) -> None:
    executor = HighThroughputExecutor(
        label="htex", provider=provider, max_workers=1, cores_per_worker=1, address=hosts["HOSTS_TEST_HERE"]
    )
    config = Config(
        executors=[executor], run_dir=str(tmp_path / "runinfo"), strategy="none", retries=0, infrastructure_retries=0
    )
    place = tmp_path / "place"
    place.mkdir()
    with flow.load(config):
        futures = [wait_on(str(place)) for _ in range(2)]
        wait_until(lambda: len(list(place.iterdir())) == 2, "one task a host does not start")
        with link_cut(2, CUT_S) as countdown:
            (place / "go").touch()  # both end now; the word of one of them does not come through
            for _ in countdown:
                assert sum(future.done() for future in futures) <= 1
            assert sorted(future.done() for future in futures) == [False, True]
        assert {future.result(timeout=PATIENCE_S) for future in futures} == {"flowhost1", "flowhost2"}
        assert wait_on(str(place)).result(timeout=PATIENCE_S) in {"flowhost1", "flowhost2"}

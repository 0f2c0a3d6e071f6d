"""A workflow of the high-throughput executor on two hosts that ssh reaches, each with a network of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from htex_workflow import run_workflow

from flow_providers.adhoc.provider import AdHocProvider
from flow_providers.channels.ssh import SSHChannel

pytestmark = [pytest.mark.services, pytest.mark.timeout(170)]


def test_a_workflow_runs_on_two_hosts(hosts: dict[str, str], tmp_path: Path, own_ledger: Path) -> None:
    channels = [
        SSHChannel(
            hosts[name],
            username=hosts["HOSTS_TEST_USER"],
            key_filename=hosts["HOSTS_TEST_KEY"],
            known_hosts=hosts["HOSTS_TEST_KNOWN_HOSTS"],
            script_dir=str(tmp_path / name),
        )
        for name in ("HOSTS_TEST_FIRST", "HOSTS_TEST_SECOND")
    ]
    provider = AdHocProvider(channels=channels)
    try:
        places = run_workflow(provider, tmp_path, blocks=2, nodes=1, address=hosts["HOSTS_TEST_HERE"])
        assert {host for _, _, host in places} == {"flowhost1", "flowhost2"}
        assert provider.current_capacity == 0
    finally:
        provider.close()

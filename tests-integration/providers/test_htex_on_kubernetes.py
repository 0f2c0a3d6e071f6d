"""A workflow of the high-throughput executor on pods, which run for real as processes of this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_packages import need
from htex_workflow import run_workflow

from flow_providers import KubernetesProvider
from flow_testing.clouds.kubernetes import FakeKubernetes

pytestmark = [pytest.mark.services, pytest.mark.timeout(170)]


@pytest.fixture
def cluster() -> Iterator[FakeKubernetes]:
    need("kubernetes", "kubernetes.client")
    with FakeKubernetes() as cluster:
        yield cluster


def test_a_workflow_runs_on_two_blocks_of_two_pods(cluster: FakeKubernetes, tmp_path: Path, own_ledger: Path) -> None:
    provider = KubernetesProvider(
        "python",
        pod_name="kube-htex",
        nodes_per_block=2,
        init_blocks=2,
        max_blocks=2,
        config_file=cluster.write_config(tmp_path),
    )
    places = run_workflow(provider, tmp_path, blocks=2, nodes=2, address="127.0.0.1")
    assert Counter(block for block, _, _ in places) == {"0": 2, "1": 2}
    cluster.wait_until_empty(30)

"""A pool in containers on the nodes of a real Slurm, and what is left of it when its job is cancelled."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from container_services import PATIENCE_S, by_script, containers, missing

import flow
from flow import Config, HighThroughputExecutor, python_app
from flow.launchers import SrunLauncher
from flow.providers import SlurmProvider

pytestmark = [pytest.mark.services, pytest.mark.timeout(500)]


@python_app
def where() -> tuple[bool, str, bool]:
    import os
    import socket
    import time

    time.sleep(0.3)  # for the other node to get some
    return os.path.exists("/run/.containerenv"), socket.gethostname(), "SLURM_JOB_ID" in os.environ


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a Slurm of two nodes."""
    if shutil.which("sbatch") is None:
        missing("Slurm is not installed; get it by tests-integration/services/slurm.sh install")
    directory = tmp_path_factory.mktemp("slurm")
    given = {"DIR": str(directory), "PORT": "19210", "NODES": "2", "UTS": "1" if os.geteuid() == 0 else "0"}
    for name, value in given.items():
        monkeypatch.setenv(f"SLURM_TEST_{name}", value)
    try:
        by_script("slurm", "start")
        monkeypatch.setenv("SLURM_CONF", str(directory / "slurm.conf"))
        yield
    finally:
        by_script("slurm", "stop")


def test_a_block_of_two_nodes_has_a_container_on_each_and_none_when_its_job_is_cancelled(
    slurm: None, image: str, label: str, gone: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    provider = SlurmProvider(
        "debug",
        nodes_per_block=2,
        init_blocks=1,
        max_blocks=1,
        launcher=SrunLauncher(),
        walltime="00:05:00",
        worker_init=f"export CONTAINERS_CONF={os.environ['CONTAINERS_CONF']}",
    )
    pool = HighThroughputExecutor(
        label, provider=provider, container=image, max_workers=1, address="127.0.0.1",
        heartbeat_period=0.5, heartbeat_threshold=15,
    )  # fmt: skip
    with flow.load(Config(executors=[pool], run_dir=str(tmp_path / "runinfo"))):
        deadline = time.monotonic() + PATIENCE_S
        places: set[str] = set()
        while len(places) < 2:
            assert time.monotonic() < deadline, places
            for inside, node, told in [future.result(PATIENCE_S) for future in [where() for _ in range(6)]]:
                assert inside
                assert told
                places.add(node)
        first = containers(label)
        assert len(first) == 2
        subprocess.run(["scancel", "--me"], check=True, timeout=30)
        while set(first) & set(containers(label)):
            assert time.monotonic() < deadline + PATIENCE_S, "containers of the cancelled job are left"
            time.sleep(0.2)

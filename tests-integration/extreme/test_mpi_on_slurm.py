"""MPI jobs on a real Slurm of four nodes with names of their own: the ranks of a block are on all its nodes."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import flow
from flow import Config, MonitoringHub, python_app
from flow_executors import ExtremeScaleExecutor
from flow_executors.testing.extreme_run import AS_ROOT
from flow_executors.testing.local_run import wait_until
from flow_monitor import open_database
from flow_monitor.queries import blocks, tasks, workflows
from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.slurm.provider import SlurmProvider
from flow_providers.launchers import SimpleLauncher

sys.path.insert(0, str(Path(__file__).parent))

from extreme_tasks import PATIENCE_S  # needs the line above

pytestmark = [pytest.mark.services, pytest.mark.timeout(500)]


def loopback() -> str:
    """Return the address of the submit side, asked for at the start."""
    return "127.0.0.1"


@python_app
def meet(place: str, guests: int) -> tuple[str, int, int]:
    """Wait until so many run at once; return host, worker and its process."""
    import os
    import time
    import uuid

    os.makedirs(place, exist_ok=True)
    open(os.path.join(place, uuid.uuid4().hex), "w").close()
    while len(os.listdir(place)) < guests:
        time.sleep(0.02)
    return os.uname().nodename, int(os.environ["FLOW_WORKER_RANK"]), os.getpid()


@python_app
def square(x: int) -> int:
    return x * x


@pytest.fixture
def config(slurm: dict[str, str], tmp_path: Path) -> Callable[..., Config]:
    """Give a function that makes a Config of blocks of four nodes."""

    def make(nodes: int = 4, ranks: int = 2, **settings: object) -> Config:
        channel = LocalChannel(userhome=str(tmp_path), envs=slurm, script_dir=str(tmp_path / "scripts"))
        provider = SlurmProvider(
            "debug",
            channel=channel,
            nodes_per_block=nodes,
            init_blocks=1,
            min_blocks=1,
            max_blocks=1,
            launcher=SimpleLauncher(),
            walltime="00:05:00",
            cmd_timeout=30,
            worker_init=AS_ROOT,
        )
        executor = ExtremeScaleExecutor(
            label="extreme",
            provider=provider,
            address=loopback,
            ranks_per_node=ranks,
            heartbeat_period=1,
            heartbeat_threshold=20,
        )
        given = {"run_dir": str(tmp_path / "runinfo"), "strategy_period": 0.5, **settings}
        return Config(executors=[executor], **given)  # type: ignore[arg-type]  # checked there

    return make


def rank_above(worker: int) -> int:
    """Return the process of the rank that is above a worker."""
    fork_server = psutil.Process(worker).parent()
    assert fork_server is not None
    rank = fork_server.parent()
    assert rank is not None
    return rank.pid


def test_a_block_of_four_nodes_is_one_manager_with_workers_on_all_of_them(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    with flow.load(config(monitoring=MonitoringHub(resource_monitoring_interval=0.5))) as kernel:
        met = [meet(str(tmp_path / "meeting"), 7) for _ in range(7)]
        places = [future.result(timeout=PATIENCE_S) for future in met]
        assert sum(square(x).result(timeout=PATIENCE_S) for x in range(20)) == sum(x * x for x in range(20))
        executor = kernel.executors["extreme"]
        assert isinstance(executor, ExtremeScaleExecutor)
        (offer,) = executor.connected_managers()
    hosts = Counter(host for host, _, _ in places)
    assert sorted(hosts.values()) == [1, 2, 2, 2]
    assert set(hosts) == {"n1", "n2", "n3", "n4"}
    assert offer.workers == 7
    assert {host: [offer.node_of(worker) for at, worker, _ in places if at == host] for host in hosts} == {
        host: [host] * count for host, count in hosts.items()
    }
    with open_database(str(tmp_path / "runinfo" / "monitoring.db")) as database, database.connect() as connection:
        run = workflows.page(connection).items[0]
        assert {(one.host, one.workers) for one in blocks.nodes(connection, run.run_id)} == set(hosts.items())
        ran = {tasks.one(connection, run.run_id, number).tries[0].host for number in range(7)}
    assert ran == set(hosts)


def test_a_rank_that_is_killed_on_a_node_is_named_and_the_next_block_runs_on(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    with flow.load(config(nodes=3, ranks=1)):
        met = [meet(str(tmp_path / "meeting"), 2) for _ in range(2)]
        host, _, worker = max(future.result(timeout=PATIENCE_S) for future in met)
        later = tmp_path / "later"
        held = meet(str(later), 3)
        wait_until(lambda: later.exists() and len(os.listdir(later)) == 1, "it does not run", PATIENCE_S)
        os.kill(rank_above(worker), signal.SIGKILL)
        others = [meet(str(later), 3), meet(str(later), 3)]
        for future in (held, *others):
            future.result(timeout=PATIENCE_S)
        log = next((tmp_path / "runinfo").glob("*/flow.log"))
        wait_until(lambda: "the block is lost: " in log.read_text(), "nobody said whose end it was", PATIENCE_S)
    (said,) = [line for line in log.read_text().splitlines() if "the block is lost: " in line]
    assert f"on node {host}" in said

"""Tasks of ranks on four nodes of a real Slurm, where neither ssh nor a nested srun leads from one to another."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from rank_apps import (
    PATIENCE_S,
    calling_nobody,
    devices,
    failing,
    hosts_of_ranks,
    leaving_a_daemon,
    left,
    logged,
    ranks_told,
    resting,
    serial,
    wait_until,
    whole,
)

import flow_core as flow
from flow_core.errors import AppTimeout, RemoteError, TaskLost, TaskRefused

pytestmark = [pytest.mark.services, pytest.mark.timeout(500)]
TWO_BY_TWO = {"nodes": 2, "ranks_per_node": 2}
ConfigOf = Callable[..., flow.Config]


def test_ranks_are_on_the_nodes_that_were_asked_for(four_nodes: ConfigOf, tmp_path: Path) -> None:
    with flow.load(four_nodes()):
        assert hosts_of_ranks(stdout=str(tmp_path / "out"), resource_specification=TWO_BY_TWO).result(PATIENCE_S) == 0
        found = whole(2, resource_specification={"nodes": 4, "ranks_per_node": 1}).result(PATIENCE_S)
        wait_until(lambda: not left())
    assert sorted(Counter((tmp_path / "out").read_text().split()).values()) == [2, 2]
    assert [(rank, total) for rank, total, _ in found] == [(rank, 8) for rank in range(4)]
    assert {host for _, _, host in found} == {"n1", "n2", "n3", "n4"}


def test_an_error_of_mpi_comes_to_the_script_and_not_the_end_of_the_worker(four_nodes: ConfigOf) -> None:
    before = {*sys.modules}
    with flow.load(four_nodes()):
        # A RemoteError, unless another test has begun MPI in this process.
        with pytest.raises(Exception, match="MPI_ERR_RANK") as raised:
            calling_nobody(resource_specification=TWO_BY_TWO).result(PATIENCE_S)
        assert isinstance(raised.value, RemoteError) or "mpi4py.MPI" in before
        assert len(whole(1, resource_specification=TWO_BY_TWO).result(PATIENCE_S)) == 4
    assert ("mpi4py.MPI" in sys.modules) == ("mpi4py.MPI" in before)


def test_what_a_rank_of_another_node_raises_names_the_rank_and_the_node(four_nodes: ConfigOf) -> None:
    with flow.load(four_nodes()), pytest.raises(ValueError, match="of rank 1") as raised:
        failing(1, resource_specification={"nodes": 2, "ranks_per_node": 1}).result(PATIENCE_S)
    assert re.search(r"raised by rank 1 on node n[1-4]\b", "\n".join(raised.value.__notes__))


def test_srun_starts_the_ranks_where_the_site_wants_it(four_nodes: ConfigOf, tmp_path: Path) -> None:
    with flow.load(four_nodes(mpi_launcher="srun")):
        assert hosts_of_ranks(stdout=str(tmp_path / "out"), resource_specification=TWO_BY_TWO).result(PATIENCE_S) == 0
    assert sorted(Counter((tmp_path / "out").read_text().splitlines()).values()) == [2, 2]


def test_no_node_has_more_than_it_has_workers_beside_200_serial_tasks(four_nodes: ConfigOf, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    with flow.load(four_nodes()):
        first = [serial(log, 0.05) for _ in range(100)]
        ranks = [logged(log, 1, resource_specification=TWO_BY_TWO) for _ in range(2)]
        second = [serial(log, 0.05) for _ in range(100)]
        for future in (*first, *ranks, *second):
            future.result(PATIENCE_S)
    rows = [path.read_text().split() for path in tmp_path.glob("log.*")]
    assert Counter(kind for kind, *_ in rows) == {"serial": 200, "ranks": 8}
    # Every task of ranks on two nodes, two ranks on each.
    places = Counter((task, node) for kind, task, node, *_ in rows if kind == "ranks")
    assert list(places.values()) == [2, 2, 2, 2]
    for node in ("n1", "n2", "n3", "n4"):
        changes = []
        for _, _, where, begin, end in rows:
            if where == node:
                changes += [(float(begin), 1), (float(end), -1)]
        busy, most = 0, 0
        # Of what ends and begins at one moment the end comes first.
        for _, change in sorted(changes):
            busy += change
            most = max(most, busy)
        assert most <= 4, f"{most} at once on {node}"


def test_tasks_of_ranks_have_devices_of_their_own_on_each_node(four_nodes: ConfigOf, tmp_path: Path) -> None:
    # Played: no node has a GPU, and what counts here is who may use which.
    asked = {**TWO_BY_TWO, "gpus_per_rank": 1}
    with flow.load(four_nodes(available_accelerators=2)):
        both = [devices(str(tmp_path / "meeting"), 2, resource_specification=asked) for _ in range(2)]
        seen = [one for future in both for one in future.result(PATIENCE_S)]
        # A node has two devices, and each task needs both of two nodes.
        assert Counter(seen) == {(f"n{number}", "0,1"): 2 for number in range(1, 5)}
        with pytest.raises(TaskRefused, match="GPUs"):
            devices(str(tmp_path), 1, resource_specification={**TWO_BY_TWO, "gpus_per_rank": 2}).result(PATIENCE_S)


def test_tasks_that_fill_a_block_bring_another_one(four_nodes: ConfigOf, tmp_path: Path) -> None:
    with flow.load(four_nodes(nodes=2, strategy="simple")):
        alone = {**TWO_BY_TWO, "exclusive": True}
        futures = [resting(str(tmp_path / f"told{number}"), resource_specification=alone) for number in range(2)]
        # As tasks they are two, for a block of eight workers.
        hosts = {host for at, one in enumerate(futures) for host, _, _ in ranks_told(tmp_path / f"told{at}", one)}
        assert hosts == {"n1", "n2", "n3", "n4"}
        for future in futures:
            assert future.cancel(kill=True)
        wait_until(lambda: not left())


def test_a_killed_rank_loses_the_task_and_names_its_node(four_nodes: ConfigOf, tmp_path: Path) -> None:
    with flow.load(four_nodes()):
        future = resting(str(tmp_path / "told"), resource_specification=TWO_BY_TWO)
        host, pid, _ = ranks_told(tmp_path / "told", future)[-1]
        os.kill(pid, 9)
        # Open MPI 4 drops the line that names the rank now and then; then it is the node of mpiexec that is named.
        with pytest.raises(
            TaskLost, match=rf"rank 3 was killed by signal 9.*on node {host}|rank was killed by .* node n\d"
        ):
            future.result(PATIENCE_S)
        wait_until(lambda: not left())
        assert len(whole(1, resource_specification=TWO_BY_TWO).result(PATIENCE_S)) == 4


def test_what_killed_ranks_leave_on_their_nodes_is_removed(four_nodes: ConfigOf, tmp_path: Path) -> None:
    before = files_of_mpi()
    with flow.load(four_nodes()):
        future = resting(str(tmp_path / "told"), resource_specification=TWO_BY_TWO)
        told = ranks_told(tmp_path / "told", future)
        environment = Path(f"/proc/{told[-1][1]}/environ").read_bytes().split(b"\0")
        (mark,) = [entry.partition(b"=")[2].decode() for entry in environment if entry.startswith(b"FLOW_MPI_TASK=")]
        memory = Path(f"/dev/shm/flow-ranks-{mark}")
        assert len([*memory.iterdir()]) == 4  # one of each rank
        for _, pid, _ in told:
            os.kill(pid, 9)
        with pytest.raises(TaskLost):
            future.result(PATIENCE_S)
        wait_until(lambda: not left() and not memory.exists())
    assert files_of_mpi() <= before


def files_of_mpi() -> set[Path]:
    """Return what Open MPI keeps in its usual places for the nodes of these tests."""
    return {*Path("/tmp").glob("ompi.n?.*/*"), *Path("/dev/shm").glob("*segment.n?.*")}


def test_a_killed_daemon_loses_the_task_and_names_its_node(four_nodes: ConfigOf, tmp_path: Path) -> None:
    with flow.load(four_nodes()):
        future = resting(str(tmp_path / "told"), resource_specification=TWO_BY_TWO)
        host, _, daemon = ranks_told(tmp_path / "told", future)[-1]
        os.kill(daemon, 9)
        with pytest.raises(TaskLost, match=f"node {host}"):
            future.result(PATIENCE_S)
        wait_until(lambda: not left())
        assert len(whole(1, resource_specification=TWO_BY_TWO).result(PATIENCE_S)) == 4


def test_a_killed_guard_loses_the_task_and_ends_the_ranks_of_its_node(four_nodes: ConfigOf, tmp_path: Path) -> None:
    with flow.load(four_nodes()):
        future = resting(str(tmp_path / "told"), resource_specification=TWO_BY_TWO)
        host, _, daemon = ranks_told(tmp_path / "told", future)[-1]
        os.kill(guard_above(daemon), 9)
        with pytest.raises(TaskLost, match=f"node {host}"):
            future.result(PATIENCE_S)
        wait_until(lambda: not left())
        assert len(whole(1, resource_specification=TWO_BY_TWO).result(PATIENCE_S)) == 4


def test_a_killed_agent_loses_the_task(four_nodes: ConfigOf, tmp_path: Path) -> None:
    with flow.load(four_nodes()):
        future = resting(str(tmp_path / "told"), resource_specification=TWO_BY_TWO)
        mpiexec = ranks_told(tmp_path / "told", future)[0][2]
        agents = Path(f"/proc/{mpiexec}/task/{mpiexec}/children").read_text().split()
        found = [int(pid) for pid in agents if b"flow_executors.mpi.agent" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert found
        os.kill(found[0], 9)
        with pytest.raises(TaskLost, match=r"\(flow-on\) .* was killed by signal 9"):
            future.result(PATIENCE_S)
        wait_until(lambda: not left())


@pytest.mark.slow
def test_daemons_that_ranks_leave_behind_end_with_the_task_on_each_node(four_nodes: ConfigOf) -> None:
    with flow.load(four_nodes()):
        assert leaving_a_daemon(False, resource_specification=TWO_BY_TWO).result(PATIENCE_S) == "returned"
        wait_until(lambda: not left())


def test_a_killed_manager_loses_the_task_and_names_its_node(four_nodes: ConfigOf, tmp_path: Path) -> None:
    with flow.load(four_nodes()):
        alone = {**TWO_BY_TWO, "exclusive": True}
        future = resting(str(tmp_path / "told"), resource_specification=alone)
        other = resting(str(tmp_path / "other"), resource_specification=alone)
        host, _, daemon = ranks_told(tmp_path / "told", future)[-1]
        ranks_told(tmp_path / "other", other)
        os.kill(manager_above(daemon), 9)
        with pytest.raises(TaskLost, match=f"node {host}"):
            future.result(PATIENCE_S)
        # Of the tasks of other nodes none is touched.
        assert other.running()
        assert other.cancel(kill=True)
        wait_until(lambda: not left())


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 3], ids=["of the head", "of another node"])
def test_one_rank_that_is_stopped_again_and_again_loses_the_task(
    four_nodes: ConfigOf, tmp_path: Path, rank: int
) -> None:
    def stop() -> bool:
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:
            return True
        return future.done()

    with flow.load(four_nodes(heartbeat_threshold=6)):
        future = resting(str(tmp_path / "told"), resource_specification=TWO_BY_TWO)
        host, pid, _ = ranks_told(tmp_path / "told", future)[rank]
        wait_until(stop)
        with pytest.raises(TaskLost, match=rf"(?s)node {host}.*was stopped \(state T, process {pid} .*and was killed"):
            future.result(PATIENCE_S)
        wait_until(lambda: not left())
        assert len(whole(1, resource_specification=TWO_BY_TWO).result(PATIENCE_S)) == 4


@pytest.mark.parametrize("how", ["cancel", "walltime"])
def test_the_end_of_a_task_leaves_no_process_on_any_node(four_nodes: ConfigOf, tmp_path: Path, how: str) -> None:
    with flow.load(four_nodes()):
        limit = 8 if how == "walltime" else None
        future = resting(str(tmp_path / "told"), walltime=limit, resource_specification=TWO_BY_TWO)
        if how == "cancel":
            ranks_told(tmp_path / "told", future)
            assert future.cancel(kill=True)
        else:
            with pytest.raises(AppTimeout):
                future.result(PATIENCE_S)
        wait_until(lambda: not left())


def guard_above(pid: int) -> int:
    """Return the guard below which a daemon of MPI runs."""
    while b"flow_executors.mpi.guard" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        pid = parent_of(pid)
    return pid


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as line:
        return int(line.read().rpartition(")")[2].split()[1])


def manager_above(pid: int) -> int:
    """Return the manager below which a process runs."""
    while True:
        with open(f"/proc/{pid}/comm") as name:
            if name.read().strip() == "flow-manager":
                return pid
        pid = parent_of(pid)

"""What befalls a run on a real Slurm: daemons that stop or die, commands that hang, jobs taken away, nodes lost.

Each time the run has one block, which is lost by the fault itself or killed meanwhile, so that the run cannot
go on before the scheduler gives another. In the end no job is left that is billed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rows import rows
from trial import Run, Start

sys.path.insert(0, str(Path(__file__).parents[1] / "providers"))

from provider_services import service  # needs the line above

pytestmark = pytest.mark.timeout(400)

AWAY_S = 30
KINDS = ("htex", "llex")


class Cluster:
    """A Slurm of two nodes, and who does harm to it."""

    def __init__(self, variables: dict[str, str], directory: Path) -> None:
        self.variables = variables
        self.directory = directory
        self.environment = {**os.environ, **variables}

    def do(self, *words: str) -> str:
        """Run a command of the scheduler's administrator, and return what it says."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def jobs(self) -> list[str]:
        """Return the jobs that wait or run."""
        return self.do("squeue", "-h", "-t", "PD,R,CF,S", "-o", "%A").split()

    def daemon(self, name: str) -> psutil.Process:
        """Return a daemon: ``slurmctld``, or ``slurmd.n1`` and so on."""
        return psutil.Process(int((self.directory / f"{name}.pid").read_text()))

    def run(self, start: Start, kind: str, **changes: str) -> Run:
        """Start a run whose block is a job of this cluster."""
        setup: dict[str, object] = {
            "tasks": 120,
            "nap_s": 0.2,
            "patience_s": 220,
            "slurm": {"partition": "debug", "exclusive": False, "walltime": "00:10:00", "cmd_timeout": 5},
            "provider": {"max_blocks": 1},
            "executor": {"address": "127.0.0.1"},
        }
        return start(kind, setup=setup, **{**self.variables, **changes})

    def check(self, run: Run) -> None:
        """The run came to the right end and no job of it is left."""
        run.check()
        assert self.jobs() == []


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory, extra: str) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("slurm")
    settings = {"SLURM_TEST_DIR": str(directory), "SLURM_TEST_PORT": "18510", "SLURM_TEST_NODES": "2"}
    settings["SLURM_TEST_UTS"] = "1" if os.getuid() == 0 else "0"
    with service("slurm", "sbatch", {**settings, "SLURM_TEST_EXTRA": extra}) as variables:
        yield Cluster(variables, directory)


@pytest.fixture
def extra() -> str:
    """Further lines of slurm.conf."""
    return ""


def kill_manager(run: Run) -> None:
    for pid in run.pids("manager"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", rows(KINDS, chaos=[]))
def test_a_controller_that_is_stopped_for_a_while_only_delays(start: Start, cluster: Cluster, kind: str) -> None:
    run = cluster.run(start, kind)
    controller = cluster.daemon("slurmctld")
    controller.send_signal(signal.SIGSTOP)
    try:
        kill_manager(run)
        time.sleep(AWAY_S)
    finally:
        controller.send_signal(signal.SIGCONT)
    cluster.check(run)


@pytest.mark.parametrize("kind", rows(KINDS, chaos=[]))
def test_a_controller_that_is_killed_and_started_again_only_delays(start: Start, cluster: Cluster, kind: str) -> None:
    run = cluster.run(start, kind)
    controller = cluster.daemon("slurmctld")
    controller.kill()
    kill_manager(run)
    time.sleep(AWAY_S)
    cluster.do("slurmctld")
    cluster.check(run)


@pytest.mark.parametrize("kind", rows(KINDS, chaos=[]))
def test_a_node_whose_daemon_is_killed_is_replaced_by_another(start: Start, cluster: Cluster, kind: str) -> None:
    run = cluster.run(start, kind)
    node = cluster.do("squeue", "-h", "-t", "R", "-o", "%N")
    cluster.daemon(f"slurmd.{node}").kill()
    kill_manager(run)
    cluster.check(run)


@pytest.mark.parametrize(
    ("kind", "how"), rows([(kind, how) for kind in KINDS for how in ("scancel", "requeue", "down")], chaos=[])
)
def test_a_job_that_is_taken_away_is_replaced(start: Start, cluster: Cluster, kind: str, how: str) -> None:
    run = cluster.run(start, kind)
    (job,) = cluster.jobs()
    node = cluster.do("squeue", "-h", "-t", "R", "-o", "%N")
    if how == "scancel":
        cluster.do("scancel", job)
    elif how == "requeue":
        cluster.do("scontrol", "update", f"jobid={job}", "requeue=1")
        cluster.do("scontrol", "requeue", job)
    else:
        cluster.do("scontrol", "update", f"nodename={node}", "state=down", "reason=trial")
    cluster.check(run)


_SHADOW = """#!/bin/bash
if [ -e "{flag}" ]; then {fault}; fi
exec {real} "$@"
"""
FAULTS = {"hang": "sleep 120", "fail": "echo 'slurm_load_jobs error: Unexpected message received' >&2; exit 1"}


@pytest.mark.parametrize(("kind", "fault"), rows([(kind, fault) for kind in KINDS for fault in FAULTS], chaos=[]))
def test_commands_that_hang_or_fail_for_a_while_only_delay(
    start: Start, cluster: Cluster, tmp_path: Path, kind: str, fault: str
) -> None:
    shadows, flag = tmp_path / "shadows", tmp_path / "flag"
    shadows.mkdir()
    for name in ("squeue", "sbatch", "scancel", "sacct"):
        text = _SHADOW.format(flag=flag, fault=FAULTS[fault], real=f"/usr/bin/{name}")
        (shadows / name).write_text(text)
        (shadows / name).chmod(stat.S_IRWXU)
    run = cluster.run(start, kind, PATH=f"{shadows}:{os.environ['PATH']}")
    flag.touch()
    kill_manager(run)
    time.sleep(AWAY_S)
    flag.unlink()
    cluster.check(run)


class TestStuck:
    """Jobs that have ended and do not leave, since the node's epilog hangs."""

    @pytest.fixture
    def extra(self, tmp_path: Path) -> str:
        """An epilog that waits while there is a file."""
        epilog = tmp_path / "epilog"
        epilog.write_text(f"#!/bin/bash\nfor _ in {{1..600}}; do [ -e {tmp_path}/stuck ] || exit 0; sleep 0.2; done\n")
        epilog.chmod(stat.S_IRWXU)
        return f"Epilog={epilog}"

    @pytest.mark.parametrize("kind", rows(KINDS, chaos=[]))
    def test_a_job_that_does_not_leave_is_replaced_and_the_end_does_not_wait_for_it(
        self, start: Start, cluster: Cluster, tmp_path: Path, kind: str
    ) -> None:
        run = cluster.run(start, kind)
        (tmp_path / "stuck").touch()
        kill_manager(run)
        try:
            cluster.check(run)
        finally:
            (tmp_path / "stuck").unlink()


class TestPreempted:
    """Jobs that must make room for those of a partition that goes before theirs."""

    @pytest.fixture
    def extra(self) -> str:
        """Such a partition."""
        first = "PartitionName=first Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10"
        return f"PreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\n{first}"

    @pytest.mark.parametrize("kind", rows(KINDS, chaos=[]))
    def test_a_job_that_makes_room_for_others_is_replaced_when_they_have_ended(
        self, start: Start, cluster: Cluster, kind: str
    ) -> None:
        run = cluster.run(start, kind)
        (job,) = cluster.jobs()
        cluster.do("sbatch", "-p", "first", "-N", "2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 10")
        run.wait_log(f"(job {job}): FAILED", 60)
        cluster.check(run)

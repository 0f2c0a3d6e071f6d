"""Tasks of ranks on one node, with Open MPI 4, Open MPI 5 and MPICH."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rank_apps import (
    PATIENCE_S,
    command_of_ranks,
    devices,
    failing,
    finalizing,
    hosts_of_ranks,
    large,
    leaving_a_daemon,
    left,
    ranks_told,
    resting,
    wait_until,
    whole,
)

import flow_core as flow
import flow_executors
from flow_core.errors import AppException, AppTimeout, BashExitFailure, TaskLost, WorkerLost
from flow_providers.local.provider import LocalProvider

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]
HOST = os.uname().nodename
TWO = {"ranks": 2}


def test_a_command_runs_as_so_many_ranks(one_node: flow.Config, tmp_path: Path) -> None:
    with flow.load(one_node):
        assert hosts_of_ranks(stdout=str(tmp_path / "out"), resource_specification=TWO).result(PATIENCE_S) == 0
    assert (tmp_path / "out").read_text().split() == [HOST] * 2


def test_a_function_runs_on_every_rank_with_a_communicator_of_its_own(one_node: flow.Config) -> None:
    with flow.load(one_node):
        both = [whole(number, resource_specification=TWO) for number in (1, 10)]
        assert [future.result(PATIENCE_S) for future in both] == [
            [(0, 2, HOST), (1, 2, HOST)],
            [(0, 20, HOST), (1, 20, HOST)],
        ]


@flow.mpi_app(ranks=2, cache=True)
def size() -> int:
    from mpi4py import MPI

    return int(MPI.COMM_WORLD.Get_size())


def test_a_cached_function_is_run_with_another_number_of_ranks_and_not_told_of_the_end_of_its_block(
    one_node: flow.Config,
) -> None:
    one_node.warn_before_end_s = 5
    with flow.load(one_node) as kernel:
        assert size().result(PATIENCE_S) == 2
        assert size.options(resource_specification={"ranks": 3})().result(PATIENCE_S) == 3
        assert size().result(PATIENCE_S) == 2
        assert kernel.summary().memoized == 1


def test_two_tasks_on_a_node_share_no_device(one_node: flow.Config, tmp_path: Path) -> None:
    # Played: this machine need not have any.
    one_node.executors = [
        flow_executors.HighThroughputExecutor(
            label="htex",
            max_workers=4,
            cores_per_worker=0.25,
            available_accelerators=4,
            provider=LocalProvider(max_blocks=1),
        )
    ]
    with flow.load(one_node):
        asked = {**TWO, "gpus_per_rank": 1}
        both = [devices(str(tmp_path / "meeting"), 2, resource_specification=asked) for _ in range(2)]
        seen = [{found for _, found in future.result(PATIENCE_S)} for future in both]
    assert [len(one) for one in seen] == [1, 1]  # the ranks of a task on one node see the same
    assert sorted(",".join(found for one in seen for found in one).split(",")) == ["0", "1", "2", "3"]


def test_values_may_be_larger_than_pipes(one_node: flow.Config) -> None:
    with flow.load(one_node):
        assert len(large(3_000_000, resource_specification=TWO).result(PATIENCE_S)) == 3_000_000


def test_what_a_rank_raises_ends_all_and_names_the_rank(one_node: flow.Config) -> None:
    with flow.load(one_node):
        with pytest.raises(ValueError, match="of rank 1") as raised:
            failing(1, resource_specification=TWO).result(PATIENCE_S)
        assert f"raised by rank 1 on node {HOST}" in raised.value.__notes__
        wait_until(lambda: not left())


def test_a_killed_rank_loses_the_task(one_node: flow.Config, tmp_path: Path) -> None:
    with flow.load(one_node):
        future = resting(str(tmp_path / "told"), resource_specification=TWO)
        os.kill(ranks_told(tmp_path / "told", future)[1][1], 9)
        with pytest.raises(TaskLost, match=f"rank (1 )?was killed by signal 9.* node {HOST}"):
            future.result(PATIENCE_S)
        wait_until(lambda: not left())


def test_a_killed_launcher_of_a_function_loses_the_task(one_node: flow.Config, tmp_path: Path) -> None:
    with flow.load(one_node):
        future = resting(str(tmp_path / "told"), resource_specification=TWO)
        mpiexec = ranks_told(tmp_path / "told", future)[0][2]
        os.kill(mpiexec, 9)
        with pytest.raises(
            TaskLost, match=rf"the launcher of its ranks was killed by signal 9 \(SIGKILL\).* node {HOST}"
        ):
            future.result(PATIENCE_S)
        wait_until(lambda: not left())


@pytest.mark.parametrize("after", ["", "; exit $?"], ids=["in place of the shell", "below the shell"])
def test_a_killed_launcher_of_a_command_loses_the_task(one_node: flow.Config, tmp_path: Path, after: str) -> None:
    begun = tmp_path / "begun"
    with flow.load(one_node):
        future = command_of_ranks(
            f"sh -c ': > {begun}; exec sleep 300'{after}", stdout=str(tmp_path / "out"), resource_specification=TWO
        )
        wait_until(lambda: begun.exists() or future.done())
        (launcher,) = launchers_of(tmp_path)
        os.kill(launcher, 9)
        with pytest.raises(TaskLost, match=r"the launcher of its ranks.* was killed by signal 9"):
            future.result(PATIENCE_S)
        wait_until(lambda: not left())


def launchers_of(folder: Path) -> list[int]:
    """Return the mpiexec processes, of tasks of ranks, whose command names a directory."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"mpiexec") and any(os.fsencode(folder) in word for word in words):
            found.append(int(pid))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("quiet", [False, True])
def test_daemons_that_ranks_leave_behind_end_with_the_task(one_node: flow.Config, quiet: bool) -> None:
    with flow.load(one_node):
        assert leaving_a_daemon(quiet, resource_specification=TWO).result(PATIENCE_S) == "returned"
        wait_until(lambda: not left())


@pytest.mark.slow
@pytest.mark.parametrize("which", ["0", "$OMPI_COMM_WORLD_RANK"], ids=["one rank", "all ranks"])
def test_a_killed_rank_of_a_command_loses_the_task_each_time(one_node: flow.Config, which: str) -> None:
    command = f"bash -c '[ $OMPI_COMM_WORLD_RANK = {which} ] && kill -9 $$; exec sleep 100'"
    with flow.load(one_node):
        futures = [command_of_ranks(command, resource_specification=TWO) for _ in range(8)]
        errors = [future.exception(PATIENCE_S) for future in futures]
    assert {type(error) for error in errors} == {WorkerLost}, errors
    assert all("was killed by signal 9" in str(error) for error in errors)


def test_a_function_that_ends_mpi_itself_is_told_so(one_node: flow.Config) -> None:
    with flow.load(one_node):
        with pytest.raises(AppException, match=r"has called MPI.Finalize\(\).*leave that call out"):
            finalizing(resource_specification=TWO).result(PATIENCE_S)
        wait_until(lambda: not left())


def test_a_program_that_is_missing_is_named(one_node: flow.Config) -> None:
    with flow.load(one_node), pytest.raises(BashExitFailure, match="mpiexec could not start the program 'nosuch'"):
        command_of_ranks("nosuch", resource_specification=TWO).result(PATIENCE_S)


def test_a_launcher_of_another_mpi_is_named(one_node: flow.Config) -> None:
    one_node.executors[0].mpi_launcher = "mpich"
    with flow.load(one_node), pytest.raises(BashExitFailure) as raised:
        command_of_ranks("true", resource_specification=TWO).result(PATIENCE_S)
    assert "mpi_launcher is 'mpich', and /" in "".join(raised.value.__notes__)
    assert "is that of 'openmpi'" in "".join(raised.value.__notes__)


def test_a_walltime_ends_all_ranks(one_node: flow.Config, tmp_path: Path) -> None:
    with flow.load(one_node):
        future = resting(str(tmp_path / "told"), walltime=4, resource_specification=TWO)
        with pytest.raises(AppTimeout):
            future.result(PATIENCE_S)
        wait_until(lambda: not left())


def test_a_function_of_the_users_own_starts_the_ranks(one_node: flow.Config, tmp_path: Path) -> None:
    one_node.executors[0].mpi_launcher = lambda hosts, ranks: ["echo", "mine", *hosts, str(sum(ranks))]
    with flow.load(one_node):
        assert hosts_of_ranks(stdout=str(tmp_path / "out"), resource_specification=TWO).result(PATIENCE_S) == 0
    assert (tmp_path / "out").read_text().split() == ["mine", HOST, "2", "hostname"]


def test_ranks_that_never_begin_lose_the_task_and_are_told_of(one_node: flow.Config, tmp_path: Path) -> None:
    one_node.executors[0].mpi_launcher = lambda hosts, ranks: ["sh", "-c", "exec sleep 300", "hangs"]
    limited = resting.options(environment={"FLOW_MPI_START_TIMEOUT": "1"})
    with flow.load(one_node):
        future = limited(str(tmp_path / "told"), resource_specification=TWO)
        with pytest.raises(TaskLost, match="its ranks have not begun with the function within 1 s"):
            future.result(PATIENCE_S)
        wait_until(lambda: not left())


PROGRAM = """
import os, sys
import flow
from flow_providers import LocalProvider

@flow.mpi_app(ranks=2, gather=True)
def library(number):
    from mpi4py import MPI
    return MPI.COMM_WORLD.allreduce(number), MPI.Get_library_version().split(",")[0]

@flow.bash_app
def command(stdout=None):
    return f"PATH={os.path.dirname(sys.executable)}:$PATH; $FLOW_MPI_PREFIX sh -c 'echo rank'"

if __name__ == "__main__":
    executor = flow.HighThroughputExecutor(
        max_workers=4, cores_per_worker=0.25, mpi_launcher=sys.argv[1], provider=LocalProvider(max_blocks=1)
    )
    with flow.load(flow.Config(executors=[executor])):
        print(library(3).result(150))
        command(stdout="out", resource_specification={"ranks": 2}).result(150)
        print(open("out").read().split())
"""


@pytest.mark.parametrize(
    ("other_mpi", "launcher", "library"),
    [
        ("MPI_TEST_OPENMPI5", "auto", "Open MPI v5"),
        ("MPI_TEST_MPICH", "auto", "MPICH Version"),
        ("MPI_TEST_MPICH", "mpich", "MPICH Version"),
    ],
    indirect=["other_mpi"],
)
def test_another_mpi_of_the_environment_is_found(other_mpi: str, launcher: str, library: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    folder = os.path.dirname(other_mpi)
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        [other_mpi, "program.py", launcher],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=340,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    values, ranks = done.stdout.splitlines()
    assert values.count("(6, ") == 2
    assert values.count(library) == 2
    assert ranks == "['rank', 'rank']"

"""Launchers with the real programs they use: Open MPI and GNU parallel."""

from __future__ import annotations

import os
import subprocess

import pytest

from flow_providers.interfaces.launcher import Launcher
from flow_providers.launchers import GnuParallelLauncher, MpiExecLauncher, MpiRunLauncher, WrappedLauncher

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]

# it refuses root unless told twice
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "FLOW_X": 'it\'s "x"',
}
AWKWARD = 'for x in \'a b\' "c\'d"; do\n  echo "<$x> $FLOW_X $(pwd)"\ndone'


@pytest.fixture(params=[MpiExecLauncher, MpiRunLauncher])
def mpi(request: pytest.FixtureRequest, needs_mpi: None) -> Launcher:
    return request.param()


@pytest.fixture
def needs_mpi(need_program: object) -> None:
    need_program("mpiexec", "launchers")  # type: ignore[operator]  # a fixture that is a function


@pytest.fixture
def parallel(need_program: object) -> Launcher:
    need_program("parallel", "launchers")  # type: ignore[operator]  # a fixture that is a function
    return GnuParallelLauncher()


def bash(code: str, cwd: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, timeout=60, env=ENVIRONMENT, cwd=str(cwd)
    )


def test_mpi_starts_as_many_copies_as_asked(mpi: Launcher, tmp_path: object) -> None:
    done = bash(mpi("echo $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE", 3, 1), tmp_path)
    assert sorted(done.stdout.splitlines()) == ["0 of 3", "1 of 3", "2 of 3"], done.stderr


def test_mpi_leaves_the_command_unharmed(mpi: Launcher, tmp_path: object) -> None:
    done = bash(mpi(AWKWARD, 1, 1), tmp_path)
    assert done.stdout == f'<a b> it\'s "x" {tmp_path}\n<c\'d> it\'s "x" {tmp_path}\n', done.stderr


def test_mpi_ends_with_a_failure_when_a_copy_fails(mpi: Launcher, tmp_path: object) -> None:
    assert bash(mpi("exit 3", 2, 1), tmp_path).returncode == 3


def test_gnu_parallel_starts_as_many_copies_as_asked(parallel: Launcher, tmp_path: object) -> None:
    done = bash(parallel("echo copy", 3, 1), tmp_path)
    assert done.stdout == "copy\n" * 3, done.stderr


def test_gnu_parallel_leaves_the_command_unharmed(parallel: Launcher, tmp_path: object) -> None:
    done = bash(parallel(AWKWARD, 1, 1), tmp_path)
    assert done.stdout == f'<a b> it\'s "x" {tmp_path}\n<c\'d> it\'s "x" {tmp_path}\n', done.stderr


def test_gnu_parallel_ends_with_a_failure_when_a_copy_fails(parallel: Launcher, tmp_path: object) -> None:
    assert bash(parallel("exit 3", 1, 1), tmp_path).returncode != 0


def test_a_wrapper_around_the_command_is_launched_by_mpi(mpi: Launcher, tmp_path: object) -> None:
    done = bash(WrappedLauncher("env SITE=here", launcher=mpi)('echo "$SITE"', 2, 1), tmp_path)
    assert done.stdout == "here\nhere\n", done.stderr

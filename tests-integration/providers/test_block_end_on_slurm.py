"""A real Slurm ends a block: tasks are told, save their work, and go on in the next block."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from provider_services import service

import flow
from flow import Config, HighThroughputExecutor, python_app
from flow_executors.testing.local_run import wait_until
from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.slurm.provider import SlurmProvider
from flow_providers.launchers import SimpleLauncher, SingleNodeLauncher, SrunLauncher

pytestmark = [pytest.mark.services, pytest.mark.timeout(170)]

PATIENCE_S = 100
LAUNCHERS = {"srun": SrunLauncher, "single": SingleNodeLauncher, "simple": SimpleLauncher}


@python_app(warn_before_end_s=20)
def work(place: str) -> str:
    """Wait to be told in the first try; the next one ends with what that has saved."""
    import os
    import time

    import flow

    if os.path.exists(f"{place}/saved"):
        return open(f"{place}/saved").read()

    def save() -> None:
        with open(f"{place}/half", "w") as file:
            file.write(f"by job {os.environ['SLURM_JOB_ID']}")
        time.sleep(3)  # so long it takes to save the work; a job that does not wait has ended by then
        os.rename(f"{place}/half", f"{place}/saved")
        raise flow.Requeue("half of it is saved")

    flow.on_block_end(save)
    with open(f"{place}/job.new", "w") as file:
        file.write(os.environ["SLURM_JOB_ID"])
    os.replace(f"{place}/job.new", f"{place}/job")
    while True:
        time.sleep(0.2)


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """A Slurm that leaves cancelled jobs 20 s between SIGTERM and SIGKILL."""
    extra = {"SLURM_TEST_UTS": "1" if os.getuid() == 0 else "0", "SLURM_TEST_EXTRA": "KillWait=20"}
    with service("slurm", "sbatch", extra) as variables:
        yield variables


@pytest.fixture
def channel(slurm: dict[str, str], tmp_path: Path, own_ledger: Path) -> LocalChannel:
    return LocalChannel(userhome=str(tmp_path), envs=slurm, script_dir=str(tmp_path / "scripts"))


def config(channel: LocalChannel, place: Path, launcher: str, options: str = "", walltime: str = "00:05:00") -> Config:
    """Return a Config of blocks of one node, of which there may be two."""
    provider = SlurmProvider(
        "debug",
        channel=channel,
        min_blocks=1,
        max_blocks=2,
        launcher=LAUNCHERS[launcher](),
        walltime=walltime,
        scheduler_options=options,
        cmd_timeout=30,
    )
    provider.fresh_s = 0.2
    executor = HighThroughputExecutor(
        label="htex",
        provider=provider,
        address="127.0.0.1",
        max_workers=1,
        cores_per_worker=1,
        heartbeat_period=1,
    )
    return Config(
        executors=[executor],
        run_dir=str(place / "runinfo"),
        retries=0,
        infrastructure_retries=0,
        strategy_period=0.5,
    )


def result_of(
    config: Config, place: Path, end: Callable[[str], object] = lambda job: None, warn_s: float = 15
) -> tuple[str, str]:
    """Run one task, have its job ended, and return its result and that job."""
    with flow.load(config):
        future = work.options(warn_before_end_s=warn_s)(str(place))
        wait_until(lambda: (place / "job").exists() or future.done(), "it has not begun", PATIENCE_S)
        job = (place / "job").read_text()
        end(job)
        return future.result(timeout=PATIENCE_S), job


def saved_at(channel: LocalChannel, place: Path, launcher: str, command: str, options: str = "") -> str:
    """Run one task, have its job ended by a command, and return who saved its work: the job that was ended."""

    def end(job: str) -> None:
        ended = channel.execute_wait(command.format(job=job), 30)
        assert ended.exit_code == 0, ended.stderr

    found, job = result_of(config(channel, place, launcher, options), place, end)
    assert found == f"by job {job}"
    assert "is run again: its block was about to end in try 1" in log_of(place)
    return managers_log(place)


def log_of(place: Path) -> str:
    """Return the log of the one run below a directory."""
    (log,) = place.glob("runinfo/*/flow.log")
    return log.read_text()


def managers_log(place: Path) -> str:
    """Return what all managers of a run have logged."""
    return "\n".join(log.read_text() for log in place.glob("runinfo/*/**/manager.log"))


@pytest.mark.parametrize(
    ("command", "launcher"),
    [
        ("scancel --signal=USR1 {job}", "srun"),  # the job's steps
        ("scancel --signal=USR2 --batch {job}", "srun"),  # its script
        ("scancel --signal=USR1 --batch {job}", "single"),
        ("scancel --signal=USR1 --full {job}", "simple"),  # all processes
    ],
)
def test_a_signal_to_a_job_tells_its_tasks_and_they_have_their_time(
    channel: LocalChannel, tmp_path: Path, command: str, launcher: str
) -> None:
    name = "SIGUSR2" if "USR2" in command else "SIGUSR1"
    told = saved_at(channel, tmp_path, launcher, command)
    assert f"its block is about to end (the manager received {name})" in told


@pytest.mark.parametrize("launcher", ["srun", "simple"])
def test_tasks_of_a_cancelled_job_have_the_time_until_it_is_killed(
    channel: LocalChannel, tmp_path: Path, launcher: str
) -> None:
    told = saved_at(channel, tmp_path, launcher, "scancel {job}")
    assert "its block was ended (the manager received SIGTERM)" in told


def test_tasks_of_a_requeued_job_are_run_again(channel: LocalChannel, tmp_path: Path) -> None:
    saved_at(channel, tmp_path, "single", "scontrol requeue {job}", "#SBATCH --requeue")


@pytest.mark.parametrize("signal", ["USR1@50", "B:USR1@50"])
def test_slurm_tells_ahead_where_the_job_asks_for_a_signal(channel: LocalChannel, tmp_path: Path, signal: str) -> None:
    launcher = "single" if signal.startswith("B:") else "srun"
    told = config(channel, tmp_path, launcher, f"#SBATCH --signal={signal}", "00:01:00")
    found, job = result_of(told, tmp_path)
    assert found == f"by job {job}"
    assert "the manager received SIGUSR1" in managers_log(tmp_path)


def test_a_job_near_its_walltime_tells_its_tasks_without_any_signal(channel: LocalChannel, tmp_path: Path) -> None:
    with flow.load(config(channel, tmp_path, "single", "", "00:01:00")):
        work.options(warn_before_end_s=45)(str(tmp_path))
        wait_until((tmp_path / "saved").exists, "it was not told", PATIENCE_S)
        wait_until(lambda: "is run again: its block was about to end" in log_of(tmp_path), "it is not run again")
    assert "received SIGUSR" not in managers_log(tmp_path)
    assert "its task is told that the block ends" in managers_log(tmp_path)

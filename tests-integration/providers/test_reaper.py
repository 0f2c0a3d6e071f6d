"""The reaper, and the command line after a crash: no job is left behind, and none is ended that should live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flow_providers.channels.local import LocalChannel
from flow_providers.errors import ProviderError
from flow_providers.interfaces.job_state import JobState
from flow_providers.jobs.accounted import AccountedProvider
from flow_providers.jobs.ledger import JobLedger
from flow_providers.jobs.reaper_process import ReaperProcess
from flow_providers.local.provider import LocalProvider

DRIVER = """
import os, subprocess, sys, time
from flow_providers import LocalProvider
from flow_providers.channels import LocalChannel
from flow_providers.jobs.accounted import AccountedProvider
from flow_providers.jobs.ledger import JobLedger
from flow_providers.jobs.reaper_process import ReaperProcess
where, reaped = sys.argv[1], sys.argv[2].startswith("reaped")
provider = LocalProvider(channel=LocalChannel(script_dir=where + "/scripts"))
ledger = JobLedger(where + "/jobs.ledger")
reaper = None
if reaped:
    reaper = ReaperProcess(provider, ledger, run_id="run-1", owner="htex", log_path=where + "/reaper.log")
provider = AccountedProvider(provider, ledger, run_id="run-1", owner="htex")
if sys.argv[2] == "reaped between intent and submission":
    provider.provider.submit = lambda *_, **__: (print(reaper.pid, flush=True), os.kill(os.getpid(), int(sys.argv[3])))
    provider.submit("sleep 987", 1)
if sys.argv[2] == "reaped within the submission":
    # Killed as the command starts that starts the job, and that goes on when it may.
    from flow_providers.channels import local
    def run(command, *_):
        script = f"kill -9 {os.getpid()}; read -r _ < {where}/go; {command}"
        subprocess.Popen(["bash", "-c", script], start_new_session=True)
        time.sleep(50)
    local.run = run
    print(reaper.pid, flush=True)
    provider.submit("sleep 987", 1)
for _ in range(2):
    print(provider.submit("sleep 987", 1), flush=True)
print(reaper.pid if reaper else 0, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[LocalProvider]:
    provider = LocalProvider(channel=LocalChannel(script_dir=str(tmp_path / "scripts")))
    yield provider
    provider.cancel(provider.find(""))


@pytest.fixture
def ledger(tmp_path: Path) -> JobLedger:
    return JobLedger(tmp_path / "jobs.ledger")


def crash(tmp_path: Path, how: str, number: int = signal.SIGKILL) -> tuple[list[str], int]:
    # Into files: a process that outlives the driver holds a pipe open.
    with (tmp_path / "out").open("w+") as out, (tmp_path / "err").open("w+") as err:
        words = [str(tmp_path), how, str(int(number))]
        done = subprocess.run([sys.executable, "-c", DRIVER, *words], stdout=out, stderr=err, timeout=50)
    assert done.returncode == -number, (tmp_path / "err").read_text()
    *jobs, reaper = (tmp_path / "out").read_text().split()
    return jobs, int(reaper)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def commands_below(pid: int) -> list[list[str]]:
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it may have ended meanwhile
            found.append(child.cmdline())
    return found


def wait_until(true: Callable[[], bool], timeout_s: float = 45) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_jobs_of_a_driver_that_was_killed_are_cancelled(
    provider: LocalProvider, ledger: JobLedger, tmp_path: Path
) -> None:
    jobs, reaper = crash(tmp_path, "reaped")
    wait_until(lambda: not ledger.open_entries())
    assert [status.state for status in provider.status(jobs)] == [JobState.CANCELLED] * 2
    wait_until(lambda: gone(reaper))
    assert "2 job(s) cancelled, 0 left" in (tmp_path / "reaper.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_reaper_of_a_driver_that_died_before_its_submission_leaves_soon(
    provider: LocalProvider, ledger: JobLedger, tmp_path: Path, number: signal.Signals
) -> None:
    _, reaper = crash(tmp_path, "reaped between intent and submission", number)
    wait_until(lambda: gone(reaper), timeout_s=25)  # it waited for a job to appear for 60 s
    assert ledger.open_entries() == []
    assert [entry.detail for entry in ledger.entries()] == ["gone"]
    assert provider.find("") == []


def test_a_submission_that_outlives_its_driver_is_waited_for_and_cancelled(
    provider: LocalProvider, ledger: JobLedger, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "go")
    _, reaper = crash(tmp_path, "reaped within the submission")
    # The reaper waits as long as the command is there, which opens the pipe for reading when this opens it for writing.
    wait_until(lambda: any("find" in words for words in commands_below(reaper)))
    (tmp_path / "go").write_text("go\n")
    wait_until(lambda: gone(reaper))
    (job,) = provider.find("")
    assert provider.status([job])[0].state is JobState.CANCELLED
    assert [entry.detail for entry in ledger.entries()] == ["CANCELLED"]


def test_a_driver_that_closes_its_reaper_keeps_its_jobs(provider: LocalProvider, ledger: JobLedger) -> None:
    reaper = ReaperProcess(provider, ledger, run_id="run-1", owner="htex")
    accounted = AccountedProvider(provider, ledger, run_id="run-1", owner="htex")
    job = accounted.submit("sleep 987", 1)
    assert reaper.alive()
    reaper.close()
    reaper.close()
    assert not reaper.alive()
    assert provider.status([job])[0].state is JobState.RUNNING


def test_the_reaper_shows_its_label_and_run_and_no_secret(provider: LocalProvider, ledger: JobLedger) -> None:
    reaper = ReaperProcess(provider, ledger, run_id="run-1", owner="htex")
    wait_until(lambda: "--label" in psutil.Process(reaper.pid).cmdline())
    command = psutil.Process(reaper.pid).cmdline()
    assert command[command.index("--label") + 1] == "htex"
    assert command[command.index("--run") + 1] == "run-1"
    reaper.close()


def test_a_provider_that_cannot_be_made_again_is_refused(ledger: JobLedger) -> None:
    class Mine(LocalProvider):
        def __init__(self) -> None:
            pass

    with pytest.raises(ProviderError, match="checked"):
        ReaperProcess(Mine(), ledger, run_id="r", owner="o")


def command(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import sys; from flow_providers.jobs.cli import main; sys.exit(main())", "jobs", *words]
        + ["--ledger", str(tmp_path / "jobs.ledger")],
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_the_command_lists_and_cancels_what_a_crash_left_behind(provider: LocalProvider, tmp_path: Path) -> None:
    jobs, _ = crash(tmp_path, "alone")
    listed = command(tmp_path, "ls", "--ask").stdout
    assert all(job in listed for job in jobs)
    assert listed.count("RUNNING") == 2
    done = command(tmp_path, "cancel", jobs[0])
    assert done.returncode == 0, done.stderr
    states = [status.state for status in provider.status(jobs)]
    assert states == [JobState.CANCELLED, JobState.RUNNING]
    assert jobs[0] not in command(tmp_path, "ls").stdout
    assert jobs[0] in command(tmp_path, "ls", "--all").stdout


def test_an_adopted_job_is_ended_by_nothing_any_more(
    provider: LocalProvider, ledger: JobLedger, tmp_path: Path
) -> None:
    jobs, _ = crash(tmp_path, "alone")
    assert "adopted" in command(tmp_path, "adopt", jobs[0]).stdout
    assert command(tmp_path, "cancel", "--all").returncode == 0
    states = [status.state for status in provider.status(jobs)]
    assert states == [JobState.RUNNING, JobState.CANCELLED]
    assert ledger.open_entries() == []

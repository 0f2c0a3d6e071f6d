"""LocalProvider on real processes: the contract of all providers, and what only it promises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flow_providers.channels.local import LocalChannel
from flow_providers.errors import ScriptPathError, SubmitException
from flow_providers.interfaces.job_extras import JobExtras
from flow_providers.interfaces.job_state import JobState
from flow_providers.launchers.simple import SimpleLauncher
from flow_providers.local.provider import LocalProvider
from flow_providers.testing.contract import ProviderContract


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[LocalProvider]:
    provider = LocalProvider(channel=LocalChannel(userhome=str(tmp_path), script_dir=str(tmp_path / "scripts")))
    yield provider
    provider.cancel(provider.find(""))


class TestLocalProvider(ProviderContract):
    poll_s = 0.03

    @pytest.fixture
    def provider(self, provider: LocalProvider) -> LocalProvider:  # type: ignore[override]  # the module's, narrowed
        return provider

    def test_cancelling_ends_children_that_ignore_term_or_left_the_group(
        self, provider: LocalProvider, tmp_path: Path
    ) -> None:
        ready = tmp_path / "ready"
        os.mkfifo(ready)
        job = provider.submit("(trap '' TERM; sleep 987) &\nsetsid sleep 987 &\nsleep 987 &\njobs -p > ready; wait", 1)
        pids = [int(pid) for pid in ready.read_text().split()]
        processes = [psutil.Process(pid) for pid in pids]
        assert len(processes) == 3
        assert provider.cancel([job]) == [True]
        deadline = time.monotonic() + 20  # they are killed by now, and end when the system comes to it
        while not all(is_gone(process) for process in processes):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def test_what_a_job_leaves_behind_ends_with_it(self, provider: LocalProvider, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "ready")
        job = provider.submit("sleep 987 & echo $! > ready", 1)
        child = psutil.Process(int((tmp_path / "ready").read_text()))
        assert self.until_ended(provider, job).state is JobState.COMPLETED
        psutil.wait_procs([child], timeout=20)
        assert is_gone(child)

    def test_a_job_killed_from_outside_is_failed(self, provider: LocalProvider, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "ready")
        job = provider.submit("echo go > ready; sleep 987", 1)
        (tmp_path / "ready").read_text()
        leader = int((tmp_path / "scripts" / f"{job}.pid").read_text().split()[0])
        os.killpg(leader, signal.SIGKILL)
        status = self.until_ended(provider, job)
        assert status.state is JobState.FAILED
        assert "killed from outside" in status.message

    def test_a_command_killed_by_a_signal_says_which(self, provider: LocalProvider) -> None:
        job = provider.submit("kill -9 $$", 1)
        status = self.until_ended(provider, job)
        assert (status.state, status.exit_code, status.signal) == (JobState.FAILED, 137, 9)

    def test_a_recycled_process_id_is_never_killed(self, provider: LocalProvider, tmp_path: Path) -> None:
        job = provider.submit("true", 1)
        self.until_ended(provider, job)
        with subprocess.Popen(["sleep", "987"], start_new_session=True) as innocent:
            record = tmp_path / "scripts" / f"{job}.pid"
            _pid, birth, started = record.read_text().split()
            record.write_text(f"{innocent.pid} {birth} {started}\n")
            (tmp_path / "scripts" / f"{job}.exit").unlink()
            assert provider.cancel([job]) == [True]
            assert provider.status([job])[0].terminal
            assert innocent.poll() is None
            innocent.kill()

    def test_another_process_finds_asks_and_cancels_after_a_crash(self, tmp_path: Path) -> None:
        code = f"""
import os
from flow_providers import JobExtras, LocalProvider
from flow_providers.channels import LocalChannel
provider = LocalProvider(channel=LocalChannel(script_dir={str(tmp_path / "scripts")!r}))
print(provider.submit("echo alive; sleep 987", 1, extras=JobExtras(tag="fcrashed1")), flush=True)
os.kill(os.getpid(), 9)
"""
        crashed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
        assert crashed.returncode == -9, crashed.stderr
        job = crashed.stdout.strip()
        heir = LocalProvider(channel=LocalChannel(script_dir=str(tmp_path / "scripts")))
        assert heir.find("fcrash") == [job]
        assert heir.status([job])[0].state is JobState.RUNNING
        assert heir.cancel([job]) == [True]
        assert self.until_ended(heir, job).state is JobState.CANCELLED

    def test_jobs_lead_a_session_of_their_own(self, provider: LocalProvider, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "ready")
        job = provider.submit("echo go > ready; sleep 987", 1)
        (tmp_path / "ready").read_text()
        leader = int((tmp_path / "scripts" / f"{job}.pid").read_text().split()[0])
        assert os.getsid(leader) == leader != os.getsid(0)
        assert os.getpgid(leader) == leader

    def test_the_walltime_ends_a_job_where_it_is_enforced(self, tmp_path: Path) -> None:
        provider = LocalProvider(
            channel=LocalChannel(script_dir=str(tmp_path)), walltime="00:00:01", enforce_walltime=True
        )
        job = provider.submit("sleep 987", 1)
        status = self.until_ended(provider, job)
        assert status.state is JobState.TIMEOUT
        assert status.ends_at == (status.started_at or 0) + 1

    def test_secrets_are_gone_when_the_job_has_ended(self, provider: LocalProvider, tmp_path: Path) -> None:
        job = provider.submit("true", 1, extras=JobExtras(secrets=(("key", b"x"),)))
        assert self.until_ended(provider, job).state is JobState.COMPLETED
        self.patiently(lambda: [] if list((tmp_path / "scripts").glob("*.secrets")) else [1])
        assert not list((tmp_path / "scripts").glob("*.secrets"))

    def test_cores_memory_and_worker_init_reach_the_command(self, tmp_path: Path) -> None:
        provider = LocalProvider(
            channel=LocalChannel(script_dir=str(tmp_path)),
            cores_per_node=7,
            mem_per_node=1.5,
            worker_init="export SITE=here\nhello() { echo hi; }",
            launcher=SimpleLauncher(),
        )
        job = provider.submit("hello; echo $FLOW_CORES $FLOW_MEMORY_GB $SITE", 1)
        self.until_ended(provider, job)
        assert provider.tail(job)[0] == "hi\n7 1.5 here\n"

    def test_two_hundred_jobs_are_one_question(self, provider: LocalProvider) -> None:
        jobs = [provider.submit("exit 4", 1) for _ in range(3)]
        for job in jobs:
            self.until_ended(provider, job)
        asked = (jobs * 67)[:200]
        assert {status.exit_code for status in provider.status(asked)} == {4}

    def test_an_unusable_script_directory_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        provider = LocalProvider(channel=LocalChannel(script_dir=str(tmp_path / "file" / "scripts")))
        with pytest.raises(ScriptPathError, match="file/scripts"):
            provider.submit("true", 1)

    @pytest.mark.parametrize("tag", ["a b", "x" * 41, "../x", "a.b"])
    def test_an_impossible_tag_is_refused(self, provider: LocalProvider, tag: str) -> None:
        with pytest.raises(SubmitException, match="tag"):
            provider.submit("true", 1, extras=JobExtras(tag=tag))

    def test_an_impossible_variable_is_refused(self, provider: LocalProvider) -> None:
        with pytest.raises(SubmitException, match="environment variable"):
            provider.submit("true", 1, extras=JobExtras(environment=(("A B", "x"),)))

    def test_looking_for_jobs_makes_no_directories(self, provider: LocalProvider, tmp_path: Path) -> None:
        provider.status(["x"])
        provider.cancel(["x"])
        provider.find("x")
        assert not (tmp_path / "scripts").exists()


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True

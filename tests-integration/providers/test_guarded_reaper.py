"""A reaper that died or was stopped is replaced, so that a death of the driver still leaves nothing."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flow_providers.channels.local import LocalChannel
from flow_providers.jobs import guardian as under_test
from flow_providers.jobs.guardian import ReaperGuardian
from flow_providers.jobs.ledger import JobLedger
from flow_providers.local.provider import LocalProvider
from flow_testing.fake_provider import FakeProvider

logger = logging.getLogger("test")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ReaperGuardian]]:
    monkeypatch.setattr(under_test, "STOPPED_S", 0.2)
    monkeypatch.setattr(under_test, "_FIRST_PAUSE_S", 0.01)
    made: list[ReaperGuardian] = []

    def one(provider: object = None, log: str = "logs/reaper.log") -> ReaperGuardian:
        provider = provider or LocalProvider(channel=LocalChannel(script_dir=str(tmp_path / "scripts")))
        ledger = JobLedger(tmp_path / "jobs.ledger")
        made.append(
            ReaperGuardian(provider, ledger, run_id="r", owner="o", log_path=tmp_path / log, logger=logger)  # type: ignore[arg-type]
        )
        return made[-1]

    yield one
    for guardian in made:
        guardian.close()


def tend_until(guardian: ReaperGuardian, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        guardian.tend()
        time.sleep(0.02)


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_reaper_that_was_killed_or_stopped_is_replaced_by_one_that_works(make, fault, caplog) -> None:
    guardian = make()
    first = guardian.pid
    os.kill(first, fault)
    tend_until(guardian, lambda: guardian.pid not in (0, first))
    assert not os.path.exists(f"/proc/{first}")
    assert f"(pid {first}) is {'dead' if fault == signal.SIGKILL else 'stopped'}" in caplog.text
    pid = guardian.pid
    guardian.close()
    assert not os.path.exists(f"/proc/{pid}")
    guardian.tend()
    assert guardian.pid == 0  # none is started after the end


def test_a_reaper_that_was_stopped_for_a_moment_is_kept(make, monkeypatch) -> None:
    monkeypatch.setattr(under_test, "STOPPED_S", 600.0)
    guardian = make()
    os.kill(guardian.pid, signal.SIGSTOP)
    guardian.tend()
    os.kill(guardian.pid, signal.SIGCONT)
    guardian.tend()
    pid = guardian.pid
    guardian.tend()
    assert guardian.pid == pid


def test_a_stopped_reaper_does_not_hold_up_the_end(make) -> None:
    process = make()._process
    os.kill(process.pid, signal.SIGSTOP)
    while not process.stopped():
        time.sleep(0.01)
    process.close(600.0)  # it would never answer
    assert not process.alive()


def test_a_reaper_that_cannot_be_started_is_tried_again_and_told_once(make, tmp_path, caplog) -> None:
    (tmp_path / "logs").write_text("a file where a directory is wanted")
    guardian = make()
    assert guardian.pid == 0
    for _ in range(5):
        guardian.tend()
    (tmp_path / "logs").unlink()
    tend_until(guardian, lambda: guardian.pid != 0)
    assert caplog.text.count("nobody will cancel the jobs of o") == 1


def test_a_provider_that_cannot_be_made_again_costs_the_reaper_and_not_the_run(make, caplog) -> None:
    class Mine(FakeProvider):
        pass

    one = Mine()
    del one._options  # as if its constructor were not checked
    guardian = make(one)
    guardian.tend()
    assert guardian.pid == 0
    assert "nobody will cancel" in caplog.text


def test_a_provider_class_of_the_script_is_told_to_be_beyond_the_reaper(make, caplog, monkeypatch, tmp_path) -> None:
    class OfTheScript(LocalProvider):
        pass

    monkeypatch.setattr(OfTheScript, "__module__", "__main__")
    guardian = make(OfTheScript(channel=LocalChannel(script_dir=str(tmp_path))))
    assert guardian.pid == 0
    assert "OfTheScript cannot be made again in the reaper, since it is defined in the script" in caplog.text

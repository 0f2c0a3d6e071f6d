"""Hosts of a collection: by their names, and passed over while they are away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from flow_providers.adhoc.provider import AdHocProvider, channel_to
from flow_providers.channels.local import LocalChannel
from flow_providers.channels.ssh import SSHChannel
from flow_providers.errors import (
    AuthException,
    BadOption,
    ChannelError,
    ChannelUnavailable,
    HostsAway,
    SchedulerUnavailable,
    SubmitException,
)
from flow_providers.interfaces.channel import CommandResult


@pytest.mark.parametrize(
    ("text", "host", "user", "port"),
    [
        ("node1", "node1", None, 22),
        ("alice@node1", "node1", "alice", 22),
        ("alice@node1:2222", "node1", "alice", 2222),
        ("fd00::1", "fd00::1", None, 22),
        ("alice@[fd00::1]:2222", "fd00::1", "alice", 2222),
        ("a@b@node1", "node1", "a@b", 22),
    ],
)
def test_a_host_is_given_by_its_name(text: str, host: str, user: str | None, port: int) -> None:
    channel = channel_to(text)
    assert isinstance(channel, SSHChannel)
    assert (channel.hostname, channel.username, channel.port) == (host, user, port)


@pytest.mark.parametrize("text", ["", "alice@", "@node1", "node1:", "node1:ssh"])
def test_what_is_no_host_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadOption, match="is no host"):
        AdHocProvider([text])


class Host(LocalChannel):
    """A host that can be away, and counts how often it was tried then."""

    away = False
    tried = 0
    error: ChannelError = ChannelUnavailable("no route to it")

    def push_bytes(self, content: bytes, name: str, dest_dir: str, *, mode: int = 0o600) -> str:
        self._reach()
        return super().push_bytes(content, name, dest_dir, mode=mode)

    def execute_wait(
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> CommandResult:
        self._reach()
        return super().execute_wait(cmd, walltime, envs)

    def _reach(self) -> None:
        if self.away:
            self.tried += 1
            raise self.error


def test_blocks_of_a_host_that_is_away_are_not_piled_upon_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hosts = [Host(script_dir=str(tmp_path / name)) for name in ("one", "two")]
    hosts[1].away = True
    provider = AdHocProvider(hosts)
    with caplog.at_level(logging.WARNING, "flow.providers.adhoc"):
        job = provider.submit("sleep 600", 1)
        try:
            for _ in range(3):
                with pytest.raises(HostsAway, match=r"no host took the job: .*no route to it"):
                    provider.submit("sleep 600", 1)
            assert hosts[1].tried == 1, "it is passed over for a minute"
        finally:
            provider.cancel([job])
    assert len(caplog.messages) == 1
    assert "takes no jobs" in caplog.messages[0]


def test_what_is_passed_over_is_no_attempt_and_names_no_other_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(script_dir=str(tmp_path))
    host.away, host.error = True, AuthException("it refused the login")
    provider = AdHocProvider([host])
    with caplog.at_level(logging.WARNING, "flow.providers.adhoc"):
        with pytest.raises(SubmitException, match="no host took the job: it refused the login") as first:
            provider.submit("true", 1, "first")
        assert not isinstance(first.value, HostsAway)
        with pytest.raises(HostsAway) as second:
            provider.submit("true", 1, "second")
    assert 50 < second.value.again_s <= 60
    assert "first" not in str(second.value)
    assert host.tried == 1
    assert len(caplog.messages) == 1
    assert "tried again after a minute" in caplog.messages[0]
    assert "others" not in caplog.messages[0]


class Dead(LocalChannel):
    """A host that does not answer, and whose commands wait."""

    dead = False

    def __init__(self, script_dir: str) -> None:
        super().__init__(script_dir=script_dir)
        self.hangs = threading.Event()
        self.back = threading.Event()

    def execute_wait(
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> CommandResult:
        if self.dead and self.hangs.is_set():
            self.back.wait(30)
        if self.dead:
            self.hangs.set()
            raise ChannelUnavailable("no route to it")
        return super().execute_wait(cmd, walltime, envs)


def test_the_end_of_jobs_waits_a_bounded_time_for_a_host_that_did_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flow_providers.adhoc.provider._SILENT_S", 0.2)
    hosts = [Dead(str(tmp_path / name)) for name in ("one", "two")]
    provider = AdHocProvider(hosts)
    jobs = [provider.submit("sleep 600", 1) for _ in hosts]
    try:
        hosts[1].dead = True
        provider.status(jobs)
        assert hosts[1].hangs.is_set()
        began = time.monotonic()
        assert provider.cancel(jobs) == [True, False]
        assert time.monotonic() - began < 20
        with pytest.raises(SchedulerUnavailable, match="does not answer"):
            provider.cancel(jobs[1:])
    finally:
        hosts[1].dead = False
        hosts[1].back.set()
        provider.cancel(jobs)

"""Options of a collection of hosts that are changed between two jobs reach the hosts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from flow_providers.adhoc.provider import AdHocProvider
from flow_providers.channels.local import LocalChannel
from flow_providers.interfaces.channel import CommandResult


class Host(LocalChannel):
    """Remembers how long commands were allowed to take."""

    def __init__(self, script_dir: str) -> None:
        super().__init__(script_dir=script_dir)
        self.allowed: list[float | None] = []

    def execute_wait(
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> CommandResult:
        self.allowed.append(walltime)
        return super().execute_wait(cmd, walltime, envs)


def output(provider: AdHocProvider, job: str) -> str:
    """Return what a job wrote, once it has ended."""
    end = time.monotonic() + 30
    while not provider.status([job])[0].terminal:
        assert time.monotonic() < end, "the job did not end"
        time.sleep(0.05)
    return provider.tail(job)[0].strip()


def test_what_is_changed_between_two_jobs_reaches_the_hosts(tmp_path: Path) -> None:
    hosts = [Host(str(tmp_path / name)) for name in ("one", "two")]
    provider = AdHocProvider(channels=hosts, cmd_timeout=20, worker_init="export GREETING=first", cores_per_node=1)
    command = 'echo "$GREETING $FLOW_CORES"'
    assert [output(provider, provider.submit(command, 1)) for _ in hosts] == ["first 1"] * 2
    assert {limit for host in hosts for limit in host.allowed} == {20}
    for host in hosts:
        host.allowed.clear()
    provider.cmd_timeout, provider.worker_init, provider.cores_per_node = 25, "export GREETING=second", 2
    jobs = [provider.submit(command, 1) for _ in hosts]
    assert [output(provider, job) for job in jobs] == ["second 2"] * 2
    assert provider.find("nothing") == []
    provider.cancel(jobs)
    limits = [set(host.allowed) for host in hosts]
    assert all(found <= {25, 30} and 25 in found for found in limits), "cancelling may take 5 s more"

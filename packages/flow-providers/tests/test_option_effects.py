"""Every option of every provider of a scheduler changes what it submits, or what others read, or says that it does not.

A provider is made with its usual options and once with each option changed. What comes of the two is compared: the
commands and files that go over the channel, and the attributes that executors read.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import flow_providers
from flow_providers import without_effect
from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.base import ClusterProvider
from flow_providers.errors import ProviderError
from flow_providers.interfaces.channel import CommandResult
from flow_providers.interfaces.job_extras import JobExtras
from flow_providers.interfaces.provider import NodeUse
from flow_providers.kubernetes import provider as kubernetes
from flow_providers.launchers import SimpleLauncher, SingleNodeLauncher, SrunLauncher, WrappedLauncher
from flow_providers.local.provider import LocalProvider

KINDS: list[type] = [
    kind
    for name in flow_providers.__all__
    if inspect.isclass(kind := getattr(flow_providers, name)) and issubclass(kind, (ClusterProvider, LocalProvider))
]

OTHER: dict[str, object] = {
    "account": "physics",
    "clusters": "other",
    "cmd_timeout": 77.0,
    "constraint": "knl",
    "cores_per_node": 7,
    "cores_per_slot": 7,
    "enforce_walltime": True,
    "environment": {"NAME": "value"},
    "exclusive": False,
    "gpus_per_node": "v100:2",
    "init_blocks": 3,
    "launcher": SimpleLauncher(),
    "max_blocks": 33,
    "mem_per_node": 13.0,
    "mem_per_slot": 13.0,
    "min_blocks": 1,
    "move_files": False,
    "nodes_per_block": 3,
    "parallel_environment": "smp",
    "parallelism": 0.25,
    "partition": "debug",
    "project": "physics",
    "qos": "urgent",
    "queue": "short",
    "request_by_nodes": False,
    "requirements": "OpSys == 1",
    "scheduler_options": "# one more line",
    "select_options": "ngpus=1",
    "shared_disk": False,
    "transfer_input_files": ["/data/file"],
    "walltime": "03:00:00",
    "worker_init": "module load python",
}
"""Another value of each option than its default."""

BESIDE: dict[tuple[str, str], dict[str, object]] = {
    ("GridEngineProvider", "cores_per_node"): {"parallel_environment": "smp"},
    ("GridEngineProvider", "nodes_per_block"): {"parallel_environment": "smp"},
    ("LSFProvider", "request_by_nodes"): {"request_by_nodes": True},
    ("LocalProvider", "nodes_per_block"): {"launcher": SrunLauncher()},
    ("LocalProvider", "walltime"): {"enforce_walltime": True},
}
"""What an option needs beside it; given in both cases."""

READ_BY_EXECUTORS = ("init_blocks", "min_blocks", "max_blocks", "parallelism")


class Recording(LocalChannel):
    """A channel that keeps what goes over it; no command is run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(script_dir=str(folder))
        self.seen: list[str] = []

    def execute_wait(
        self, cmd: str, walltime: float | None = None, envs: dict[str, str] | None = None
    ) -> CommandResult:
        """Keep a command and the time that it has."""
        self.seen.append(f"{cmd} [{walltime}] {envs}")
        return CommandResult(0, "", "")

    def push_bytes(self, content: bytes, path: str, *args: object, **options: object) -> str:
        """Keep the content of a file."""
        self.seen.append(f"{path}\n{content.decode()}")
        return path


def observed(kind: type, folder: Path, options: dict[str, object]) -> list[str]:
    """Return what a provider of these options sends off, and what executors read of it."""
    channel = Recording(folder)
    provider = kind(channel=channel, **options)
    # Nothing answers, so no submission is known to have come about; what was sent is there all the same.
    with suppress(ProviderError):
        provider.submit("true", 1, "job", extras=JobExtras(tag="fabc", secrets=(("key", b"secret"),)))
    return [*channel.seen, *(f"{name}={getattr(provider, name)}" for name in READ_BY_EXECUTORS)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(without_effect, "_said", set())
    monkeypatch.setattr(ClusterProvider, "pause_s", 0.0)
    return


CASES = [
    pytest.param(kind, name, id=f"{kind.__name__} {name}")
    for kind in KINDS
    for name in inspect.signature(kind).parameters
    if name != "channel"
]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_an_option_changes_something_or_is_said_not_to(
    kind: type, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert name in OTHER, f"{kind.__name__} has a new option {name}: give another value of it in OTHER"
    beside = BESIDE.get((kind.__name__, name), {})
    usual = observed(kind, tmp_path, beside)
    caplog.clear()
    other = observed(kind, tmp_path, {**beside, name: OTHER[name]})
    said = any(f"{name}={OTHER[name]!r} has no effect" in record.getMessage() for record in caplog.records)
    assert (without_names(usual) != without_names(other)) != said


def without_names(seen: list[str]) -> list[str]:
    """Return what was sent without names and keys, which differ from one job to the next."""
    return [re.sub(r"fabc\.\S*|job\.\S+|[0-9a-f]{32,}", "JOB", one) for one in seen]


@pytest.mark.parametrize("kind", KINDS)
def test_two_submissions_of_one_provider_are_the_same_but_for_names(kind: type, tmp_path: Path) -> None:
    first, second = (without_names(observed(kind, tmp_path, {})) for _ in range(2))
    assert first == second


def test_no_value_is_given_of_options_that_are_gone() -> None:
    assert {name for kind in KINDS for name in inspect.signature(kind).parameters} - {"channel"} == OTHER.keys()


# -- hosts

HOST_OPTIONS: dict[str, object] = {
    name: OTHER[name]
    for name in inspect.signature(flow_providers.AdHocProvider).parameters
    if name in OTHER and name not in ("nodes_per_block",)
}


def observed_on_hosts(folder: Path, hosts: int, options: dict[str, object]) -> list[str]:
    channels = [Recording(folder) for _ in range(hosts)]
    provider = flow_providers.AdHocProvider(channels=channels, **options)
    with suppress(ProviderError):
        provider.submit("true", 1, "job", extras=JobExtras(tag="fabc"))
    seen = [one for channel in channels for one in channel.seen]
    return [*seen, *(f"{name}={getattr(provider, name)}" for name in READ_BY_EXECUTORS)]


@pytest.mark.parametrize("name", inspect.signature(flow_providers.AdHocProvider).parameters)
def test_an_option_of_hosts_changes_something_or_is_said_not_to(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    beside: dict[str, object] = {"walltime": {"enforce_walltime": True}, "init_blocks": {"max_blocks": 9}}.get(name, {})
    usual = without_names(observed_on_hosts(tmp_path, 1, beside))
    assert usual == without_names(observed_on_hosts(tmp_path, 1, beside))
    caplog.clear()
    given = {} if name == "channels" else {name: HOST_OPTIONS[name]}
    other = without_names(observed_on_hosts(tmp_path, 2 if name == "channels" else 1, {**beside, **given}))
    said = any(f"{name}={OTHER.get(name)!r} has no effect" in record.getMessage() for record in caplog.records)
    assert (usual != other) != said


# -- what commands use

USED: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "CondorProvider": ({}, ("request_cpus = 6", "request_memory = 3072")),
    "GridEngineProvider": ({"parallel_environment": "smp"}, ("#$ -pe smp 6", "#$ -l h_vmem=512M")),
    "SlurmProvider": ({"exclusive": False}, ("#SBATCH --cpus-per-task=6", "#SBATCH --mem=3072M")),
    "TorqueProvider": ({}, ("ppn=6", "mem=3072mb")),
}
"""Of each provider whose jobs may get a part of a node: options, and what it asks for 6 cores and 3 GB."""


def submitted_for(kind: type, folder: Path, options: dict[str, object], use: NodeUse) -> str:
    channel = Recording(folder)
    provider = kind(channel=channel, **options)
    provider.expected_use = use
    with suppress(ProviderError):
        provider.submit("true", 1, "job")
    return "\n".join(channel.seen)


@pytest.mark.parametrize("name", USED)
def test_a_job_on_shared_nodes_asks_for_what_its_command_uses(name: str, tmp_path: Path) -> None:
    kind, (options, asked) = getattr(flow_providers, name), USED[name]
    said = submitted_for(kind, tmp_path, options, NodeUse(6, 3.0))
    assert [one for one in (*asked, "FLOW_CORES=6") if one not in said] == []


@pytest.mark.parametrize("name", USED)
def test_what_the_options_ask_for_comes_before_what_is_used(name: str, tmp_path: Path) -> None:
    kind, (options, _asked) = getattr(flow_providers, name), USED[name]
    own: dict[str, object] = (
        {"cores_per_slot": 2, "mem_per_slot": 1.0} if kind is flow_providers.CondorProvider else {}
    ) or {"cores_per_node": 2, "mem_per_node": 1.0}
    said = submitted_for(kind, tmp_path, {**options, **own}, NodeUse(6, 3.0))
    assert "FLOW_CORES=2" in said
    assert "FLOW_MEMORY_GB=1.0" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_has_whole_nodes_asks_for_nothing_more(kind: type, tmp_path: Path) -> None:
    if kind.__name__ in USED and kind is not flow_providers.SlurmProvider and kind.__name__ != "GridEngineProvider":
        return
    assert "FLOW_CORES=6" not in submitted_for(kind, tmp_path, {}, NodeUse(6, 3.0))


# -- Kubernetes

POD_OPTIONS: dict[str, object] = {
    **{name: OTHER[name] for name in ("nodes_per_block", "launcher", "walltime", "worker_init", "cmd_timeout")},
    **{name: OTHER[name] for name in READ_BY_EXECUTORS},
    "image": "other:1",
    "namespace": "science",
    "max_cpu": 5.0,
    "max_mem": "9Gi",
    "init_cpu": 0.5,
    "init_mem": "1Mi",
    "pod_name": "named",
    "user_id": 7,
    "group_id": 8,
    "run_as_non_root": True,
    "secret": "pulling",
    "persistent_volumes": [("claim", "/mount")],
    "config_file": "/config",
    "context": "other",
    "image_pull_policy": "Always",
    "service_account_name": "account",
    "node_selector": {"kind": "big"},
}


def pods(monkeypatch: pytest.MonkeyPatch, options: dict[str, object]) -> list[str]:
    """Return what a provider of these options asks of which API server."""
    seen: list[str] = []

    class Api:
        def __init__(self, *how: object) -> None:
            seen.append(f"server {how}")

        def create(self, kind: str, manifest: object) -> None:
            seen.append(f"{kind} {manifest}")

    monkeypatch.setattr(kubernetes, "KubernetesApi", Api)
    monkeypatch.setattr(kubernetes.time, "time_ns", lambda: 0)
    monkeypatch.setattr(kubernetes.secrets, "token_hex", lambda _count: "ab")
    provider = flow_providers.KubernetesProvider(**{"image": "usual:1", **options})
    provider.submit("true", 1, "job", extras=JobExtras(tag="fabc", secrets=(("key", b"secret"),)))
    return [*seen, *(f"{name}={getattr(provider, name)}" for name in READ_BY_EXECUTORS)]


@pytest.mark.parametrize("name", inspect.signature(flow_providers.KubernetesProvider).parameters)
def test_an_option_of_kubernetes_changes_what_is_asked_of_the_cluster(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = pods(monkeypatch, {})
    assert usual == pods(monkeypatch, {})
    assert usual != pods(monkeypatch, {name: POD_OPTIONS[name]})


# -- launchers

LAUNCHER_OPTIONS: dict[str, object] = {
    "overrides": "--one-more",
    "task_blocks": 3,
    "prepend": "time",
    "launcher": SingleNodeLauncher(),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, id=f"{kind.__name__} {name}")
        for each in flow_providers.launchers.__all__
        if inspect.isclass(kind := getattr(flow_providers.launchers, each)) and each.endswith("Launcher")
        for name in inspect.signature(kind).parameters
        if name in LAUNCHER_OPTIONS
    ],
)
def test_an_option_of_a_launcher_changes_its_command(kind: type, name: str) -> None:
    beside = {"prepend": "nice"} if kind is WrappedLauncher else {}
    usual, other = (kind(**options)("true", 2, 3) for options in (beside, {**beside, name: LAUNCHER_OPTIONS[name]}))
    assert usual != other

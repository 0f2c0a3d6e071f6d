"""Options of executors that the request of their blocks contradicts, and those that change nothing, are named."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flow_core import without_effect
from flow_core.errors import ConfigurationError
from flow_core.testing import RecordingListener, make_context
from flow_executors import HighThroughputExecutor, LowLatencyExecutor
from flow_executors.common.block_request import BlockRequest, contradictions, expected_use
from flow_providers import (
    CobaltProvider,
    CondorProvider,
    GridEngineProvider,
    KubernetesProvider,
    PBSProProvider,
    SlurmProvider,
    TorqueProvider,
)
from flow_providers.interfaces.provider import NodeUse
from flow_providers.launchers import SingleNodeLauncher, SrunLauncher, WrappedLauncher
from flow_providers.local.provider import LocalProvider


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(without_effect, "_said", set())
    return


CONTRADICTORY: list[tuple[dict[str, Any], str]] = [
    ({"cores_per_worker": 8, "cores_per_node": 4}, "cores_per_worker=8 is more .*cores_per_node=4.*no worker fits"),
    ({"max_workers": 8, "cores_per_node": 4}, "max_workers=8 of 1 cores .*there will be 4 workers"),
    ({"max_workers": 3, "cores_per_worker": 2, "cores_per_node": 4}, "there will be 2 workers"),
    ({"max_workers": 8, "shares_nodes": True}, "max_workers=8 .*is not asked of the scheduler.*cores_per_node=8"),
    ({"cores_per_worker": 2, "shares_nodes": True}, "cores_per_worker=2 is not asked.*cores_per_node=2"),
    ({"mem_per_worker": 8, "mem_per_node": 4}, "mem_per_worker=8 is more .*mem_per_node=4.*no worker fits"),
    ({"mem_per_worker": 2, "max_workers": 4, "mem_per_node": 4}, "max_workers=4 of 2 GB .*there will be 2 workers"),
    ({"mem_per_worker": 2, "max_workers": 4, "shares_nodes": True, "cores_per_node": 4}, "mem_per_node=8"),
    ({"nodes": 4, "on_one_node": True}, r"P\(nodes_per_block=4\) has workers on the first node alone"),
]
CONSISTENT: list[dict[str, Any]] = [
    {},
    {"max_workers": 4, "cores_per_node": 4},
    {"max_workers": math.inf, "cores_per_node": 4, "mem_per_node": 4, "mem_per_worker": 1},
    {"max_workers": 1, "cores_per_node": 64},
    {"max_workers": 1, "shares_nodes": True},
    {"max_workers": 8, "cores_per_worker": 2, "mem_per_worker": 2},
    {"max_workers": 4, "cores_per_worker": 0.5, "cores_per_node": 2, "mem_per_worker": 1, "mem_per_node": 4},
    {"nodes": 4},
    {"on_one_node": True},
]


@pytest.mark.parametrize(("given", "said"), CONTRADICTORY, ids=str)
def test_what_the_request_of_blocks_does_not_allow_for_is_named(given: dict[str, Any], said: str) -> None:
    found = list(contradictions(BlockRequest("P", **given)))
    assert len(found) == 1
    with pytest.raises(ValueError, match=said):
        raise ValueError(found[0])


@pytest.mark.parametrize("given", CONSISTENT, ids=str)
def test_what_the_request_allows_for_is_not_mentioned(given: dict[str, Any]) -> None:
    assert list(contradictions(BlockRequest("P", **given))) == []


def said_of(caplog: pytest.LogCaptureFixture, kind: Any = HighThroughputExecutor, **options: Any) -> list[str]:
    caplog.clear()
    kind(**options)
    return [record.getMessage() for record in caplog.records if record.name == "flow.options"]


@pytest.mark.parametrize(
    "provider",
    [
        GridEngineProvider(),
        PBSProProvider(),
    ],
    ids=lambda provider: type(provider).__name__,
)
def test_workers_that_a_shared_node_is_not_asked_for_are_named(provider: Any, caplog: pytest.LogCaptureFixture) -> None:
    (line,) = said_of(caplog, provider=provider, max_workers=8)
    assert line.startswith("HighThroughputExecutor 'HighThroughputExecutor': max_workers=8 of 1 cores")
    assert type(provider).__name__ in line


@pytest.mark.parametrize(
    "provider",
    [
        SlurmProvider("debug"),
        SlurmProvider("debug", exclusive=False),
        TorqueProvider(),
        GridEngineProvider(parallel_environment="smp"),
        CondorProvider(),
        SlurmProvider("debug", exclusive=False, cores_per_node=8),
        TorqueProvider(cores_per_node=8),
        GridEngineProvider(cores_per_node=8, parallel_environment="smp"),
        CondorProvider(cores_per_slot=8),
        CobaltProvider(),
        LocalProvider(),
    ],
    ids=repr,
)
def test_workers_that_fit_are_not_mentioned(provider: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert said_of(caplog, provider=provider, max_workers=8) == []


@pytest.mark.parametrize(
    ("given", "use"),
    [
        ({}, (None, None)),
        ({"max_workers": 1}, (None, None)),
        ({"max_workers": 8}, (8, None)),
        ({"max_workers": 3, "cores_per_worker": 1.5}, (5, None)),
        ({"cores_per_worker": 4, "mem_per_worker": 2.0}, (4, 2.0)),
        ({"max_workers": 4, "cores_per_worker": 0.25, "mem_per_worker": 2.0}, (None, 8.0)),
    ],
    ids=str,
)
def test_what_the_workers_of_a_node_use_follows_from_the_options(given: dict[str, Any], use: object) -> None:
    assert expected_use(BlockRequest("P", **given)) == use


def test_a_provider_that_asks_for_what_is_used_is_told_when_the_executor_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HighThroughputExecutor, "_make_runtime", lambda *_: None)
    for provider, use in (
        (CondorProvider(), NodeUse(8, 16.0)),
        (SlurmProvider("debug"), NodeUse()),
        (GridEngineProvider(), NodeUse()),
        (LocalProvider(), NodeUse()),
    ):
        executor = HighThroughputExecutor(provider=provider, max_workers=4, cores_per_worker=2, mem_per_worker=4)
        executor.start(make_context(tmp_path, RecordingListener(), label="executor"))
        assert provider.expected_use == use


def test_nodes_that_would_be_idle_are_named_where_the_launcher_starts_on_one(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = said_of(caplog, provider=SlurmProvider("debug", nodes_per_block=4))
    assert "the first node alone" in line
    fine: list[Any] = [
        SlurmProvider("debug", nodes_per_block=4, launcher=SrunLauncher()),
        SlurmProvider("debug", nodes_per_block=4, launcher=WrappedLauncher("mpiexec -n 4", SingleNodeLauncher())),
        CondorProvider(nodes_per_block=4),
        KubernetesProvider("image", nodes_per_block=4),
    ]
    for provider in fine:
        assert said_of(caplog, provider=provider) == []


INEFFECTIVE: list[tuple[str, dict[str, Any]]] = [
    ("interchange_port_range", {"interchange_port_range": (1, 2)}),
    ("poll_period", {"poll_period": 1.0}),
    ("suppress_failure", {"suppress_failure": False}),
    ("encrypted", {"encrypted": False}),
    ("loopback_address", {"loopback_address": "::1"}),
    ("worker_port_range", {"worker_port_range": (1000, 1001), "worker_ports": (1002,)}),
    ("max_transfer_bytes", {"max_transfer_bytes": 1, "provider": LocalProvider()}),
    ("python", {"python": "python3", "launch_cmd": "my-manager {options}"}),
]


@pytest.mark.parametrize(("option", "given"), INEFFECTIVE, ids=[option for option, _ in INEFFECTIVE])
def test_an_option_that_changes_nothing_is_named_with_the_reason(
    option: str, given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = said_of(caplog, **given)
    assert f": {option}={given[option]!r} has no effect" in line


def test_an_executor_with_usual_options_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    for kind in (HighThroughputExecutor, LowLatencyExecutor):
        assert said_of(caplog, kind) == []
    assert said_of(caplog, python="python3", launch_cmd="{python} -m flow_executors.manager {options}") == []
    assert said_of(caplog, max_transfer_bytes=1, provider=SlurmProvider("debug")) == []


def test_options_of_scaling_are_named_where_blocks_are_fixed(caplog: pytest.LogCaptureFixture) -> None:
    lines = said_of(caplog, LowLatencyExecutor, provider=LocalProvider(min_blocks=2, parallelism=0.5))
    assert [line.partition(": ")[2].partition(" of")[0] for line in lines] == ["min_blocks=2", "parallelism=0.5"]
    assert said_of(caplog, LowLatencyExecutor, provider=LocalProvider(init_blocks=2, min_blocks=2)) == []


def test_two_names_of_one_option_with_two_values_are_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="max_workers=2 and max_workers_per_node=3 are two names of one option"
    ):
        HighThroughputExecutor(max_workers=2, max_workers_per_node=3)
    assert HighThroughputExecutor(max_workers=3, max_workers_per_node=3).max_workers == 3

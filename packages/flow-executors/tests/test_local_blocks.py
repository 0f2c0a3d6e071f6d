"""Without a provider an executor uses the cores of this machine once."""

from __future__ import annotations

import os

import pytest

from flow_executors import HighThroughputExecutor, LowLatencyExecutor
from flow_providers.launchers import SimpleLauncher, SingleNodeLauncher, SrunLauncher, WrappedLauncher
from flow_providers.local.provider import LocalProvider


@pytest.mark.parametrize("kind", [HighThroughputExecutor, LowLatencyExecutor])
@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        ({}, 1),
        ({"max_workers": 1}, 8),
        ({"max_workers": 2}, 4),
        ({"max_workers": 5}, 1),
        ({"max_workers": 100}, 1),
        ({"max_workers": 2, "cores_per_worker": 2}, 2),
        ({"cores_per_worker": 16}, 1),
        ({"max_workers": 1, "cores_per_worker": 0.5}, 10),
        ({"available_accelerators": 2}, 1),
    ],
)
def test_so_many_blocks_are_started_at_most(
    monkeypatch: pytest.MonkeyPatch, kind: type[HighThroughputExecutor], options: dict[str, float], blocks: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    provider = kind(**options).provider  # type: ignore[arg-type]  # options of one type
    assert isinstance(provider, LocalProvider)
    assert provider.max_blocks == blocks


def test_a_provider_that_is_given_keeps_its_blocks() -> None:
    provider = HighThroughputExecutor(provider=LocalProvider()).provider
    assert provider is not None
    assert provider.max_blocks == 10


@pytest.mark.parametrize(
    ("launcher", "managers"),
    [
        (SingleNodeLauncher(), 3),
        (SingleNodeLauncher(task_blocks=2), 0),
        (SrunLauncher(), 3),
        (SrunLauncher(overrides="--ntasks=8"), 0),
        (WrappedLauncher("apptainer exec image.sif", SrunLauncher()), 3),
        (WrappedLauncher("apptainer exec image.sif", SingleNodeLauncher(task_blocks="CORES / 4")), 0),
        (WrappedLauncher("apptainer exec image.sif", lambda command, tasks, nodes: command), 0),
        (SimpleLauncher(), 3),
    ],
)
def test_so_many_managers_start_in_a_block_as_far_as_it_is_known(launcher: object, managers: int) -> None:
    provider = LocalProvider(nodes_per_block=3, launcher=launcher)
    assert HighThroughputExecutor(provider=provider)._managers_per_block() == managers

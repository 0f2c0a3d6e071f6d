"""Options of providers that change nothing, by themselves or beside others, are named by a warning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flow_providers import AdHocProvider, LSFProvider, SlurmProvider, without_effect
from flow_providers.channels.local import LocalChannel
from flow_providers.local.provider import LocalProvider


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(without_effect, "_said", set())
    return


CASES: list[tuple[Callable[[], object], str]] = [
    (lambda: LocalProvider(move_files=True), "LocalProvider: move_files=True has no effect: scripts always go through"),
    (lambda: SlurmProvider("debug", move_files=False), "SlurmProvider: move_files=False has no effect"),
    (lambda: LSFProvider(move_files=False), "LSFProvider: move_files=False has no effect"),
    (lambda: AdHocProvider([LocalChannel()], move_files=True), "AdHocProvider: move_files=True has no effect"),
    (
        lambda: LocalProvider(walltime="01:00:00"),
        "LocalProvider: walltime='01:00:00' has no effect without enforce_walltime=True",
    ),
    (
        lambda: AdHocProvider([LocalChannel()], walltime="01:00:00"),
        "AdHocProvider: walltime='01:00:00' has no effect without enforce_walltime=True",
    ),
    (
        lambda: LSFProvider(request_by_nodes=True, mem_per_node=3),
        "LSFProvider: mem_per_node=3 is told to the workers and not asked of LSF",
    ),
    (
        lambda: LSFProvider(request_by_nodes=True, cores_per_node=3),
        "LSFProvider: cores_per_node=3 is told to the workers and not asked of LSF",
    ),
]


@pytest.mark.parametrize(("make", "said"), CASES, ids=[said for _, said in CASES])
def test_an_option_that_changes_nothing_is_named(
    make: Callable[[], object], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    make()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(said)


def test_options_that_count_are_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    LocalProvider(walltime="01:00:00", enforce_walltime=True, init_blocks=2, max_blocks=2)
    AdHocProvider([LocalChannel()])
    LSFProvider(cores_per_node=3, mem_per_node=3, move_files=True)
    SlurmProvider("debug", walltime="01:00:00", move_files=True)
    assert not caplog.records


def test_the_text_that_both_libraries_have_is_the_same() -> None:
    flow_core = pytest.importorskip("flow_core.without_effect")
    assert Path(flow_core.__file__).read_bytes() == Path(without_effect.__file__).read_bytes()

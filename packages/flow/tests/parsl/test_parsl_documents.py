from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flow_executors.addresses
from flow.compat import parsl

CONFIGURATIONS = (Path(__file__).parent / "documents" / "configurations_0_9.txt").read_text().split("\n-----\n")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    # Interfaces of login nodes, and the internet, which a test does not have.
    for name in ("address_by_interface", "address_by_query"):
        monkeypatch.setattr(flow_executors.addresses, name, lambda *_: "127.0.0.1")
    parsl.install(quiet=True)
    yield
    parsl.uninstall()


def configured(text: str) -> Any:
    bound: dict[str, Any] = {}
    exec(text, bound)
    return next(bound[name] for name in ("config", "local_threads", "local_htex") if name in bound)


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=range(len(CONFIGURATIONS)))
def test_each_configuration_of_the_documents_of_0_9_is_taken_word_for_word(text: str) -> None:
    config = configured(text)
    assert config.executors
    config.validate()


@pytest.mark.parametrize("label", ["local_threads", "htex_Local", "local_ipp"])
def test_local_configurations_of_the_documents_run_tasks(label: str) -> None:
    import parsl

    text = next(one for one in CONFIGURATIONS if label in one and "MonitoringHub" not in one)

    @parsl.python_app
    def double(x: int) -> int:
        return 2 * x

    with parsl.load(configured(text)):
        assert [double(n).result(timeout=60) for n in range(3)] == [0, 2, 4]


def test_options_of_providers_arrive() -> None:
    text = next(one for one in CONFIGURATIONS if "Cori_HTEX_multinode" in one)
    provider = configured(text).executors[0].provider
    assert (provider.partition, provider.nodes_per_block, provider.max_blocks) == ("regular", 2, 1)
    assert provider.cmd_timeout == 120
    assert "-c 272" in provider.launcher("true", 1, 2)

"""Hostile providers, launchers, strategies and addresses: named where the user looks, within seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
from places import ELSEWHERE

import flow
from flow_core.errors import FlowError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_executors.htex import HighThroughputExecutor
from flow_executors.testing.local_run import wait_until
from flow_providers.local.provider import LocalProvider

pytestmark = pytest.mark.slow

SOON_S = 5.0


@pytest.fixture(autouse=True)
def _release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))
    hostile.RELEASE.clear()
    hostile.REACHED.clear()
    yield
    hostile.RELEASE.set()
    flow.clear()


@flow.python_app(executors=["good"])
def plain(x: int) -> int:
    return x + 1


@flow.python_app(executors=["bad"])
def on_bad(x: int) -> int:
    return x + 1


def _provider(method: str) -> Callable[[str], dict[str, Any]]:
    def options(how: str) -> dict[str, Any]:
        place = f"ExecutionProvider.{method}"
        hook = {method: lambda self, *args, **named: hostile.act(how, place)}
        return {"provider": type("Mine", (LocalProvider,), hook)(init_blocks=1, max_blocks=1)}

    return options


def _launcher(how: str) -> dict[str, Any]:
    def mine(command: str, tasks_per_node: int, nodes_per_block: int) -> Any:
        return hostile.act(how, "Launcher.__call__")

    return {"provider": LocalProvider(init_blocks=1, max_blocks=1, launcher=mine)}


def _handler(how: str) -> dict[str, Any]:
    def mine(executor: Any, failed: dict[str, Any]) -> Any:
        return hostile.act(how, "block_error_handler")

    return {"provider": LocalProvider(init_blocks=1, max_blocks=1, launcher=_ends), "block_error_handler": mine}


def _ends(command: str, tasks_per_node: int, nodes_per_block: int) -> str:
    """Make a job of nothing: the block fails."""
    return "exit 3"


def _strategy(how: str) -> dict[str, Any]:
    return {"strategy": lambda _view: hostile.act(how, "Config(strategy=)")}


CASES: dict[str, Callable[[str], dict[str, Any]]] = {
    "ExecutionProvider.submit": _provider("submit"),
    "ExecutionProvider.status": _provider("status"),
    "Launcher.__call__": _launcher,
    "Config(strategy=)": _strategy,
    "block_error_handler": _handler,
}


def _names(place: str, told: str) -> bool:
    """Tell whether a text says of a place that it does not return, and where."""
    name = {"Config(strategy=)": "the strategy", "Launcher.__call__": "_launcher.<locals>.mine"}.get(place, place)
    return f"{name.rpartition('.')[2]}" in told and ("has not returned" in told or "has not come back" in told)


def _told(future: Any, caplog: pytest.LogCaptureFixture) -> str:
    """Return all that a user can read of a task: its error, why it waits, and the log."""
    error = str(future.exception()) if future.done() else str(future.why(0.5))
    return f"{error}\n{caplog.text}"


@pytest.mark.parametrize("how", ["raises", "odd"])
@pytest.mark.parametrize("place", CASES)
def test_what_gives_blocks_may_be_hostile(
    place: str, how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = CASES[place](how)
    settings = {"strategy": options.pop("strategy")} if "strategy" in options else {}
    bad = HighThroughputExecutor("bad", max_workers=1, **{"provider": LocalProvider(init_blocks=1), **options})
    executors = [ThreadPoolExecutor("good"), bad]
    with flow.load(flow.Config(executors=executors, run_dir=tmp_path, strategy_period=0.2, **settings)):
        future = on_bad(1)
        assert plain(1).result(SOON_S) == 2
        wait_until(lambda: place in hostile.REACHED, f"{place} was not called", SOON_S)
        wait_until(
            lambda: (
                (future.done() and future.exception() is None)
                or any(word in _told(future, caplog) for word in ("hostile", "SystemExit", "Odd", "TypeError"))
            ),
            f"{place} is not named",
            2 * SOON_S,
        )
        assert plain(1).result(SOON_S) == 2
    assert place in hostile.REACHED


@pytest.mark.parametrize("place", [*CASES, "ExecutionProvider.tail"])
def test_what_gives_blocks_may_hang_and_is_named_while_others_go_on(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    method = place.rpartition(".")[2]
    options = (CASES.get(place) or _provider(method))("hangs")
    settings = {"strategy": options.pop("strategy")} if "strategy" in options else {}
    if method == "tail":  # asked of blocks that failed
        options["provider"].launcher = _ends
    bad = HighThroughputExecutor("bad", max_workers=1, **{"provider": LocalProvider(init_blocks=1), **options})
    kernel = flow.load(
        flow.Config(executors=[ThreadPoolExecutor("good"), bad], run_dir=tmp_path, strategy_period=0.2, **settings)
    )
    future = on_bad(1)
    wait_until(lambda: place in hostile.REACHED, f"{place} was not called", 2 * SOON_S)
    assert plain(1).result(SOON_S) == 2
    wait_until(
        lambda: (future.done() and future.exception() is None) or _names(place, _told(future, caplog)),
        f"{place} is not named",
        SOON_S,
    )
    assert plain(1).result(SOON_S) == 2
    hostile.RELEASE.set()  # else what may have been submitted is looked for after the run
    kernel.cleanup(10.0)


@pytest.mark.parametrize("how", ["raises", "odd"])
def test_an_address_that_is_hostile_refuses_the_run(how: str, tmp_path: Path) -> None:
    bad = HighThroughputExecutor("bad", address=lambda: hostile.act(how, "address"), provider=LocalProvider())
    with pytest.raises(FlowError, match=r"bad|address"):
        flow.load(flow.Config(executors=[bad], run_dir=tmp_path))
    assert "address" in hostile.REACHED


@pytest.mark.parametrize("how", ["raises", "odd"])
def test_a_hostile_removal_of_what_jobs_leave_is_logged_and_the_run_ends(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = HighThroughputExecutor("bad", max_workers=1, **_provider("clear")(how))
    with flow.load(flow.Config(executors=[ThreadPoolExecutor("good"), bad], run_dir=tmp_path)):
        assert on_bad(1).result(30) == 2
    assert "ExecutionProvider.clear" in hostile.REACHED
    if how == "raises":
        assert "hostile" in caplog.text or "SystemExit" in caplog.text


def test_the_places_that_the_table_leaves_to_blocks_are_here() -> None:
    left = {place for place, where in ELSEWHERE.items() if where == "test_blocks.py"}
    options = {
        f"{kind}({name}=)"
        for kind in ("HighThroughputExecutor", "LowLatencyExecutor", "ExtremeScaleExecutor")
        for name in ("provider", "address", "block_error_handler")
    }
    rest = {f"ExecutionProvider.{name}" for name in ("cancel", "tail", "close", "offer_script_dir", "clear")}
    assert left - CASES.keys() - options - rest == set()

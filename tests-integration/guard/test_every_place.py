"""Wherever an object of a user's meets Flow, a hostile one costs its own task only, and is named within seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
from places import CASES, ELSEWHERE, Case, every_place, plain

import flow
from flow_core.errors import FlowError, HookError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.futures import callbacks
from flow_core.guard import one_line
from flow_executors.testing.local_run import wait_until

SOON_S = 5.0
TRIALS = [
    pytest.param(place, how, id=f"{place} {how}")
    for place, case in CASES.items()
    for how in ("raises", "odd", "hangs")
    if case.expected(how) != "caller"
]


@pytest.fixture(autouse=True)
def _no_threads_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(callbacks, "_TOLD_S", 0.6)  # not 3: there are many that do not return
    hostile.RELEASE.clear()
    hostile.REACHED.clear()
    yield
    hostile.RELEASE.set()
    flow.clear()
    for lane in (callbacks.user_calls, callbacks.hook_calls, callbacks.packing_calls):
        assert lane.drain(SOON_S)  # what hung must not hang again in the next test


# Kinds of which the table names options that only some of them have.
OTHERS = ("LowLatency", "ExtremeScale", "_app(")


def test_every_place_has_a_case_or_a_reason_why_not() -> None:
    known = CASES.keys() | ELSEWHERE.keys()
    assert every_place() - known == set(), "these places are new: add cases to places.py"
    ours = {name for name in known if not name.startswith("Snapshot")}
    unknown = {name for name in ours - every_place() if not any(one in name for one in OTHERS)}
    assert unknown == set(), "these places are gone: take them out of places.py"
    assert not CASES.keys() & ELSEWHERE.keys()


@pytest.mark.parametrize(("place", "how"), TRIALS)
def test_a_hostile_hook_costs_its_own_task_only(
    place: str, how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = CASES[place]
    caplog.set_level("INFO")
    options = case.config(how, tmp_path)
    executors = [ThreadPoolExecutor("good", 2), *options.pop("executors", [ThreadPoolExecutor("bad", 2)])]
    config = flow.Config(executors=executors, run_dir=tmp_path / "runinfo", **options)
    name = _name(place)
    if case.expected(how) == "load":
        with pytest.raises(FlowError) as refused:
            flow.load(config)
        assert name in str(refused.value) or "Mine" in str(refused.value) or "'bad'" in str(refused.value)
        assert place in hostile.REACHED
        return
    kernel = flow.load(config)
    victim = _try(case, how, name, caplog)
    _wait_for(victim, place)
    began = time.monotonic()
    kernel.cleanup(2.0)
    assert time.monotonic() - began < 15
    assert place in hostile.REACHED
    if case.expected(how) == "logged":
        assert (
            name in caplog.text
            or "Odd.result()" in caplog.text
            or "Mine" in caplog.text
            or "'bad'" in caplog.text
            or "sampler" in caplog.text
        )
    assert kernel._reactor.bugs == 0


@pytest.mark.parametrize("place", ["EventSink.start", "EventSink.wants", "SamplingSink.sampler", "Executor.start"])
def test_what_hangs_while_a_run_begins_is_named_in_the_log(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = CASES[place].config("hangs", tmp_path)
    executors = [ThreadPoolExecutor("good", 2), *options.pop("executors", [])]
    config = flow.Config(executors=executors, run_dir=tmp_path / "runinfo", **options)
    begun: list[Any] = []

    def begin() -> None:
        try:
            begun.append(flow.load(config))
        except FlowError as error:  # of what such a hook gives in the end
            begun.append(error)

    begins = threading.Thread(target=begin, daemon=True)
    begins.start()
    told = f"Mine.{place.partition('.')[2]}"
    wait_until(
        lambda: f"{told}" in caplog.text and "has not returned for" in caplog.text, f"{place} is not named", SOON_S
    )
    assert "called at the begin of the run" in caplog.text
    assert "at act (" in caplog.text
    hostile.RELEASE.set()
    begins.join(30)
    assert begun


@pytest.mark.parametrize("place", [place for place, case in CASES.items() if case.hangs == "logged"])
def test_a_hook_that_does_not_return_keeps_its_task_no_longer_than_it_may(place: str, tmp_path: Path) -> None:
    case = CASES[place]
    options = case.config("hangs", tmp_path)
    executors = [ThreadPoolExecutor("good", 2), *options.pop("executors", [ThreadPoolExecutor("bad", 2)])]
    kernel = flow.load(flow.Config(executors=executors, run_dir=tmp_path / "runinfo", hook_timeout=0.7, **options))
    victim = case.victim()
    error = victim.exception(SOON_S)
    if (case.overdue or case.raises) == "fails":
        assert isinstance(error, HookError), one_line(error)
        assert "has not returned for 0.7 s (hook_timeout), in " in str(error)
        assert "act (" in str(error)
        assert _name(place) in str(error) or "Mine" in str(error) or "remembered result" in str(error)
        assert f"task {victim.tid}" in str(error)
    else:
        assert error is None
    assert plain(1).result(SOON_S) == 2
    hostile.RELEASE.set()  # what comes back late changes nothing
    for lane in (callbacks.hook_calls, callbacks.packing_calls):
        assert lane.drain(SOON_S)
    assert victim.exception(SOON_S) is error
    kernel.cleanup(5.0)
    assert kernel._reactor.bugs == 0


def _wait_for(victim: Any, place: str) -> None:
    """Give a victim the time to come to a place that is reached before the run ends."""
    until = time.monotonic() + SOON_S
    while victim is not None and not victim.done() and place not in hostile.REACHED and time.monotonic() < until:
        time.sleep(0.01)


def _try(case: Case, how: str, name: str, caplog: pytest.LogCaptureFixture) -> Any:
    """Call the victim and others beside it and after it; return the victim's future, if it was called."""
    victim, error = None, None
    try:
        victim = case.victim()
    except FlowError as refused:  # at the call, by name
        error = refused
    assert plain(1).result(SOON_S) == 2
    if case.expected(how) == "fails":
        error = victim.exception(SOON_S) if error is None else error
        assert isinstance(error, FlowError), one_line(error)
        assert name in str(error) or "Mine" in str(error) or "'bad'" in str(error), str(error)
        assert "task" in str(error)
    elif how == "hangs" and case.expected(how) == "logged":
        if victim is not None and not victim.done():
            wait_until(lambda: victim.done() or name in caplog.text, f"{name} is not named", SOON_S)
            told = victim.why().line
            assert victim.done() or name in told or "Mine" in told or "'bad'" in told, told
    elif victim is not None and how != "odd":
        victim.exception(SOON_S)
    assert [plain(n).result(SOON_S) for n in range(3)] == [1, 2, 3]
    return victim


def _name(place: str) -> str:
    """Return what messages call a place: the method of the class of the case, or the option."""
    if place.startswith("Config("):
        return place.removeprefix("Config(").removesuffix("=)")
    return f"Mine.{place.partition('.')[2]}()"

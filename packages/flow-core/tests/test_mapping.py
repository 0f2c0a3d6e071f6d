from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

import flow_core as flow
from flow_core.errors import ConfigurationError


@pytest.fixture(autouse=True)
def loaded(tmp_path: Path) -> Iterator[None]:
    with flow.load(flow.Config(run_dir=tmp_path / "runinfo")):
        yield


@flow.python_app
def halve(x: int) -> float:
    if x == 3:
        raise ValueError(x)
    return x / 2


def test_an_endless_generator_is_read_no_further_than_needed() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in itertools.count(4):
            taken.append(number)
            yield number

    futures = flow.map(halve, numbers(), max_in_flight=5)
    assert [f.result() for f in itertools.islice(futures, 20)] == [n / 2 for n in range(4, 24)]
    assert len(taken) <= 25


@pytest.mark.parametrize("ordered", [True, False])
def test_all_items_come_and_failures_are_futures_too(ordered: bool) -> None:
    futures = list(flow.map(halve, range(100), max_in_flight=7, ordered=ordered))
    assert all(f.done() for f in futures)
    good = [f.result() for f in futures if f.exception() is None]
    assert sorted(good) == [n / 2 for n in range(100) if n != 3]
    assert not ordered or good == sorted(good)


def test_nothing_in_nothing_out() -> None:
    assert list(flow.map(halve, [])) == []


def test_an_impossible_limit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_in_flight"):
        flow.map(halve, [1], max_in_flight=0)


def test_a_star_import_does_not_hide_the_builtin() -> None:
    assert "map" not in flow.__all__

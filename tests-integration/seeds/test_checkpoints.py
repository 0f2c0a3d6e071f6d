"""Chapter: checkpointing."""

from __future__ import annotations

from pathlib import Path

import pytest

import flow
from flow import Config, python_app
from flow.executors import ThreadPoolExecutor
from flow.utils import get_all_checkpoints, get_last_checkpoint


@python_app(cache=True)
def counted_double(x, log):
    with open(log, "a") as stream:
        stream.write(f"{x}\n")
    return x * 2


def runs(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.parametrize("mode", ["task_exit", "dfk_exit"])
def test_a_later_run_takes_results_from_a_checkpoint(own_run: Path, mode: str):
    log = own_run / "runs"
    with flow.load(Config(checkpoint_mode=mode)):
        assert [counted_double(x, str(log)).result() for x in range(5)] == [0, 2, 4, 6, 8]
    assert runs(log) == 5
    with flow.load(Config(checkpoint_files=get_all_checkpoints())):
        assert [counted_double(x, str(log)).result() for x in range(6)] == [0, 2, 4, 6, 8, 10]
    assert runs(log) == 6


def test_a_checkpoint_can_be_made_by_hand(own_run: Path):
    log = own_run / "runs"
    kernel = flow.load(Config(executors=[ThreadPoolExecutor()]))
    futures = [counted_double(x, str(log)) for x in range(5)]
    assert [future.result() for future in futures] == [0, 2, 4, 6, 8]
    directory = kernel.checkpoint()
    assert Path(directory).is_dir()
    assert Path(directory).is_relative_to(own_run / "runinfo")
    kernel.cleanup()
    flow.clear()
    with flow.load(Config(checkpoint_files=[directory])):
        assert counted_double(4, str(log)).result() == 8
    assert runs(log) == 5


def test_a_periodic_checkpoint_is_also_made_at_the_end(own_run: Path):
    log = own_run / "runs"
    with flow.load(Config(checkpoint_mode="periodic", checkpoint_period="01:00:00")):
        counted_double(1, str(log)).result()
    with flow.load(Config(checkpoint_files=get_last_checkpoint())):
        counted_double(1, str(log)).result()
    assert runs(log) == 1


def test_a_checkpoint_can_be_loaded_into_a_run_that_has_begun(own_run: Path):
    log = own_run / "runs"
    with flow.load(Config(checkpoint_mode="task_exit")):
        counted_double(1, str(log)).result()
    with flow.load(Config()) as kernel:
        loaded = kernel.load_checkpoints(get_all_checkpoints())
        assert [future.result() for future in loaded.values()] == [2]
        assert counted_double(1, str(log)).result() == 2
    assert runs(log) == 1


def test_failed_and_uncached_apps_are_not_in_a_checkpoint(own_run: Path):
    @python_app(cache=True)
    def fails():
        raise RuntimeError("no")

    @python_app
    def plain():
        return 1

    with flow.load(Config(checkpoint_mode="task_exit")):
        assert fails().exception() is not None
        assert plain().result() == 1
    assert get_all_checkpoints() == []


def test_a_checkpoint_loads_from_runs_kept_elsewhere(own_run: Path):
    log = own_run / "runs"
    with flow.load(Config(checkpoint_mode="dfk_exit", run_dir="elsewhere")):
        counted_double(1, str(log)).result()
    with flow.load(Config(checkpoint_files=get_all_checkpoints("elsewhere"))):
        counted_double(1, str(log)).result()
    assert runs(log) == 1

"""Blocks as real jobs of a LocalProvider: they come with load, go with idleness, and tell why when they fail."""

import os
import time
from pathlib import Path

import pytest

import flow_core as flow
from flow_core import Config, python_app
from flow_core.errors import ExecutorBroken
from flow_executors.htex import HighThroughputExecutor
from flow_executors.testing.node import until
from flow_providers.jobs.ledger import JobLedger
from flow_providers.local.provider import LocalProvider


@python_app
def block_after(seconds):
    time.sleep(seconds)
    return os.environ["FLOW_WORKER_BLOCK_ID"]


@python_app
def block_after_gate(began, gate):
    Path(began).touch()
    while not Path(gate).exists():
        time.sleep(0.01)
    return os.environ["FLOW_WORKER_BLOCK_ID"]


def config(tmp_path: Path, executor, **settings):
    return Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), **settings)


def executor(**options):
    provider = LocalProvider(**options)
    return HighThroughputExecutor(label="htex", max_workers=1, provider=provider)


def states(htex):
    return {state.name for state in htex.status().values()}


@pytest.fixture(autouse=True)
def _own_ledger(monkeypatch, tmp_path):
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "jobs.ledger"))


def test_blocks_that_fail_at_once_end_their_tasks_with_the_jobs_own_words(tmp_path):
    htex = executor(worker_init="echo no such module >&2; exit 3")
    with flow.load(config(tmp_path, htex)):
        error = block_after(0).exception(timeout=40)
    assert isinstance(error, ExecutorBroken)
    assert "exit code 3" in str(error)
    assert "| no such module" in str(error)


def test_a_provider_that_refuses_is_quoted(tmp_path):
    htex = executor()
    htex.provider.submit = lambda *args, **kwargs: (_ for _ in ()).throw(refusal())
    # Told by load() if it is known by then, else by the task.
    with pytest.raises(ExecutorBroken, match="the queue is closed"), flow.load(config(tmp_path, htex)):
        block_after(0).result(timeout=40)


def refusal():
    from flow_providers.errors import SubmitException

    return SubmitException("the queue is closed")


def test_blocks_come_with_load_and_go_with_idleness_and_come_again(tmp_path):
    htex = executor(init_blocks=0, max_blocks=3)
    settings = {"strategy": "htex_auto_scale", "strategy_period": 0.2, "max_idletime": 1.0}
    with flow.load(config(tmp_path, htex, **settings)):
        futures = [block_after(0.5) for _ in range(12)]
        assert {future.result(timeout=40) for future in futures} == {"0", "1", "2"}
        until(lambda: states(htex) == {"SCALED_IN"}, "idle blocks are given back")
        assert block_after(0).result(timeout=40) == "3"
    assert JobLedger(tmp_path / "jobs.ledger").open_entries() == []


def test_blocks_are_added_and_given_back_by_hand(tmp_path):
    htex = executor(init_blocks=1, max_blocks=5)
    with flow.load(config(tmp_path, htex, strategy="none")):
        assert block_after(0).result(timeout=40) == "0"
        assert htex.scale_out(2) == ["1", "2"]
        until(lambda: len(htex.connected_blocks()) == 3, "three blocks are connected")
        given_back = htex.scale_in(2)
        assert len(given_back) == 2
        until(lambda: len(htex.connected_blocks()) == 1, "one block is left")
        assert block_after(0).result(timeout=40) in {"0", "1", "2"} - set(given_back)


def test_blocks_with_more_workers_than_this_machine_has_cores_are_warned_of_once(tmp_path):
    htex = HighThroughputExecutor(label="htex", provider=LocalProvider(init_blocks=1, max_blocks=3))
    with flow.load(config(tmp_path, htex, strategy="none")) as kernel:
        htex.scale_out(2)
        log = (kernel.run_dir / "flow.log").read_text()
    (told,) = [line for line in log.splitlines() if "tasks share them" in line]
    cores = os.cpu_count()
    assert f"htex has 2 blocks of {cores} workers on this machine of {cores} cores" in told
    assert "With max_blocks=1 of its LocalProvider each core is used once" in told


def test_a_working_block_is_never_given_back(tmp_path):
    htex = executor(init_blocks=1, max_blocks=1)
    with flow.load(config(tmp_path, htex, strategy="none")):
        began, gate = tmp_path / "began", tmp_path / "gate"
        future = block_after_gate(str(began), str(gate))
        until(began.exists, "the task runs")
        assert htex.scale_in(1) == []
        gate.touch()
        assert future.result(timeout=40) == "0"

"""The shape of a task of ranks counts in the key of its call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kernel_apps import Load

import flow_core as flow
from flow_core.apps.special import task_spec
from flow_core.checkpoint.reader import CheckpointReader, checkpoint_file
from flow_core.config import Config
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.interfaces.call import Call
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.memoizer import AppIdentity, MemoKey
from flow_core.memo.explain import why
from flow_core.memo.key import memo_key, source_key, with_ranks


@flow.python_app(cache=True)
def one() -> int:
    return 1


@flow.bash_app(cache=True)
def command() -> str:
    return "true"


class Ranks(ThreadPoolExecutor):
    """Takes tasks of ranks, and runs them on one: what counts here is which of them it is given."""

    honours = ThreadPoolExecutor.honours | {"ranks"}


def executor() -> Executor:
    return Ranks("ranks", max_threads=1)


def key(**asked: float) -> MemoKey:
    plain = memo_key(AppIdentity("users_own.f", len, "python:1", ()), Call(len, ((),), {}))
    return with_ranks(plain, task_spec("f", None, dict(asked)).resources)


@pytest.mark.parametrize("app", [one, command])
def test_a_call_with_another_number_of_ranks_is_run(load: Load, app: Any) -> None:
    kernel = load(executor())
    for ranks in (2, 3, 2):
        app.options(resource_specification={"ranks": ranks})().result()
    assert kernel.summary().memoized == 1


def test_a_task_without_ranks_has_the_key_of_before(load: Load) -> None:
    kernel = load(executor(), checkpoint_mode="dfk_exit")
    one().result()
    flow.clear()
    (record,) = CheckpointReader(checkpoint_file(kernel.run_dir))
    definition = one._definition
    assert record.meta.digest == memo_key(definition.identity, Call(definition.func)).digest


@pytest.mark.parametrize(
    "other",
    [
        {"ranks": 4},
        {"nodes": 1, "ranks_per_node": 4},
        {"nodes": 4, "ranks_per_node": 1},
        {"nodes": 2, "ranks_per_node": 2, "cores_per_rank": 2},
        {"nodes": 2, "ranks_per_node": 2, "gpus_per_rank": 1},
    ],
)
def test_each_word_of_a_shape_makes_another_key(other: dict[str, float]) -> None:
    mine = key(nodes=2, ranks_per_node=2)
    assert mine.digest != key(**other).digest
    assert source_key(mine) != source_key(key(**other)) or source_key(mine) is None


def test_a_shape_that_is_said_in_other_words_is_the_same() -> None:
    assert key(nodes=2, ranks_per_node=2).digest == key(nodes=2, ranks=4).digest
    assert key(ranks=2, cores_per_rank=2).digest == key(ranks=2, cores_per_rank=2.0).digest


def test_a_miss_is_explained_by_what_of_the_shape_is_another(load: Load, tmp_path: Path) -> None:
    places = []
    for ranks in (2, 3):
        config = Config(executors=[executor()], run_dir=str(tmp_path / "runinfo"), checkpoint_mode="dfk_exit")
        with flow.load(config) as kernel:
            one.options(resource_specification={"ranks": ranks})().result()
        places.append(kernel.run_dir)
    (found,) = why(places[1], [places[0]])
    assert found.reason.changes == "shape of its ranks (ranks: 2 -> 3)"

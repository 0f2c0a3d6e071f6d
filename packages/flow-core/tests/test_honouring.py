"""What no executor honours is refused at the call, by name; tasks go to those that honour what they ask for."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from kernel_apps import Load, add

import flow_core as flow
from flow_core.apps.app import JoinApp
from flow_core.apps.definition import AppKind
from flow_core.apps.special import RESOURCE_KEYS, task_spec
from flow_core.errors import ConfigurationError, TaskRefused
from flow_core.executors.futures import FuturesExecutor, SubmitExecutor
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.futures.callbacks import hook_calls, packing_calls
from flow_core.interfaces.call import DEFAULT_SPEC
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.task_fields import HONOURED_BY_ALL, TASK_FIELDS, asked_for
from flow_core.kernel.honouring import honours, willing
from flow_core.testing import MemoryExecutor

EACH: dict[str, Any] = {
    "cores": 2,
    "memory": 100,
    "gpus": 0.5,
    "disk": 10,
    "nodes": 2,
    "ranks_per_node": 4,
    "ranks": 4,
    "cores_per_rank": 2,
    "gpus_per_rank": 0.5,
    "exclusive": True,
    "named": {"licence": 1},
    "priority": -1,
    "running_time_min": 60,
    "environment": {"A": "b"},
    "container": "image:1",
    "warn_before_end_s": 30.0,
}
UNHONOURED = sorted(EACH.keys() - {"running_time_min", "environment", "container"})


@flow.bash_app
def shell() -> str:
    return "true"


@flow.join_app
def joined() -> Future[int]:
    return add(1)


def memory(label: str, *fields: str) -> MemoryExecutor:
    executor = MemoryExecutor(label)
    executor.honours = HONOURED_BY_ALL.union(fields)
    return executor


def test_every_key_of_a_specification_is_a_field_that_executors_declare() -> None:
    assert set(RESOURCE_KEYS) | {"walltime"} == set(TASK_FIELDS)
    assert EACH.keys() | {"walltime"} == set(TASK_FIELDS)


@pytest.mark.parametrize("field", sorted(EACH))
def test_a_field_counts_as_asked_for_where_it_is_stated(field: str) -> None:
    assert list(asked_for(task_spec("app", None, {field: EACH[field]}))) == [field]


def test_what_each_task_has_anyway_is_not_asked_for() -> None:
    plain = {"cores": 1, "nodes": 1, "ranks_per_node": 1, "memory": 0, "gpus": 0, "priority": 0, "named": {"a": 0}}
    assert asked_for(task_spec("app", None, plain)) == {}
    assert asked_for(DEFAULT_SPEC) == {}
    assert asked_for(task_spec("app", 3)) == {"walltime": 3.0}


@pytest.mark.parametrize("field", UNHONOURED)
@pytest.mark.parametrize("pool", [ThreadPoolExecutor, lambda: concurrent.futures.ThreadPoolExecutor(1)])
def test_what_no_executor_honours_is_refused_by_name_at_the_call(
    field: str, pool: Callable[[], Any], load: Load
) -> None:
    kernel = load(pool())
    with pytest.raises(
        TaskRefused, match=rf"app 'add' asks for {field}=.*ThreadPoolExecutor.* does not honour {field}"
    ):
        add.options(resource_specification={field: EACH[field]})(1)
    with pytest.raises(TaskRefused, match=f"leave {field} out"):
        add(1, resource_specification={field: EACH[field]})
    assert kernel.summary().unfinished == 0
    assert add(1).result(10) == 2


def test_a_container_is_refused_where_no_executor_honours_it(load: Load) -> None:
    load(memory("plain"))
    with pytest.raises(TaskRefused, match=r"container=Container\('no-such-image'\).*HighThroughputExecutor"):
        shell.options(container="no-such-image")()


@pytest.mark.parametrize("field", ["nodes", "ranks_per_node", "ranks", "num_ranks", "cores_per_rank", "gpus_per_rank"])
def test_ranks_of_a_task_in_a_container_are_refused_by_name_at_the_call(field: str, load: Load) -> None:
    load(memory("able", *TASK_FIELDS))
    key = {"num_ranks": "ranks"}.get(field, field)
    refused = rf"Container\('image'\).*no ranks.*'{key}' asks for ranks: leave one.*by container= of the executor"
    for app, arguments in ((shell, ()), (add, (1,))):
        with pytest.raises(ConfigurationError, match=refused):
            app.options(container="image", resource_specification={field: 2})
        with pytest.raises(ConfigurationError, match=refused):
            app.options(container="image")(*arguments, resource_specification={field: 2})


def test_a_container_may_have_a_node_to_itself(load: Load) -> None:
    assert task_spec("app", None, {"container": "image", "exclusive": True}).resources.exclusive
    with pytest.raises(ConfigurationError, match="no ranks"):
        task_spec("app", None, {"container": "image", "exclusive": True, "nodes": 2})


def test_a_task_in_a_container_that_cannot_be_told_of_the_end_of_its_block_is_refused(load: Load) -> None:
    load(memory("able", "container", "warn_before_end_s"))
    told = r"asks for warn_before_end_s and for Container"
    with pytest.raises(TaskRefused, match=told):
        add.options(container="image", warn_before_end_s=5)(1)
    with pytest.raises(TaskRefused, match=told):
        shell.options(container=flow.Container("image", keep=True), warn_before_end_s=5)()
    shell.options(container="image", warn_before_end_s=5)()


def test_walltime_and_running_time_are_honoured_on_threads(load: Load) -> None:
    load()
    assert add(1, walltime=60, resource_specification={"running_time_min": 60}).result(10) == 2


def test_variables_of_a_python_app_are_refused_on_threads_and_those_of_a_bash_app_are_set(load: Load) -> None:
    load()
    with pytest.raises(TaskRefused, match=r"environment.*use a bash app, or an executor whose workers are processes"):
        add.options(environment={"A": "b"})(1)
    assert shell.options(environment={"A": "b"})().result(10) == 0


def test_tasks_go_only_to_executors_that_honour_what_they_ask_for(load: Load) -> None:
    plain, able = memory("plain"), memory("able", "gpus", "memory")
    load(plain, able)
    for _ in range(20):
        add(1, resource_specification={"gpus": 1})
        add(1, resource_specification={"gpus": 1, "memory": 10}, walltime=60)
    assert packing_calls.drain(10)
    assert (len(plain.calls), len(able.calls)) == (0, 40)


def test_the_chooser_is_given_only_executors_that_honour_the_task(load: Load) -> None:
    given = []

    def chooser(labels: list[str], _task: object) -> str:
        given.append(tuple(labels))
        return labels[-1]

    executors = memory("one", "gpus"), memory("two"), memory("three", "gpus")
    load(*executors, executor_chooser=chooser)
    add(1, resource_specification={"gpus": 1})
    assert hook_calls.drain(10)  # choosers are asked there, unless nothing is to be prepared
    add(1)
    assert hook_calls.drain(10)
    assert given == [("one", "three"), ("one", "two", "three")]


def test_an_executor_that_is_named_and_does_not_honour_the_task_is_refused(load: Load) -> None:
    load(memory("plain"), memory("able", "gpus"))
    asks = {"resource_specification": {"gpus": 1}}
    with pytest.raises(TaskRefused, match=r"'plain' \(MemoryExecutor\) does not honour gpus. Executor 'able' .* does"):
        add.options(executors=["plain"])(1, **asks)
    with pytest.raises(TaskRefused, match="'plain'"):
        add.options(executors=["plain", "able"])(1, **asks)
    add.options(executors=["able"])(1, **asks)
    add.options(executors="all")(1, **asks)


def test_where_each_field_is_honoured_by_another_the_message_says_which(load: Load) -> None:
    load(memory("one", "gpus"), memory("two", "container"))
    with pytest.raises(
        TaskRefused, match=r"'one' .* does not honour container; executor 'two' .* does not honour gpus"
    ):
        add.options(container="image")(1, resource_specification={"gpus": 1})


def test_the_executor_that_would_honour_it_is_named_where_the_config_has_none(load: Load) -> None:
    load()
    with pytest.raises(TaskRefused, match="A HighThroughputExecutor honours that: add one"):
        add(1, resource_specification={"cores": 2})


def test_resources_of_a_join_app_are_refused_since_its_function_runs_in_the_script(load: Load) -> None:
    load(memory("able", *TASK_FIELDS))
    with pytest.raises(TaskRefused, match=r"join app 'joined' asks for cores=2.*give it to the apps that it calls"):
        joined(resource_specification={"cores": 2})


@pytest.mark.parametrize("option", [{"executors": ["x"]}, {"rerun_on_loss": False}])
def test_options_that_mean_nothing_for_a_join_app_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(option))} means nothing for a join app"):
        JoinApp(lambda: None, **option)


def test_executors_cannot_be_chosen_for_a_join_app_by_options() -> None:
    with pytest.raises(ConfigurationError, match="executors means nothing for a join app"):
        joined.options(executors=["x"])


@pytest.mark.parametrize("declared", ["gpus", {"gpus"}, None, frozenset(("gpu",))])
def test_an_impossible_declaration_is_refused_when_the_config_is_loaded(declared: Any, load: Load) -> None:
    executor = MemoryExecutor("odd")
    executor.honours = declared
    with pytest.raises(ConfigurationError, match="executor 'odd': honours"):
        load(executor)


class Told(concurrent.futures.ThreadPoolExecutor):
    """A pool whose ``submit`` is told what tasks ask for."""

    honours = frozenset(("gpus", "named"))

    def __init__(self) -> None:
        super().__init__(1)
        self.told: list[object] = []

    def submit(  # type: ignore[override]
        self, fn: Callable[..., Any], /, *args: Any, resource_specification: object = None, **kwargs: Any
    ) -> Future[Any]:
        self.told.append(resource_specification)
        return super().submit(fn, *args, **kwargs)


def test_a_pool_that_declares_fields_is_told_of_them(load: Load) -> None:
    with Told() as pool:
        load(pool)
        asks = {"gpus": 1, "named": {"licence": 2}}
        assert add(1, resource_specification=asks, walltime=60).result(10) == 2
        assert add(2).result(10) == 3
        assert pool.told == [{"gpus": 1.0, "named": {"licence": 2.0}}, None]
        with pytest.raises(TaskRefused, match=r"Told|'Told'"):
            add(1, resource_specification={"cores": 3})


def test_a_pool_that_declares_what_its_submit_never_hears_of_is_refused() -> None:
    class Deaf(concurrent.futures.ThreadPoolExecutor):
        honours = frozenset(("gpus",))

    with Deaf(1) as pool, pytest.raises(ConfigurationError, match=r"would never be told of it: submit\(\) of Deaf"):
        FuturesExecutor("deaf", pool)


class Seeds:
    label = "seeds"

    def submit(self, func: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(func(*args))
        return future


def test_an_executor_in_the_seeds_style_honours_what_its_submit_takes() -> None:
    class WithResources(Seeds):
        def submit(self, func: Callable[..., Any], resource_specification: object, *args: Any) -> Future[Any]:  # type: ignore[override]
            return super().submit(func, *args)

    assert SubmitExecutor(Seeds()).honours == HONOURED_BY_ALL
    taken = {"cores", "memory", "disk", "gpus", "running_time_min", "priority"}
    assert SubmitExecutor(WithResources()).honours == HONOURED_BY_ALL | taken
    declaring = WithResources()
    declaring.honours = {"nodes"}  # type: ignore[attr-defined]
    assert SubmitExecutor(declaring).honours == HONOURED_BY_ALL | {"nodes"}


def test_an_executor_of_the_users_own_honours_by_default_what_is_done_where_tasks_run() -> None:
    assert Executor.honours == HONOURED_BY_ALL == {"walltime", "environment"}


def test_of_many_executors_a_message_names_a_few_and_counts_the_others() -> None:
    executors = [memory(f"e{number}") for number in range(9)]
    with pytest.raises(TaskRefused, match=r"'e3' .*; 5 more"):
        willing("f", AppKind.PYTHON, {"gpus": 1.0}, executors, False, executors)


def test_variables_of_python_apps_are_honoured_by_processes_alone() -> None:
    inside = memory("inside")
    outside = memory("outside")
    outside.in_process = False
    kinds = (AppKind.PYTHON, AppKind.BASH)
    assert [honours(inside, "environment", kind) for kind in kinds] == [False, True]
    assert [honours(outside, "environment", kind) for kind in kinds] == [True, True]

"""Results flow along futures: what is waited for, in what order, and what is forgotten."""

from __future__ import annotations

import concurrent.futures
import gc
import re
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from kernel_apps import Load, add, total

import flow_core as flow
from flow_core.errors import DependencyError, HiddenFutureError
from flow_core.futures.app_future import AppFuture
from flow_core.graph.resolver import DEEP


@flow.python_app
def wait_for(gate: threading.Event, _after: object = None) -> bool:
    return gate.wait(30)


def test_results_flow_along_futures(load: Load) -> None:
    load()
    assert add(add(1), y=add(2)).result(10) == 5


def test_foreign_futures_are_waited_for_and_their_failures_are_causes(load: Load) -> None:
    load()
    foreign: concurrent.futures.Future[int] = concurrent.futures.Future()
    failing: concurrent.futures.Future[int] = concurrent.futures.Future()
    future, doomed = add(foreign), add(failing)
    assert future.task_status() == "pending"
    foreign.set_result(5)
    failing.set_exception(KeyError("gone"))
    assert future.result(10) == 6
    assert isinstance(doomed.exception(10), DependencyError)
    assert isinstance(doomed.exception(10).__cause__, KeyError)  # type: ignore[union-attr]  # it is no None


def test_parts_of_results_are_dependencies(load: Load) -> None:
    load()

    @flow.python_app
    def pair() -> dict[str, tuple[int, int]]:
        return {"both": (3, 4)}

    both: Any = pair()["both"]
    assert add(both[0], both[1]).result(10) == 7


def test_inputs_are_resolved_one_level_deep_and_copied(load: Load) -> None:
    load()
    gate = threading.Event()
    inputs: list[Any] = [add(1), add(2), 3]
    inputs.append(add(0, 0))
    future = total(inputs=inputs)
    inputs.append(future)  # the circle that the field's own users make by mistake
    gate.set()
    assert future.result(10) == 8


def test_a_circle_through_a_list_of_the_users_own_is_a_named_error(load: Load) -> None:
    load(dependency_resolver=DEEP)
    gate = threading.Event()

    @flow.python_app
    def length(xs: list[Any]) -> int:
        return len(xs)

    values: list[Any] = [wait_for(gate)]
    future = length(values)
    values.append(future)
    gate.set()
    error = future.exception(10)
    assert isinstance(error, HiddenFutureError)
    assert "changed after the call" in str(error)


def test_a_hidden_future_is_refused_by_its_path(load: Load) -> None:
    load()
    with pytest.raises(HiddenFutureError, match=r"argument 'x\[0\]\[1\]'"):
        add([[0, add(1)]])


def test_the_deep_resolver_finds_it(load: Load) -> None:
    load(dependency_resolver=DEEP)

    @flow.python_app
    def first(x: Any) -> Any:
        return x[0]["k"]

    assert first([{"k": add(1)}]).result(10) == 2


def test_a_chain_of_ten_thousand_neither_recurses_nor_is_forgotten(load: Load) -> None:
    kernel = load()
    gate = threading.Event()
    future: Any = wait_for(gate)
    for _ in range(10_000):
        future = add(future)
    gate.set()
    assert future.result(40) == 10_001
    assert kernel._core.live == {}


def test_layers_in_which_all_wait_for_all_keep_their_order_and_their_failures(load: Load) -> None:
    load()

    @flow.python_app
    def after(*parents: int) -> int:
        return 1 + max(parents)

    gate = threading.Event()

    @flow.python_app
    def first(number: int) -> int:
        gate.wait(10)
        if number == 13:
            raise ValueError("the thirteenth")
        return 0

    def layers(start: list[Any]) -> list[Any]:
        for _ in range(5):
            start = [after(*start) for _ in range(20)]
        return start

    good, bad = layers([first(0) for _ in range(20)]), layers([first(number) for number in range(20)])
    gate.set()
    assert [future.result(10) for future in good] == [5] * 20
    for future in bad:
        error = future.exception(10)
        assert isinstance(error, DependencyError)
        assert str(error.__cause__) == "the thirteenth"


def test_calls_with_the_same_many_parents_share_what_they_wait_for_and_get(load: Load) -> None:
    kernel = load()
    gate = threading.Event()

    @flow.python_app
    def number(value: int, gate: threading.Event) -> int:
        return value if gate.wait(30) else -1

    @flow.python_app
    def gather(*values: Any, last: int = 0) -> list[Any]:
        return [*values, last]

    parents = [number(value, gate) for value in range(20)]
    calls = [gather(*parents) for _ in range(3)]
    others = [gather(*parents, last=parents[0]), gather(*reversed(parents)), gather(*parents[1:])]
    waiting = [task.args for task in list(kernel._core.live.values()) if task.future in calls]
    assert len(waiting) == 3
    assert waiting[0] is waiting[1] is waiting[2]

    @flow.python_app
    def summed(factor: int, inputs: list[int]) -> int:
        return factor * sum(inputs)

    sums = [summed(factor, inputs=parents) for factor in range(3)]
    shared = [task.kwargs["inputs"] for task in list(kernel._core.live.values()) if task.future in sums]
    assert len(shared) == 3
    assert shared[0] is shared[1] is shared[2]
    gate.set()
    assert [call.result(10) for call in calls] == [[*range(20), 0]] * 3
    assert [call.result(10) for call in sums] == [0, 190, 380]
    assert [call.result(10) for call in others] == [[*range(20), 0], [*range(19, -1, -1), 0], [*range(1, 20), 0]]


def test_arguments_beside_many_futures_are_never_compared(load: Load) -> None:
    load()

    class Jealous:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        __hash__ = None  # type: ignore[assignment]  # what defines __eq__ alone has none

    class Agreeing:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]  # the same

    @flow.python_app
    def kinds(*values: Any) -> set[str]:
        return {type(value).__name__ for value in values}

    gate = threading.Event()
    parents: list[Any] = [wait_for(gate) for _ in range(20)]
    wanted = {"bool"}, {"bool", "Jealous"}, {"bool", "Agreeing"}
    calls = [kinds(*parents), kinds(*parents[:-1], Jealous()), kinds(*parents[:-1], Agreeing())]
    gate.set()
    assert tuple(call.result(10) for call in calls) == wanted


def test_files_are_found_among_results_that_many_calls_share(load: Load, tmp_path: Path) -> None:
    load()
    (tmp_path / "a").write_text("x")
    gate = threading.Event()

    @flow.python_app
    def name(gate: threading.Event) -> flow.File:
        gate.wait(30)
        return flow.File(f"file://{tmp_path}/a")

    @flow.python_app
    def read(*files: flow.File) -> str:
        return "".join(Path(file).read_text() for file in files)

    parents = [name(gate) for _ in range(10)]
    calls = [read(*parents) for _ in range(2)]
    gate.set()
    assert [call.result(10) for call in calls] == ["x" * 10] * 2


def test_many_futures_in_inputs_are_resolved_into_a_list_of_each_calls_own(load: Load) -> None:
    load()
    gate = threading.Event()

    @flow.python_app
    def spoil(inputs: list[Any]) -> list[Any]:
        inputs.append("mine")
        return inputs

    parents: list[Any] = [wait_for(gate) for _ in range(20)]
    calls = [spoil(inputs=parents) for _ in range(3)]
    gate.set()
    assert [call.result(10) for call in calls] == [[True] * 20 + ["mine"]] * 3


@flow.python_app
def kinds(inputs: Any = ()) -> list[str]:
    return [type(item).__name__ for item in inputs]


@flow.python_app
def blind() -> str:
    return "does not take any"


@pytest.mark.parametrize("resolver", [None, DEEP], ids=["shallow", "deep"])
def test_inputs_of_all_kinds_reach_functions_that_take_them_and_no_others(
    load: Load, tmp_path: Path, resolver: Any
) -> None:
    load(dependency_resolver=resolver)
    (tmp_path / "a").write_text("x")
    file = flow.File(str(tmp_path / "a"))
    for inputs, expected in (
        ([], []),
        ([1, "two", None], ["int", "str", "NoneType"]),
        ([file, 1], ["File", "int"]),
        ([add(1), file], ["int", "File"]),
        ([[file], {"a": file}], ["list", "dict"]),
    ):
        assert kinds(inputs=inputs).result(10) == expected
        assert blind(inputs=inputs).result(10) == "does not take any"


def test_what_one_look_finds_in_arguments_is_no_more_than_what_is_there(load: Load, tmp_path: Path) -> None:
    load()
    taken: list[object] = []

    @flow.python_app
    def take(*args: object, inputs: Any = (), data: Any = ()) -> None:
        taken.append([*args, *inputs, *data])

    task = add(1)
    (tmp_path / "file").write_text("x")
    local = flow.File(str(tmp_path / "file"))
    gate = threading.Event()
    late = wait_for(gate)
    given: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((), {"inputs": []}),
        ((1,), {"inputs": list(range(100)), "data": [1, 2]}),
        ((task,), {"inputs": list(range(100))}),
        ((task,), {"inputs": [task] * 100}),
        ((task, local), {"inputs": [task]}),
        ((late,), {"inputs": [local, task], "data": [local]}),
        ((late,), {"data": [1, "a"], "inputs": (late, local)}),
    ]
    futures = [take(*args, **kwargs) for args, kwargs in given]
    gate.set()
    assert [future.result(10) for future in futures] == [None] * len(given)
    values = {task: 2, late: True}
    expected = [[*args, *kwargs["inputs"], *kwargs.get("data", ())] for args, kwargs in given]
    shown = [[values.get(one, one) if isinstance(one, AppFuture) else one for one in row] for row in expected]
    assert sorted(map(repr, taken)) == sorted(map(repr, shown))


def test_a_future_hidden_among_the_inputs_is_refused_beside_files_and_values(load: Load) -> None:
    load()
    with pytest.raises(HiddenFutureError, match=re.escape("inputs[2][0]")):
        kinds(inputs=[1, flow.File("a"), [add(1)]])


def test_a_custom_resolver_sees_every_list(load: Load) -> None:
    seen: list[object] = []

    def resolver(value: object, result: Any) -> object:
        seen.append(value)
        return value

    load(dependency_resolver=resolver)
    assert kinds(inputs=[1, 2]).result(10) == ["int", "int"]
    assert seen.count([1, 2]) == 2


def test_what_many_calls_have_in_common_holds_no_results_when_it_is_done(load: Load) -> None:
    kernel = load()

    class Large:
        pass

    @flow.python_app
    def make() -> Large:
        return Large()

    @flow.python_app
    def count(*parts: Large) -> int:
        return len(parts)

    gate = threading.Event()
    held = wait_for(gate)
    parts = [make() for _ in range(20)]
    future = count(*parts, held)
    alive = weakref.ref(parts[0].result(10))
    gate.set()
    assert future.result(10) == 21
    kernel.wait_for_current_tasks()
    del parts, future
    for _ in range(500):
        gc.collect()
        if alive() is None:
            break
        threading.Event().wait(0.01)
    assert alive() is None


def test_finished_tasks_are_forgotten(load: Load) -> None:
    class Big:
        pass

    @flow.python_app
    def take(value: object) -> int:
        return 1

    load()
    big = Big()
    seen = weakref.ref(big)
    future = take(big)
    future.result(10)
    del big
    add(1).result(10)
    for _ in range(100):
        if seen() is None:
            break
        gc.collect()
        threading.Event().wait(0.01)
    assert seen() is None
    assert future.done()


def test_apps_are_called_from_many_threads_at_once(load: Load) -> None:
    kernel = load()
    sums: list[int] = []

    def work(base: int) -> None:
        sums.append(sum(f.result(30) for f in [add(base, number) for number in range(200)]))

    threads = [threading.Thread(target=work, args=(base,)) for base in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert sorted(sums) == sorted(200 * base + 19_900 for base in range(8))
    assert kernel.summary().completed == 1600
    assert kernel._reactor.bugs == 0


def test_callbacks_may_call_apps(load: Load) -> None:
    load(max_pending=1)
    done = threading.Event()
    results: list[int] = []

    def again(future: Any) -> None:
        results.append(future.result())
        if len(results) < 50:
            add(results[-1]).add_done_callback(again)
        else:
            done.set()

    add(0).add_done_callback(again)
    assert done.wait(30)
    assert results == list(range(1, 51))


def test_an_app_future_can_be_awaited(load: Load) -> None:
    import asyncio

    load()

    async def main() -> int:
        return await add(1) + sum(await asyncio.gather(add(2), add(3)))

    assert asyncio.run(main()) == 9

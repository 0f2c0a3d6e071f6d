"""On retry only what ran out grows, up to what there is."""

from __future__ import annotations

import pytest
from kernel_apps import Load, hold

import flow_core as flow
from flow_core.apps.special import task_spec
from flow_core.errors import AppTimeout, BashExitFailure, ConfigurationError, ContainerError
from flow_core.graph.growth import grown, growth_text, ran_out_of
from flow_core.interfaces.call import TaskSpec
from flow_core.interfaces.outcome import Loss, LossKind
from flow_core.testing import MemoryExecutor

GROWTH = (("memory", 2.0), ("walltime", 1.5))
ASKED = task_spec("app", 10, {"memory": 100})


def container_that_ended(code: int) -> ContainerError:
    error = ContainerError("ended before its task did")
    error.exitcode = code
    return error


def size(spec: TaskSpec) -> tuple[int, float | None]:
    return spec.resources.memory_mb, spec.walltime_s


@pytest.mark.parametrize(
    ("failure", "what"),
    [
        (MemoryError(), "memory"),
        (BashExitFailure("killed", -9), "memory"),
        (BashExitFailure("killed below a shell", 137), "memory"),
        (Loss(LossKind.WORKER, signal=9), "memory"),
        (container_that_ended(137), "memory"),
        (container_that_ended(-9), "memory"),
        (container_that_ended(1), ""),
        (ContainerError("no such image"), ""),
        (AppTimeout.after(3.0, "was stopped"), "walltime"),
        (AppTimeout("of the app's own"), ""),
        (BashExitFailure("failed", 1), ""),
        (Loss(LossKind.WORKER, signal=11), ""),
        (Loss(LossKind.MANAGER, signal=9), ""),
        (ValueError("wrong"), ""),
    ],
)
def test_a_failure_tells_what_ran_out(failure: object, what: str) -> None:
    assert ran_out_of(failure) == what


def test_only_what_ran_out_grows() -> None:
    assert size(grown(ASKED, ASKED, GROWTH, {"memory": 1}, {})) == (200, 10.0)
    assert size(grown(ASKED, ASKED, GROWTH, {"walltime": 2}, {})) == (100, 22.5)
    assert size(grown(ASKED, ASKED, GROWTH, {"walltime": 1, "memory": 3}, {})) == (800, 15.0)


def test_it_grows_up_to_what_there_is() -> None:
    most = {"memory": 150.0, "walltime": 12.0}
    assert size(grown(ASKED, ASKED, GROWTH, {"walltime": 9, "memory": 9}, most)) == (150, 12.0)


def test_what_is_more_than_there_is_stays() -> None:
    most = {"memory": 50.0, "walltime": 5.0}
    assert grown(ASKED, ASKED, GROWTH, {"walltime": 1, "memory": 1}, most) is ASKED


def test_words_tell_what_grew() -> None:
    now = grown(ASKED, ASKED, GROWTH, {"walltime": 1, "memory": 1}, {})
    assert growth_text(ASKED, now) == "memory from 100 to 200 MB and walltime from 10 to 15 s"
    assert growth_text(ASKED, ASKED) == ""


@flow.python_app(grow_on_retry={"memory": 2, "walltime": 3})
def hungry() -> int:
    """Return a number."""
    return 1


def test_each_try_asks_for_more_of_what_the_one_before_ran_out_of(load: Load) -> None:
    executor = MemoryExecutor("memory")
    executor.task_limits = {"memory": 300.0}
    load(executor, retries=2, infrastructure_retries=2)
    future = hungry.options(walltime=5, resource_specification={"memory": 100})()
    sizes = []
    for end in (
        lambda key: executor.fail(key, MemoryError()),
        lambda key: executor.lose(key, LossKind.WORKER),
        lambda key: executor.fail(key, AppTimeout.after(5, "was stopped")),
    ):
        key = hold(executor)
        sizes.append(size(executor.calls[key].spec))
        end(key)
    key = hold(executor)
    sizes.append(size(executor.calls[key].spec))
    assert sizes == [(100, 5.0), (200, 5.0), (300, 5.0), (300, 15.0)]
    assert "it asks for more now: memory from 100 to 300 MB and walltime from 5 to 15 s" in str(future.why())
    executor.run_all()
    assert future.result(10) == 1


def test_a_call_that_states_nothing_to_grow_is_refused(load: Load) -> None:
    load(MemoryExecutor("memory"))
    with pytest.raises(ConfigurationError, match="this call states none: give it the key 'memory'"):
        hungry.options(walltime=5)()
    with pytest.raises(ConfigurationError, match="give it walltime="):
        hungry(resource_specification={"memory": 5})


@pytest.mark.parametrize("growth", ["memory", {"cores": 2}, {"memory": 1}, {"memory": True}, {"walltime": "2"}])
def test_a_growth_that_is_none_is_refused(growth: object) -> None:
    with pytest.raises(ConfigurationError, match="grow_on_retry"):
        flow.bash_app(grow_on_retry=growth)(lambda: "true")  # type: ignore[call-overload]  # wrong on purpose

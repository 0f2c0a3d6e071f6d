"""LowLatencyExecutor: its options."""

from __future__ import annotations

import pytest

import flow_executors
from flow_core.errors import ConfigurationError, ExecutorClosed
from flow_core.interfaces.call import Call, TryKey
from flow_executors import LowLatencyExecutor
from flow_executors.manager.options import ManagerOptions
from flow_providers.channels import LocalChannel
from flow_providers.launchers import SingleNodeLauncher
from flow_providers.local.provider import LocalProvider


def test_the_package_offers_it() -> None:
    assert "LowLatencyExecutor" in dir(flow_executors)


def test_its_repr_gives_the_same_executor_again() -> None:
    executor = LowLatencyExecutor(label="quick", max_workers=2, provider=LocalProvider(init_blocks=2))
    names = {kind.__name__: kind for kind in (LowLatencyExecutor, LocalProvider, LocalChannel, SingleNodeLauncher)}
    again = eval(repr(executor), names)
    assert repr(again) == repr(executor)
    assert again.max_workers == 2
    assert "prefetch_capacity" not in repr(executor)


def test_nothing_is_handed_out_in_advance() -> None:
    assert LowLatencyExecutor().prefetch_capacity == 0


def test_options_without_meaning_here_do_not_exist() -> None:
    with pytest.raises(TypeError, match="prefetch_capacity"):
        LowLatencyExecutor(prefetch_capacity=4)  # type: ignore[call-arg]  # the point


@pytest.mark.parametrize("option", [{"max_workers": 0}, {"heartbeat_period": 200}, {"cores_per_worker": 0}])
def test_an_impossible_value_is_named_with_the_executor(option: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=f"LowLatencyExecutor.*{next(iter(option))}"):
        LowLatencyExecutor(**option)  # type: ignore[arg-type]  # the point


def test_before_it_is_started_it_takes_nothing() -> None:
    with pytest.raises(ExecutorClosed):
        LowLatencyExecutor().submit(TryKey(1), Call(int))


def test_managers_are_started_by_a_module_of_their_own() -> None:
    options = ManagerOptions(executor="e", run_id="r", block="0", addresses=("a",), port=1)
    assert "-m flow_executors.manager " in options.command()
    assert "-m flow_executors.direct " in options.command(module=LowLatencyExecutor._manager_module)

"""What has threads and locks of its own says by name that it cannot be copied."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

from flow.executors import HighThroughputExecutor, LowLatencyExecutor
from flow.providers import LocalProvider, SlurmProvider

MADE: list[Callable[[], object]] = [
    lambda: HighThroughputExecutor("mine", provider=LocalProvider()),
    lambda: LowLatencyExecutor("mine", provider=LocalProvider()),
    LocalProvider,
    lambda: SlurmProvider(partition="a"),
]


@pytest.mark.parametrize("make", MADE, ids=["htex", "llex", "local", "slurm"])
@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_executors_and_providers_refuse_to_be_copied_by_name(
    make: Callable[[], object], copied: Callable[[object], object]
) -> None:
    made = make()
    with pytest.raises(TypeError, match=rf"{type(made).__name__} .*can be neither pickled nor copied.*repr\(\)"):
        copied(made)

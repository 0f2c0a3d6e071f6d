"""Values of options that can only be wrong are refused where the executor is made."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import ConfigurationError
from flow_core.testing import RecordingListener, make_context
from flow_executors import HighThroughputExecutor, LowLatencyExecutor
from flow_providers.local.provider import LocalProvider

NAN = float("nan")


@pytest.mark.parametrize("kind", [HighThroughputExecutor, LowLatencyExecutor])
@pytest.mark.parametrize(
    ("option", "value", "right"),
    [
        ("heartbeat_threshold", math.inf, "above 0 and at most 604800"),
        ("heartbeat_threshold", 1e300, "above 0 and at most 604800"),
        ("sleep_threshold", math.inf, "above 0 and at most 1e+09"),
        ("sleep_threshold", True, "a number or None, not True or False"),
        ("sleep_threshold", NAN, "a number or None"),
        ("max_workers", True, "a number, not True or False"),
        ("max_workers", NAN, "a number"),
        ("max_workers", 2.5, "a whole number, or float('inf')"),
        ("max_workers_per_node", 2.5, "a whole number, or float('inf')"),
        ("max_transfer_bytes", True, "a whole number, not True or False"),
        ("available_accelerators", True, "not True or False"),
        ("available_accelerators", -1, "at least 0"),
        ("block_start_timeout", NAN, "a number"),
        ("mem_per_worker", "4GB", "a number or None. Memory in GB"),
        ("mem_per_worker", math.inf, "a finite number of GB"),
        ("mem_per_worker", -1, "a finite number of GB"),
        ("cores_per_worker", math.inf, "above 0 and at most 1e+06"),
        ("max_result_bytes", -1, "at least 1"),
        ("cpu_affinity", "blocks", "'block-reverse'"),
        ("cpu_affinity", "list:", "CPUs by their numbers"),
        ("cpu_affinity", "list:0:-1", "CPUs by their numbers"),
        ("launch_cmd", "run {nosuch}", "unknown fields nosuch; known: "),
        ("launch_cmd", "run {port:q}", "Unknown format code"),
        ("worker_port_range", (55000, 54000), "a greater one of at most 65536"),
        ("worker_port_range", (54000, 99999), "a greater one of at most 65536"),
        ("worker_ports", (), "ports from 1 to 65535"),
        ("worker_ports", (70000,), "ports from 1 to 65535"),
        ("address", "", "the name or the address of a host"),
        ("address", "no such host", "the name or the address of a host"),
        ("python", "", "leave it out for the default"),
        ("provider", LocalProvider, "did you mean LocalProvider()?"),
    ],
)
def test_a_value_that_can_only_be_wrong_is_refused_with_the_right_form(
    kind: Any, option: str, value: object, right: str
) -> None:
    named = option.removesuffix("_per_node")
    with pytest.raises(ConfigurationError, match=f"{kind.__name__}.*{named}.*{re.escape(right)}") as raised:
        kind(**{option: value})
    assert option == "provider" or repr(value) in str(raised.value)


def test_the_number_of_tasks_handed_out_in_advance_is_no_truth() -> None:
    with pytest.raises(ConfigurationError, match="prefetch_capacity=True must be a whole number or None"):
        HighThroughputExecutor(prefetch_capacity=True)


@pytest.mark.parametrize(
    "options",
    [
        {"address": "host.that.does.not.resolve.here"},
        {"max_workers": 3.0},
        {"max_workers": math.inf},
        {"worker_debug": True, "bootstrap": True, "block_error_handler": False},
        {"launch_cmd": "x {nodes_per_block} {python} {max_workers} {options} {debug} {task_url}"},
        {"worker_port_range": (65535, 65536)},
        {"cpu_affinity": "list:0,1:2,3"},
        {"heartbeat_threshold": 604800, "heartbeat_period": 604799},
        {"recovery_timeout": math.inf},
        {"available_accelerators": 0},
    ],
)
def test_unusual_values_that_may_be_right_are_taken(options: dict[str, Any]) -> None:
    made = HighThroughputExecutor(**options)
    assert all(getattr(made, name) == value for name, value in options.items())


@pytest.mark.parametrize("given", ["", "no such host", (), ("10.0.0.1", "")])
def test_a_function_that_gives_no_address_is_named_at_the_start(given: object, tmp_path: Path) -> None:
    executor = HighThroughputExecutor(address=lambda: given)  # type: ignore[arg-type, return-value]  # the point
    with pytest.raises(ConfigurationError, match=f"gave {re.escape(repr(given))}: it must be the name or the address"):
        executor.start(make_context(tmp_path, RecordingListener(), label="executor"))

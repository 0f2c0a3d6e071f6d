"""Options of a manager, its command line, resources and pinning."""

import math
import shlex

import pytest

from flow_core.errors import ConfigurationError
from flow_executors.manager.node import (
    GB,
    NodeResources,
    NoRoom,
    accelerator_environment,
    accelerator_names,
    check_affinity,
    count_workers,
    cpus_of,
    devices,
    look_at_node,
)
from flow_executors.manager.options import ManagerOptions, from_arguments

OPTIONS = ManagerOptions("my label", "run-1", "3", ("10.0.0.1", "127.0.0.1"), 54321)


def words_of(command):
    return shlex.split(command)[shlex.split(command).index("-m") + 2 :]


def test_options_survive_the_command_line():
    options = ManagerOptions(
        "l'abel", "r", "0", ("a", "b"), 1, cores_per_worker=0.5, mem_per_worker=2.5, max_workers=4.0,
        prefetch_capacity=7, heartbeat_period=0.2, heartbeat_threshold=1.5, logdir="/logs dir", accelerators="0 1,2 3",
        cpu_affinity="block", drain_period=60.5, working_dir="/w", max_result_bytes=99, sampler='{"factory": "m:f"}',
        walltime=900.0, debug=True, max_worker_log_bytes=1 << 20,
    )  # fmt: skip
    assert from_arguments(words_of(options.command())) == options


def test_defaults_are_not_on_the_command_line():
    command = OPTIONS.command()
    assert "heartbeat" not in command
    assert from_arguments(words_of(command)) == OPTIONS


def test_infinite_workers_survive_too():
    assert from_arguments(words_of(OPTIONS.command())).max_workers == math.inf


def test_the_fields_of_the_older_template_are_known():
    command = OPTIONS.command(
        "pool {debug} -c {cores_per_worker} --task_url={task_url} --result_url={result_url} "
        "--logdir={logdir} --heartbeat_period={heartbeat_period}",
    )
    assert command.startswith("pool  -c 1.0 --task_url=tcp://10.0.0.1:54321 --result_url=tcp://10.0.0.1:54321")
    assert from_arguments(shlex.split(command)[1:]) == OPTIONS


def test_a_template_may_use_what_only_the_executor_knows():
    assert OPTIONS.command("x {nodes_per_block} {options}", extra={"nodes_per_block": 4}).startswith(
        "x 4 '--executor=my"
    )


def test_an_unknown_field_is_named_with_those_that_exist():
    with pytest.raises(ConfigurationError, match=r"tusk_url.*known: .*task_url"):
        OPTIONS.command("pool {tusk_url}")


def test_a_template_that_is_none_is_refused():
    with pytest.raises(ConfigurationError, match="is no template"):
        OPTIONS.command("pool {")


# -- resources


def node(cores=8.0, memory_gb=16.0):
    return NodeResources(cores, int(memory_gb * GB), 8, 32 * GB)


def workers(found, cores=1.0, memory=None, most=math.inf, accelerators=None):
    return count_workers(
        found, cores_per_worker=cores, mem_per_worker_gb=memory, max_workers=most, accelerators=accelerators
    )


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({}, 8),
        ({"cores": 3.0}, 2),
        ({"cores": 0.5}, 16),
        ({"memory": 5.0}, 3),
        ({"most": 2}, 2),
        ({"accelerators": 4}, 4),
        ({"cores": 2.0, "memory": 1.0, "most": 3, "accelerators": 8}, 3),
    ],
)
def test_workers_are_as_many_as_the_scarcest_thing_allows(asked, count):
    assert workers(node(), **asked) == count


def test_shares_that_are_exact_are_not_lost_to_rounding():
    assert workers(node(cores=3.0), cores=0.1) == 30


@pytest.mark.parametrize(
    ("asked", "option"), [({"memory": 64.0}, "mem_per_worker"), ({"cores": 16.0}, "cores_per_worker")]
)
def test_a_node_without_room_for_one_worker_says_which_option_asks_too_much(asked, option):
    with pytest.raises(NoRoom, match=option):
        workers(node(), **asked)


def test_what_the_provider_asked_for_comes_before_what_is_seen():
    found = look_at_node({"FLOW_CORES": "3", "FLOW_MEMORY_GB": "1.5"})
    assert (found.cores, found.memory) == (3.0, int(1.5 * GB))


def test_a_machine_can_be_looked_at_without_any_hint():
    found = look_at_node({})
    assert found.cores >= 1
    assert 0 < found.memory <= found.memory_total


def test_a_hint_that_is_no_number_is_named():
    with pytest.raises(NoRoom, match="FLOW_CORES"):
        look_at_node({"FLOW_CORES": "many"})


# -- pinning


def test_a_number_of_accelerators_stands_for_their_numbers():
    assert accelerator_names(3) == ("0", "1", "2")


def test_single_devices_are_found_behind_groups_and_repetitions():
    assert devices(("0,1", "2", "2")) == ("0", "1", "2")


def test_accelerators_are_told_to_all_kinds_of_runtimes():
    environment = accelerator_environment("0,1")
    assert environment["CUDA_VISIBLE_DEVICES"] == environment["ROCR_VISIBLE_DEVICES"] == "0,1"
    assert environment["ZE_AFFINITY_MASK"] == "0,1"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("none", [[], []]),
        ("block", [[0, 1], [2, 3]]),
        ("block-reverse", [[2, 3], [0, 1]]),
        ("alternating", [[0, 2], [1, 3]]),
        ("list:0:2,3", [[0], [2, 3]]),
    ],
)
def test_workers_are_pinned_as_the_mode_says(mode, expected):
    check_affinity(mode)
    assert [cpus_of(rank, 2, mode, [0, 1, 2, 3]) for rank in range(2)] == expected


def test_more_workers_than_cpus_share_them():
    assert [cpus_of(rank, 3, "block", [4, 5]) for rank in range(3)] == [[4], [5], [4]]


@pytest.mark.parametrize("mode", ["blocks", "list:a:b"])
def test_a_wrong_mode_is_named_with_the_right_ones(mode):
    with pytest.raises(ConfigurationError, match="alternating"):
        check_affinity(mode)

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, strategies as st

from flow_providers import launchers
from flow_providers.errors import BadLauncher, BadOption
from flow_providers.launchers.base import check_launcher, launch
from flow_providers.local.provider import LocalProvider

AWKWARD = """echo "it's $HOME" 'and "more"' `date`  # a comment
for x in a b; do
  echo \\$x (
done"""

ALL = [
    launchers.SimpleLauncher(),
    launchers.SingleNodeLauncher(),
    launchers.SrunLauncher(overrides="-c 32"),
    launchers.SrunMPILauncher(),
    launchers.AprunLauncher(overrides="-cc depth"),
    launchers.MpiExecLauncher(),
    launchers.MpiRunLauncher(),
    launchers.GnuParallelLauncher(),
    launchers.JsrunLauncher(),
    launchers.WrappedLauncher("apptainer exec image.sif"),
]


def bash(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("launcher", ALL, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize(("tasks", "nodes"), [(1, 1), (4, 1), (2, 3)])
def test_the_scripts_of_a_launcher_are_sound_bash(launcher, tasks, nodes) -> None:
    command = "python3 -m manager --label 'a b'\necho $X"
    checked = subprocess.run(
        ["bash", "-n"], input=launcher(command, tasks, nodes), capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 0, checked.stderr


def test_the_simple_launcher_changes_nothing() -> None:
    assert launchers.SimpleLauncher()(AWKWARD, 7, 7) == AWKWARD


def test_single_node_runs_as_many_copies_as_tasks_per_node() -> None:
    assert bash(launchers.SingleNodeLauncher()("echo hi", 3, 1)).stdout == "hi\n" * 3


def test_single_node_tells_the_number_of_cores() -> None:
    assert int(bash(launchers.SingleNodeLauncher()("echo $CORES", 1, 1)).stdout) >= 1


def test_single_node_takes_an_expression_for_the_number_of_copies() -> None:
    assert (
        bash(launchers.SingleNodeLauncher(task_blocks="CORES * 2 - CORES - CORES + 2")("echo x", 9, 1)).stdout
        == "x\nx\n"
    )


def test_single_node_ends_with_the_first_exit_code_that_is_not_zero() -> None:
    code = "n=$(cat $0 2>/dev/null | wc -l); exit 7"
    assert bash(launchers.SingleNodeLauncher()(code, 2, 1)).returncode == 7


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=60))
def test_any_text_reaches_the_command_unchanged(text) -> None:
    from flow_providers.launchers.base import _read_command

    done = subprocess.run(
        ["bash", "-c", _read_command(text) + '\nprintf %s "$FLOW_COMMAND"'], capture_output=True, timeout=30
    )
    assert done.stdout.decode() == text + "\n"


def test_a_wrapped_launcher_prefixes_the_command_and_can_use_another_launcher() -> None:
    inner = launchers.SingleNodeLauncher()
    wrapped = launchers.WrappedLauncher("env SITE=here", launcher=inner)
    assert bash(wrapped('echo "$SITE" it\\\'s', 2, 1)).stdout == "here it's\n" * 2


def test_a_class_of_the_user_can_hold_another_launcher() -> None:
    class Site:
        def __init__(self) -> None:
            self.launcher = launchers.SrunLauncher()

        def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int) -> str:
            return self.launcher(f"shifter {command}", tasks_per_node, nodes_per_block)

    assert "shifter python" in launch(LocalProvider(launcher=Site()).launcher, "python", 1, 2)


@pytest.mark.parametrize("thing", [3, "srun", launchers.SrunLauncher])
def test_what_is_not_callable_is_a_bad_launcher(thing) -> None:
    with pytest.raises(BadLauncher, match="launcher="):
        check_launcher(thing)


def test_a_launcher_that_returns_no_text_is_a_bad_launcher() -> None:
    with pytest.raises(BadLauncher, match="must return the bash code"):
        launch(lambda command, tasks, nodes: None, "x", 1, 1)


def test_options_of_launchers_are_checked() -> None:
    with pytest.raises(BadOption, match="SrunLauncher: option overrides=3 must be str"):
        launchers.SrunLauncher(overrides=3)  # type: ignore[arg-type]  # the point of the test


def test_srun_spreads_the_copies_over_the_nodes() -> None:
    line = launchers.SrunLauncher(overrides="--gres=x")("cmd", 4, 2).splitlines()[-1]
    assert line == 'srun --nodes=2 --ntasks=8 --ntasks-per-node=4 -l --gres=x bash -c "$FLOW_COMMAND"'

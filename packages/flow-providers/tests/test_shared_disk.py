"""Jobs whose nodes share no disk with the host that submits bring along what they need; what they say comes back.

The scheduler is a program that keeps a copy of the script, as Slurm and PBS do; the node is a place without the
directory of scripts.
"""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from flow_providers import (
    CondorProvider,
    GridEngineProvider,
    LSFProvider,
    PBSProProvider,
    SlurmProvider,
    TorqueProvider,
)
from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.shared_disk import last_words
from flow_providers.errors import BadOption, SubmitException
from flow_providers.interfaces.job_extras import JobExtras, carried_variable, secret_variable
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.jobs.files import JobFiles

KEY = b"open sesame\n" * 20
EXTRAS = JobExtras(tag="fabc", secrets=(("block key", KEY),))
FILE = secret_variable("block key")
TELL = f'cat "${FILE}"; stat -c %a "${FILE}" "$(dirname "${FILE}")"; echo "last words" >&2; exit 3'
BATCH = [SlurmProvider, PBSProProvider, TorqueProvider]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A scheduler that keeps a copy of each script, and shows a remark that is set by ``scontrol``."""
    programs = tmp_path / "bin"
    programs.mkdir()
    spooled = tmp_path / "spooled"
    # the script is the last word of both
    keep = f'#!/bin/bash\ncp "${{@: -1}}" {spooled}\necho 17\n'
    remark = f'#!/bin/bash\nprintf "%s\\n" "$@" >{tmp_path}/remark\n'
    show = f"#!/bin/bash\ncat {tmp_path}/remark\n"
    for name, text in {"sbatch": keep, "qsub": keep, "scontrol": remark, "squeue": show}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return tmp_path


def channel(site: Path) -> LocalChannel:
    return LocalChannel(
        script_dir=str(site / "scripts"), envs={"PATH": f"{site / 'bin'}:{os.environ['PATH']}"}, userhome=str(site)
    )


def run_on_a_node(site: Path, shared: bool) -> subprocess.CompletedProcess[bytes]:
    """Run what the scheduler kept, on a node that sees the scripts, or does not."""
    if not shared:
        (site / "scripts").rename(site / "elsewhere")
    (site / "node").mkdir(exist_ok=True)
    environment = {"PATH": f"{site / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(site / "node"), "SLURM_JOB_ID": "17"}
    return subprocess.run(
        ["bash", site / "spooled"],
        env=environment,
        cwd=site / "node",
        capture_output=True,
        timeout=50,
        check=False,
        start_new_session=True,
    )


@pytest.mark.parametrize("kind", [PBSProProvider, TorqueProvider])
@pytest.mark.parametrize("shared_disk", ["auto", False])
def test_a_job_without_a_shared_disk_finds_its_key_in_a_place_of_its_own_and_leaves_nothing(site, kind, shared_disk):
    provider = kind(channel=channel(site), shared_disk=shared_disk, launcher=simple())
    provider.submit(TELL, 1, extras=EXTRAS)
    done = run_on_a_node(site, shared=False)
    assert done.returncode == 3
    assert done.stdout == KEY + b"600\n700\n"
    assert list((site / "node").iterdir()) == []


def test_the_last_words_of_a_job_come_back_by_the_scheduler_so_that_nobody_else_reads_them(site):
    provider = SlurmProvider(channel=channel(site), shared_disk=False, launcher=simple())
    job = provider.submit(TELL, 1, extras=EXTRAS)
    done = run_on_a_node(site, shared=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")
    assert "last words" not in (site / "remark").read_text()
    assert b"last words".hex() not in (site / "remark").read_text()
    assert provider.tail(job) == ("", "last words\n")
    assert list((site / "node").iterdir()) == []


def test_more_than_fits_comes_back_from_its_end(site):
    provider = SlurmProvider(channel=channel(site), shared_disk=False, launcher=simple())
    job = provider.submit("seq 100000 >&2", 1, extras=EXTRAS)
    run_on_a_node(site, shared=False)
    assert provider.tail(job)[1].endswith("99999\n100000\n")
    assert 1000 < len(provider.tail(job)[1]) <= 1500


@pytest.mark.parametrize("kind", BATCH)
def test_a_job_that_finds_the_disk_shared_uses_the_files_there(site, kind):
    provider = kind(channel=channel(site), launcher=simple())
    job = provider.submit(TELL, 1, extras=EXTRAS)
    done = run_on_a_node(site, shared=True)
    if kind is SlurmProvider:
        assert provider.tail(job) == ((KEY + b"600\n700\n").decode(), "last words\n")
    else:  # whose outputs the scheduler opens
        assert done.stdout == KEY + b"600\n700\n"
    assert list((site / "node").iterdir()) == []
    assert not list((site / "scripts").glob("*.secrets"))


@pytest.mark.parametrize("kind", BATCH)
@pytest.mark.parametrize("shared_disk", [True, "auto", False])
def test_only_the_scheduler_has_the_key_in_a_script_when_it_was_submitted(site, kind, shared_disk):
    from base64 import b64encode

    provider = kind(channel=channel(site), shared_disk=shared_disk)
    provider.submit("true", 1, extras=EXTRAS)
    key = b64encode(KEY).decode()
    (script,) = (site / "scripts").glob("*.sh")
    assert stat.S_IMODE(script.stat().st_mode) == 0o700
    assert key not in script.read_text()
    assert (key in (site / "spooled").read_text()) == (shared_disk is not True)
    assert bool(list((site / "scripts").glob("*.secrets"))) == (shared_disk is not False)


def test_a_refused_script_keeps_no_key(site):
    (site / "bin/sbatch").write_text("#!/bin/bash\necho no such partition >&2\nexit 1\n")
    provider = SlurmProvider(channel=channel(site), shared_disk=False)
    with pytest.raises(SubmitException):
        provider.submit("true", 1, extras=EXTRAS)
    (script,) = (site / "scripts").glob("*.sh")
    assert "flow_carried_1=" not in script.read_text()


@pytest.mark.parametrize(("nodes", "carried"), [(1, ""), (2, KEY.decode())])
def test_only_a_job_of_several_nodes_has_the_key_in_its_environment(site, nodes, carried):
    provider = PBSProProvider(channel=channel(site), shared_disk=False, launcher=simple(), nodes_per_block=nodes)
    provider.submit(f'printf %s "${carried_variable("block key")}" | base64 -d', 1, extras=EXTRAS)
    assert run_on_a_node(site, shared=False).stdout.decode() == carried


def test_a_node_that_cannot_open_the_output_is_named_as_the_cause_with_the_option():
    provider = SlurmProvider(shared_disk=True)
    job = JobFiles.of("/home/bob/scripts", "name", "fabc")
    told = provider.explained(JobStatus(JobState.FAILED, exit_code=181, signal=53), job).message
    assert "/home/bob/scripts" in told
    assert "shared_disk=False" in told
    assert provider.explained(JobStatus(JobState.FAILED, exit_code=1), job).message == ""


@pytest.mark.parametrize("kind", [LSFProvider, GridEngineProvider])
def test_schedulers_that_show_scripts_to_everybody_have_no_such_option(kind):
    with pytest.raises(BadOption, match="shared_disk"):
        kind(shared_disk=False)


def test_another_word_than_auto_is_refused():
    with pytest.raises(BadOption, match="shared_disk"):
        SlurmProvider(shared_disk="perhaps")


@given(st.binary(min_size=1, max_size=300), st.text(max_size=50))
def test_what_a_job_said_is_found_in_whatever_else_the_scheduler_shows(said, other):
    pad = os.urandom(300)
    shown = f"{other}\nflow:fabc:{bytes(a ^ b for a, b in zip(said, pad, strict=False)).hex()}\n"
    assert last_words(shown, "fabc", pad) == said.decode(errors="replace")
    assert last_words(shown, "fxyz", pad) == ""


# -- HTCondor


def submitted(site: Path, **options: object) -> str:
    (site / "bin/condor_submit").write_text("#!/bin/bash\necho '1 job(s) submitted to cluster 17.'\n")
    (site / "bin/condor_submit").chmod(0o755)
    CondorProvider(channel=channel(site), **options).submit("true", 1, extras=EXTRAS)
    (description,) = (site / "scripts").glob("*.submit")
    return description.read_text()


@pytest.mark.parametrize(
    ("shared_disk", "transfer", "with_key"),
    [(True, "IF_NEEDED", False), ("auto", "IF_NEEDED", True), (False, "YES", True)],
)
def test_htcondor_brings_the_key_unless_the_disk_is_shared(site, shared_disk, transfer, with_key):
    text = submitted(site, shared_disk=shared_disk, transfer_input_files=["/data/a b", "c"])
    assert f"should_transfer_files = {transfer}\n" in text
    (line,) = [line for line in text.splitlines() if line.startswith("transfer_input_files")]
    assert line.startswith("transfer_input_files = /data/a b, c")
    assert (".secrets/block_key" in line) == with_key


def test_each_process_of_a_condor_job_has_outputs_of_its_own(site):
    text = submitted(site, nodes_per_block=3)
    assert ".$(Process).out\n" in text
    assert ".$(Process).err\n" in text


def test_a_comma_in_a_name_that_htcondor_would_split_is_refused():
    with pytest.raises(BadOption, match="comma"):
        CondorProvider(transfer_input_files=["a,b"])


def simple():
    from flow_providers.launchers import SimpleLauncher

    return SimpleLauncher()

"""What all clouds share, and what each makes of its own documents, without a cloud."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from flow_providers import AzureProvider
from flow_providers.cloud.aws.parse import machine_of as aws_machine
from flow_providers.cloud.aws.state import AwsState, Network, StateFile
from flow_providers.cloud.azure.parse import image_of, machine_of as azure_machine
from flow_providers.cloud.base import MachineOrder
from flow_providers.cloud.google.parse import machine_of as google_machine
from flow_providers.cloud.machine import Machine, MachinePhase, status_of
from flow_providers.cloud.openstack.parse import machine_of as openstack_machine
from flow_providers.cloud.user_data import Boot, ConsoleReport, read_console, script_of
from flow_providers.errors import BadOption, OptionalModuleMissing
from flow_providers.interfaces.job_state import JobState
from flow_providers.optional import optional_module

SILENT = ConsoleReport()
LINES = st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20), max_size=5)


def machine(phase: MachinePhase) -> Machine:
    return Machine("i-1", "f", phase, reason="why", started_at=100)


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        (MachinePhase.STARTING, JobState.PENDING),
        (MachinePhase.RUNNING, JobState.RUNNING),
        (MachinePhase.ENDED, JobState.CANCELLED),
        (MachinePhase.FAILED, JobState.FAILED),
    ],
)
def test_without_a_word_of_the_job_the_machine_tells(phase: MachinePhase, state: JobState) -> None:
    status = status_of(machine(phase), SILENT, 60, patient=True)
    assert (status.state, status.reason, status.ends_at) == (state, "why", 160)


@pytest.mark.parametrize(
    ("told", "state", "code", "signal"),
    [
        ("0", JobState.COMPLETED, 0, None),
        ("3", JobState.FAILED, 3, None),
        ("137", JobState.FAILED, 137, 9),
        ("timeout", JobState.TIMEOUT, None, None),
        ("rebooted", JobState.FAILED, None, None),
    ],
)
def test_what_the_console_tells_counts(told: str, state: JobState, code: int | None, signal: int | None) -> None:
    for phase in MachinePhase:
        status = status_of(machine(phase), ConsoleReport(exit=told), None, patient=False)
        assert (status.state, status.exit_code, status.signal) == (state, code, signal)


def test_a_machine_that_halted_without_a_word_is_waited_for_and_then_missing() -> None:
    assert status_of(machine(MachinePhase.HALTED), SILENT, None, patient=True).state is JobState.UNKNOWN
    assert status_of(machine(MachinePhase.HALTED), SILENT, None, patient=False).state is JobState.MISSING


@given(LINES, LINES, st.integers(0, 255))
def test_a_console_is_read_whatever_the_system_says_between(out: list[str], err: list[str], code: int) -> None:
    console = "[ 0.1] Linux\r\n[ 0.2] cloud-init[7]: "
    console += "".join(f"flow:fx:out:{line}\r\n[ 1.0] usb 1-1\r\n" for line in out)
    console += "".join(f"[ 2.0] cloud-init[7]: flow:fx:err:{line}\r\n" for line in err)
    report = read_console(f"{console}flow:fother:exit:9\r\nflow:fx:exit:{code}\r\n", "fx")
    assert report.stdout == "".join(f"{line}\n" for line in out)
    assert report.stderr == "".join(f"{line}\n" for line in err)
    assert report.exit == str(code)


@given(st.text())
def test_any_console_can_be_read(text: str) -> None:
    assert read_console(text, "fx") == read_console(text, "fx")


def boot(**changed: object) -> Boot:
    plain: dict[str, object] = {
        "job": "fx-1",
        "tag": "fx",
        "command": "echo 'a b'\ncat <<E\n$x\nE",
        "worker_init": "module load x",
        "environment": [("A", "it's")],
        "secrets": [("block key", b"\0sesame")],
        "walltime_s": 60,
        "linger": False,
        "settle_s": 3,
    }
    return Boot(**{**plain, **changed})  # type: ignore[arg-type]  # checked by the dataclass's users


@pytest.mark.parametrize("changed", [{}, {"linger": True}, {"walltime_s": 0}, {"secrets": []}])
def test_the_script_of_a_machine_is_bash(changed: dict[str, object]) -> None:
    script = script_of(boot(**changed))
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=20)
    assert ("shutdown" in script) is (not changed.get("linger"))
    assert "sesame" not in script


def test_a_lingering_machine_is_never_switched_off_by_its_script() -> None:
    assert "shutdown" not in script_of(boot(linger=True))


@pytest.mark.parametrize(
    ("state", "code", "phase", "stands"),
    [
        ("pending", "", MachinePhase.STARTING, True),
        ("running", "", MachinePhase.RUNNING, True),
        ("shutting-down", "Client.UserInitiatedShutdown", MachinePhase.ENDED, False),
        ("shutting-down", "Client.InstanceInitiatedShutdown", MachinePhase.RUNNING, False),
        ("terminated", "Client.InstanceInitiatedShutdown", MachinePhase.HALTED, False),
        ("stopped", "Client.InstanceInitiatedShutdown", MachinePhase.HALTED, True),
        ("terminated", "Server.SpotInstanceTermination", MachinePhase.FAILED, False),
        ("terminated", "Client.VolumeLimitExceeded", MachinePhase.FAILED, False),
        ("terminated", "", MachinePhase.HALTED, False),
    ],
)
def test_an_instance_of_ec2_is_a_machine(state: str, code: str, phase: MachinePhase, stands: bool) -> None:
    found = aws_machine(
        {
            "InstanceId": "i-1",
            "State": {"Name": state},
            "StateReason": {"Code": code, "Message": "m"},
            "Tags": [{"Key": "flow-tag", "Value": "f"}],
            "LaunchTime": datetime.fromtimestamp(7, UTC),
        }
    )
    assert (found.phase, found.stands, found.tag, found.started_at) == (phase, stands, "f", 7)


@pytest.mark.parametrize(
    ("status", "phase"),
    [("PROVISIONING", MachinePhase.STARTING), ("STOPPING", MachinePhase.RUNNING), ("TERMINATED", MachinePhase.HALTED)],
)
def test_an_instance_of_google_is_a_machine(status: str, phase: MachinePhase) -> None:
    found = google_machine({"name": "vm", "zone": "https://x/zones/z-a", "status": status, "metadata": {}})
    assert (found.job_id, found.phase, found.tag) == ("z-a/vm", phase, "")


@pytest.mark.parametrize(
    ("codes", "phase", "reason"),
    [
        ([], MachinePhase.STARTING, ""),
        (["ProvisioningState/creating"], MachinePhase.STARTING, ""),
        (["ProvisioningState/succeeded", "PowerState/running"], MachinePhase.RUNNING, ""),
        (["PowerState/stopped"], MachinePhase.HALTED, "stopped"),
        (["PowerState/deallocated"], MachinePhase.ENDED, "deallocated"),
        (["ProvisioningState/failed/AllocationFailed"], MachinePhase.FAILED, "AllocationFailed"),
    ],
)
def test_a_machine_of_azure_is_a_machine(codes: list[str], phase: MachinePhase, reason: str) -> None:
    found = azure_machine("vm", "f", [(code, "m") for code in codes], None)
    assert (found.phase, found.reason) == (phase, reason)


def test_a_server_of_openstack_is_a_machine() -> None:
    found = openstack_machine(
        {
            "id": "1",
            "status": "ERROR",
            "fault": {"message": "No valid host"},
            "metadata": {"flow-tag": "f"},
            "launched_at": "1970-01-01T00:00:07.000000",
        }
    )
    assert (found.phase, found.message, found.tag, found.started_at) == (MachinePhase.FAILED, "No valid host", "f", 7)


def test_an_image_of_azure_is_an_urn_or_an_id() -> None:
    assert image_of("/subscriptions/s/images/i") == {"id": "/subscriptions/s/images/i"}
    assert image_of("P:o:s:v") == {"publisher": "P", "offer": "o", "sku": "s", "version": "v"}
    with pytest.raises(BadOption, match="P:o:s"):
        image_of("P:o:s")


def test_a_state_file_keeps_the_network_and_the_living_instances(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "deep" / "state.json", "r")
    assert file.read() == AwsState("r")
    network = Network("vpc", "sg", ("a", "b"))
    file.write(network, {"i-1": "pending", "i-2": "running"})
    file.write(instances={"i-1": "terminated"})
    assert file.read() == AwsState("r", network, {"i-2": "running"})
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["state.json"]


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(OptionalModuleMissing, match=r"no_such_client.*extra \[aws\]"):
        optional_module("no_such_client.part", extra="aws", purpose="AWSProvider")


@pytest.mark.parametrize("name", ["AWSProvider", "GoogleCloudProvider", "AzureProvider", "JetstreamProvider"])
def test_making_a_provider_imports_no_client(name: str) -> None:
    arguments = {
        "AWSProvider": "'ami', 'key'",
        "GoogleCloudProvider": "'p', 'k', 'r', 'o', 'f'",
        "AzureProvider": "'s', 'g', 'l', '/i', 'k'",
        "JetstreamProvider": "'i', 'f'",
    }[name]
    clients = "{'boto3', 'botocore', 'googleapiclient', 'azure', 'openstack', 'kubernetes', 'moto', 'urllib3'}"
    code = f"import sys, flow_providers; flow_providers.{name}({arguments}); print({clients} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert ran.stdout.strip() == "set()"


def test_a_machine_of_azure_is_of_the_user_and_in_the_subnet_that_were_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = []

    class Client:
        machines = "machines"

        def __init__(self, *_how: object) -> None: ...

        def put(self, kind: str, name: str, body: object) -> None:
            bodies.append(repr(body))

    monkeypatch.setattr("flow_providers.cloud.azure.provider.AzureClient", Client)
    provider = AzureProvider("s", "g", "l", "/i", "k", admin_username="alice", subnet_id="/subnets/7")
    provider.start_machine(MachineOrder("name", "tag", "#!/bin/bash"))
    assert "'adminUsername': 'alice'" in bodies[0]
    assert "/home/alice/.ssh/authorized_keys" in bodies[0]
    assert "'subnet': {'id': '/subnets/7'}" in bodies[0]

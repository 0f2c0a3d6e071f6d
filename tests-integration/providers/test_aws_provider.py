"""AWSProvider through boto3, on moto's EC2 over HTTP with instances that really run their user data."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_packages import need

from flow_providers import AWSProvider, JobExtras, JobState
from flow_providers.cloud.aws.state import Network
from flow_providers.errors import (
    BadOption,
    ExecutionProviderException,
    ScaleOutFailed,
    SchedulerUnavailable,
    SubmitException,
)
from flow_providers.launchers.simple import SimpleLauncher
from flow_providers.spec import provider_from, spec_of
from flow_providers.testing.contract import ProviderContract
from flow_testing.clouds.ec2 import FakeEc2

pytestmark = pytest.mark.services


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEc2]:
    need("aws", "boto3", "moto.server")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with FakeEc2() as cloud:
        monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
        yield cloud


@pytest.fixture
def state_file(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "awsproviderstate.json")


@pytest.fixture
def provider(cloud: FakeEc2, state_file: str) -> AWSProvider:
    return quick(AWSProvider("ami-1e749f67", "my-key", state_file=state_file))


def quick(provider: AWSProvider) -> AWSProvider:
    provider.settle_s = 0
    return provider


def described(provider: AWSProvider, job: str) -> dict[str, Any]:
    client = provider.create_session().client("ec2")
    instances: dict[str, Any] = client.describe_instances(InstanceIds=[job])["Reservations"][0]["Instances"][0]
    return instances


class TestAWSProvider(ProviderContract):
    poll_s = 0.1
    unknown_job = "i-0123456789abcdef0"

    @pytest.fixture
    def provider(self, provider: AWSProvider) -> AWSProvider:  # type: ignore[override]  # the module's, narrowed
        return provider

    def test_the_network_is_made_once_and_used_by_later_runs(self, provider: AWSProvider, state_file: str) -> None:
        job = provider.submit("true", 1)
        state = json.loads(Path(state_file).read_text())
        client = provider.create_session().client("ec2")
        (vpc,) = client.describe_vpcs(VpcIds=[state["vpcID"]])["Vpcs"]
        assert vpc["CidrBlock"] == "10.0.0.0/16"
        subnets = client.describe_subnets(SubnetIds=state["snIDs"])["Subnets"]
        zones = client.describe_availability_zones()["AvailabilityZones"]
        assert {subnet["AvailabilityZone"] for subnet in subnets} == {zone["ZoneName"] for zone in zones}
        assert {subnet["CidrBlock"] for subnet in subnets} == {f"10.0.{16 * i}.0/20" for i in range(len(zones))}
        assert all(subnet["MapPublicIpOnLaunch"] for subnet in subnets)
        assert job in state["instances"]
        later = quick(AWSProvider("ami-1e749f67", "my-key", state_file=state_file))
        assert described(later, later.submit("true", 1))["VpcId"] == state["vpcID"]

    def test_a_network_is_found_again_without_the_state_file(self, provider: AWSProvider, tmp_path: Path) -> None:
        vpc = described(provider, provider.submit("true", 1))["VpcId"]
        other = quick(AWSProvider("ami-1e749f67", "my-key", state_file=str(tmp_path / "other.json")))
        assert described(other, other.submit("true", 1))["VpcId"] == vpc

    def test_a_network_that_is_gone_is_made_anew(self, provider: AWSProvider, state_file: str) -> None:
        provider.read_state_file()
        Path(state_file).parent.mkdir()
        gone = {"region": "us-east-2", "vpcID": "vpc-gone", "sgID": "sg-x", "snIDs": ["subnet-x"], "instances": {}}
        Path(state_file).write_text(json.dumps(gone))
        provider.submit("true", 1)
        assert provider.read_state_file().network != Network("vpc-gone", "sg-x", ("subnet-x",))

    def test_the_security_group_lets_pings_in_and_everything_within(self, provider: AWSProvider) -> None:
        network = provider.create_vpc()
        client = provider.create_session().client("ec2")
        (group,) = client.describe_security_groups(GroupIds=[network.group_id])["SecurityGroups"]
        within = {(rule["IpProtocol"], rule["IpRanges"][0]["CidrIp"]) for rule in group["IpPermissions"]}
        assert within == {("icmp", "0.0.0.0/0"), ("tcp", "10.0.0.0/16"), ("udp", "10.0.0.0/16")}
        assert group["IpPermissionsEgress"][0]["IpProtocol"] == "-1"

    def test_an_instance_is_the_one_asked_for(self, provider: AWSProvider, state_file: str) -> None:
        provider = quick(
            AWSProvider("ami-1e749f67", "my-key", instance_type="c5.large", spot_max_bid=0.02, state_file=state_file)
        )
        job = provider.submit("true", 1, "my job", extras=JobExtras(tag="fTag1"))
        instance = described(provider, job)
        assert (instance["InstanceType"], instance["KeyName"]) == ("c5.large", "my-key")
        assert instance["InstanceLifecycle"] == "spot"
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        assert tags["flow-tag"] == "fTag1"
        assert tags["Name"].startswith("my-job-ftag1-")

    def test_instances_end_themselves_when_the_job_has_ended(self, provider: AWSProvider) -> None:
        job = provider.submit("true", 1)
        self.until_ended(provider, job)
        instance = described(provider, job)
        assert instance["State"]["Name"] == "terminated"
        assert instance["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
        assert job not in provider.read_state_file().instances

    def test_lingering_instances_stay_on_and_their_jobs_end(self, provider: AWSProvider, state_file: str) -> None:
        provider = quick(AWSProvider("ami-1e749f67", "my-key", linger=True, state_file=state_file))
        job = provider.submit("exit 5", 1)
        status = self.until_ended(provider, job)
        assert (status.state, status.exit_code) == (JobState.FAILED, 5)
        assert provider.get_instance_state([job]) == {job: "running"}
        assert provider.shut_down_instance() == [True]
        assert provider.get_instance_state([job]) == {job: "terminated"}

    def test_a_command_past_its_walltime_has_timed_out(self, cloud: FakeEc2, state_file: str) -> None:
        provider = quick(AWSProvider("ami-1e749f67", "my-key", walltime="00:00:01", state_file=state_file))
        job = provider.submit("sleep 600", 1)
        assert self.until_ended(provider, job).state is JobState.TIMEOUT

    def test_worker_init_runs_before_the_command(self, cloud: FakeEc2, state_file: str) -> None:
        provider = AWSProvider(
            "ami-1e749f67",
            "my-key",
            worker_init="export SITE=cloud\nhello() { echo hello from $SITE; }",
            launcher=SimpleLauncher(),
            state_file=state_file,
        )
        job = quick(provider).submit("hello", 1)
        self.until_ended(provider, job)
        assert provider.tail(job)[0] == "hello from cloud\n"

    def test_standard_output_and_error_are_told_apart(self, provider: AWSProvider) -> None:
        job = provider.submit("echo good; echo bad >&2; printf unfinished; exit 2", 1)
        assert self.until_ended(provider, job).exit_code == 2
        assert provider.tail(job) == ("good\nunfinished\n", "bad\n")

    def test_an_instance_somebody_else_ended_is_cancelled(self, provider: AWSProvider) -> None:
        job = provider.submit("sleep 600", 1)
        provider.create_session().client("ec2").terminate_instances(InstanceIds=[job])
        status = self.until_ended(provider, job)
        assert (status.state, status.reason) == (JobState.CANCELLED, "Client.UserInitiatedShutdown")

    def test_an_instance_that_halts_without_a_word_is_missing(self, provider: AWSProvider) -> None:
        provider.console_within_s = 0
        job = provider.submit("shutdown now; kill -9 $(ps -o sid= -p $$)", 1)
        assert self.until_ended(provider, job).state is JobState.MISSING

    def test_nothing_without_the_tag_is_listed_or_ended(self, provider: AWSProvider, cloud: FakeEc2) -> None:
        client = provider.create_session().client("ec2")
        others = client.run_instances(MinCount=1, MaxCount=1, ImageId="ami-1e749f67", UserData="sleep 5")
        other = str(others["Instances"][0]["InstanceId"])
        assert provider.find("") == []
        assert provider.status([other])[0].state is JobState.MISSING
        assert provider.cancel([other]) == [True]
        assert described(provider, other)["State"]["Name"] == "running"

    def test_the_heir_of_a_driver_finds_and_ends_its_instances(self, provider: AWSProvider) -> None:
        job = provider.submit("sleep 600", 1, extras=JobExtras(tag="fheritage"))
        heir = provider_from(spec_of(provider))
        assert isinstance(heir, AWSProvider)
        assert heir.find("fherit") == [job]
        assert heir.cancel([job]) == [True]
        assert heir.write_state_file().instances == {}
        assert self.until_ended(provider, job).state is JobState.CANCELLED

    def test_a_full_zone_is_left_for_the_next(self, provider: AWSProvider, cloud: FakeEc2) -> None:
        network = provider.create_vpc()
        cloud.full_subnets = {network.subnet_ids[0]}
        assert described(provider, provider.submit("true", 1))["SubnetId"] == network.subnet_ids[1]
        cloud.full_subnets = set(network.subnet_ids)
        with pytest.raises(ScaleOutFailed, match="not enough capacity"):
            provider.submit("true", 1)

    def test_a_refusal_is_in_amazons_words(self, cloud: FakeEc2, state_file: str) -> None:
        role = "arn:aws:iam::123456789012:instance-profile/nobody"
        provider = AWSProvider("ami-1e749f67", "my-key", iam_instance_profile_arn=role, state_file=state_file)
        with pytest.raises(SubmitException, match="nobody"):
            provider.submit("true", 1)

    def test_too_long_a_script_is_refused(self, provider: AWSProvider) -> None:
        with pytest.raises(SubmitException, match="16384"):
            provider.submit("x" * 20000, 1)

    def test_a_cloud_that_is_away_leaves_the_states_unchanged(
        self, provider: AWSProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = provider.submit("sleep 600", 1)
        with self.surely_ended(provider, [job]):
            away = provider_from(spec_of(provider))
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            with pytest.raises(SchedulerUnavailable, match="does not answer"):
                away.status([job])
            assert provider.status([job])[0].state is JobState.RUNNING


def test_credentials_come_from_the_key_file_then_the_profile(
    cloud: FakeEc2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file = tmp_path / "keys.json"
    key_file.write_text('{"AWSAccessKeyId": "of the file", "AWSSecretKey": "s"}')
    (tmp_path / "config").write_text("[profile mine]\naws_access_key_id = of the profile\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    by_file = AWSProvider("ami", "key", key_file=str(key_file), profile="mine")
    assert by_file.create_session().get_credentials().access_key == "of the file"
    by_profile = AWSProvider("ami", "key", profile="mine")
    assert by_profile.create_session().get_credentials().access_key == "of the profile"
    assert AWSProvider("ami", "key").create_session().get_credentials().access_key == "testing"


def test_wrong_credentials_are_named(cloud: FakeEc2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys.json").write_text("{}")
    with pytest.raises(BadOption, match=r"keys\.json.*AWSAccessKeyId"):
        AWSProvider("ami", "key", key_file=str(tmp_path / "keys.json")).create_session()
    with pytest.raises(BadOption, match="nowhere"):
        AWSProvider("ami", "key", profile="nowhere").create_session()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SubmitException, match="AWS_ACCESS_KEY_ID"):
        AWSProvider("ami", "key", state_file=str(tmp_path / "state.json")).submit("true", 1)


def test_a_state_file_of_another_region_or_kind_is_refused(cloud: FakeEc2, tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    provider = AWSProvider("ami", "key", state_file=str(file))
    file.write_text('{"region": "eu-west-1"}')
    with pytest.raises(ExecutionProviderException, match="eu-west-1"):
        provider.submit("true", 1)
    file.write_text("[")
    with pytest.raises(ExecutionProviderException, match=r"state\.json cannot be used"):
        provider.submit("true", 1)


def test_more_nodes_than_one_are_refused() -> None:
    with pytest.raises(BadOption, match="nodes_per_block=2"):
        AWSProvider("ami", "key", nodes_per_block=2)

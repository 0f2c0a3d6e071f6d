"""GoogleCloudProvider through Google's official client, on a server that checks requests and runs startup scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_packages import need

from flow_providers import GoogleCloudProvider, JobExtras, JobState
from flow_providers.errors import BadOption, ScaleOutFailed, SchedulerUnavailable, SubmitException
from flow_providers.spec import provider_from, spec_of
from flow_providers.testing.contract import ProviderContract
from flow_testing.clouds.google import FakeGoogle

pytestmark = pytest.mark.services


@pytest.fixture
def cloud() -> Iterator[FakeGoogle]:
    need("google", "cryptography", "google.oauth2.service_account", "googleapiclient.discovery")
    with FakeGoogle() as cloud:
        yield cloud


@pytest.fixture
def key(cloud: FakeGoogle, tmp_path: Path) -> str:
    return cloud.write_key(tmp_path)


@pytest.fixture
def provider(cloud: FakeGoogle, key: str) -> GoogleCloudProvider:
    return made(cloud, key)


def made(cloud: FakeGoogle, key: str, **options: Any) -> GoogleCloudProvider:
    provider = GoogleCloudProvider(
        "my-project", key, "us-central1", "debian-cloud", "debian-12", api_endpoint=cloud.url, **options
    )
    provider.settle_s = 2
    return provider


class TestGoogleCloudProvider(ProviderContract):
    poll_s = 0.1
    unknown_job = "us-central1-a/no-such-instance"

    @pytest.fixture
    def provider(self, provider: GoogleCloudProvider) -> GoogleCloudProvider:  # type: ignore[override]  # narrowed
        return provider

    def test_an_instance_is_the_one_asked_for(self, cloud: FakeGoogle, key: str) -> None:
        provider = made(cloud, key, instance_type="e2-small", spot=True, walltime="01:00:00")
        job = provider.submit("sleep 600", 1, "My job", extras=JobExtras(tag="fTag"))
        zone, name = job.split("/")
        body = cloud.instances[zone, name]
        assert body["machineType"] == f"zones/{zone}/machineTypes/e2-small"
        assert body["disks"][0]["initializeParams"] == {"sourceImage": "projects/debian-cloud/global/images/debian-12"}
        assert body["scheduling"]["provisioningModel"] == "SPOT"
        assert body["scheduling"]["maxRunDuration"] == {"seconds": "4500"}
        assert body["labels"] == {"flow-tag": "ftag"}
        assert name.startswith("my-job-ftag-")
        assert provider.find("fT") == [job]
        assert provider.find("ft") == []

    def test_instances_are_deleted_when_the_job_has_ended(
        self, provider: GoogleCloudProvider, cloud: FakeGoogle
    ) -> None:
        job = provider.submit("echo kept", 1)
        self.until_ended(provider, job)
        assert cloud.instances == {}
        assert provider.tail(job)[0] == "kept\n"

    def test_a_lingering_instance_stays(self, cloud: FakeGoogle, key: str) -> None:
        provider = made(cloud, key, linger=True)
        job = provider.submit("exit 3", 1)
        assert self.until_ended(provider, job).exit_code == 3
        assert [instance["status"] for instance in cloud.instances.values()] == ["RUNNING"]
        assert provider.cancel([job]) == [True]
        assert cloud.instances == {}

    def test_nothing_without_the_label_is_listed_or_deleted(
        self, provider: GoogleCloudProvider, cloud: FakeGoogle
    ) -> None:
        cloud.instances["us-central1-a", "database"] = {
            "name": "database",
            "zone": "z/us-central1-a",
            "status": "RUNNING",
        }
        job = "us-central1-a/database"
        assert provider.find("") == []
        assert provider.status([job])[0].state is JobState.MISSING
        assert provider.cancel([job]) == [True]
        assert len(cloud.instances) == 1

    def test_the_heir_of_a_driver_finds_and_deletes_its_instances(
        self, provider: GoogleCloudProvider, cloud: FakeGoogle
    ) -> None:
        job = provider.submit("sleep 600", 1, extras=JobExtras(tag="fheritage"))
        heir = provider_from(spec_of(provider))
        assert heir.find("fherit") == [job]
        assert heir.cancel([job]) == [True]
        assert cloud.instances == {}

    def test_a_full_zone_is_left_for_the_next(self, provider: GoogleCloudProvider, cloud: FakeGoogle) -> None:
        cloud.full_zones = {"us-central1-a"}
        job = provider.submit("true", 1)
        assert job.startswith("us-central1-b/")
        cloud.full_zones.add("us-central1-b")
        with pytest.raises(ScaleOutFailed, match="does not have enough resources"):
            provider.submit("true", 1)

    def test_a_refusal_is_in_googles_words(self, provider: GoogleCloudProvider, cloud: FakeGoogle) -> None:
        cloud.operation_error = {"code": "QUOTA_EXCEEDED", "message": "Quota 'CPUS' exceeded."}
        with pytest.raises(SubmitException, match="Quota 'CPUS' exceeded"):
            provider.submit("true", 1)

    def test_an_unknown_image_or_region_is_named(self, cloud: FakeGoogle, key: str) -> None:
        endpoint = cloud.url
        wrong_image = GoogleCloudProvider("my-project", key, "us-central1", "debian-cloud", "x", api_endpoint=endpoint)
        with pytest.raises(SubmitException, match="family/x"):
            wrong_image.submit("true", 1)
        wrong_region = GoogleCloudProvider(
            "my-project", key, "mars", "debian-cloud", "debian-12", api_endpoint=endpoint
        )
        with pytest.raises(SubmitException, match="mars"):
            wrong_region.submit("true", 1)

    def test_a_cloud_that_is_away_leaves_the_states_unchanged(self, provider: GoogleCloudProvider, key: str) -> None:
        job = provider.submit("sleep 600", 1)
        with self.surely_ended(provider, [job]):
            away = GoogleCloudProvider("p", key, "r", "o", "f", api_endpoint="http://127.0.0.1:9")
            with pytest.raises(SchedulerUnavailable, match="does not answer"):
                away.status([job])
            assert provider.status([job])[0].state is JobState.RUNNING


def test_a_key_that_is_no_key_is_named(cloud: FakeGoogle, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text("{}")
    provider = GoogleCloudProvider("my-project", str(tmp_path / "key.json"), "us-central1", "debian-cloud", "debian-12")
    with pytest.raises(BadOption, match=r"key\.json"):
        provider.submit("true", 1)


def test_another_version_is_refused() -> None:
    with pytest.raises(BadOption, match="'v1' or 'beta'"):
        GoogleCloudProvider("p", "k", "r", "o", "f", google_version="v9")

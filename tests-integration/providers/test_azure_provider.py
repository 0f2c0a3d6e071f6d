"""AzureProvider through Azure's official clients, on a server that checks requests and runs custom data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_packages import need

from flow_providers import AzureProvider, JobExtras, JobState
from flow_providers.errors import BadOption, SchedulerUnavailable, SubmitException
from flow_providers.spec import provider_from, spec_of
from flow_providers.testing.contract import ProviderContract
from flow_testing.clouds.azure import FakeAzure
from flow_testing.clouds.certificate import write_certificate

pytestmark = pytest.mark.services
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUFFwYWNl flow"


class Token:
    """A credential that needs no login."""

    def get_token(self, *scopes: str, **options: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("a token", int(time.time()) + 3600)


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAzure]:
    need("azure", "azure.identity", "azure.mgmt.compute", "azure.mgmt.network", "cryptography")
    certificate = write_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    monkeypatch.setattr("flow_providers.cloud.azure.client.make_credential", lambda key_file: Token())
    with FakeAzure(certificate) as cloud:
        yield cloud


@pytest.fixture
def provider(cloud: FakeAzure) -> Iterator[AzureProvider]:
    provider = made(cloud)
    yield provider
    provider.close()


def made(cloud: FakeAzure, **options: Any) -> AzureProvider:
    provider = AzureProvider(
        "my-subscription",
        "my-group",
        "westeurope",
        "Debian:debian-12:12-gen2:latest",
        KEY,
        api_endpoint=cloud.url,
        **options,
    )
    provider.settle_s = 0
    return provider


class TestAzureProvider(ProviderContract):
    poll_s = 0.1
    unknown_job = "no-such-machine"

    @pytest.fixture
    def provider(self, provider: AzureProvider) -> AzureProvider:  # type: ignore[override]  # the module's, narrowed
        return provider

    def test_a_machine_is_the_one_asked_for(self, cloud: FakeAzure) -> None:
        provider = made(cloud, instance_type="Standard_B1s", spot_max_bid=0.05, public_ip=False)
        job = provider.submit("sleep 600", 1, "My job", extras=JobExtras(tag="fTag"))
        vm = cloud.machines[job]
        assert vm["tags"] == {"flow-tag": "fTag"}
        assert job.startswith("my-job-ftag-")
        properties = vm["properties"]
        assert properties["hardwareProfile"] == {"vmSize": "Standard_B1s"}
        assert (properties["priority"], properties["billingProfile"]) == ("Spot", {"maxPrice": 0.05})
        (interface,) = properties["networkProfile"]["networkInterfaceConfigurations"]
        assert interface["properties"]["deleteOption"] == "Delete"
        assert list(cloud.networks) == ["flow-network"]
        provider.cancel([job])
        provider.close()

    def test_the_network_is_made_once(self, provider: AzureProvider, cloud: FakeAzure) -> None:
        jobs = [provider.submit("true", 1)]
        cloud.networks["flow-network"]["made"] = "once"
        later = made(cloud)
        jobs.append(later.submit("true", 1))
        assert cloud.networks["flow-network"]["made"] == "once"
        provider.cancel(jobs)
        later.close()

    def test_machines_are_deleted_when_the_job_has_ended(self, provider: AzureProvider, cloud: FakeAzure) -> None:
        job = provider.submit("echo kept", 1)
        self.until_ended(provider, job)
        assert cloud.machines == {}
        assert provider.tail(job)[0] == "kept\n"

    def test_a_machine_that_was_taken_away_is_cancelled(self, provider: AzureProvider, cloud: FakeAzure) -> None:
        job = provider.submit("sleep 600", 1)
        cloud.power(job, "deallocated")
        status = self.until_ended(provider, job)
        assert (status.state, status.reason) == (JobState.CANCELLED, "deallocated")

    def test_nothing_without_the_tag_is_listed_or_deleted(self, provider: AzureProvider, cloud: FakeAzure) -> None:
        job = provider.submit("sleep 600", 1)
        cloud.machines["database"] = {**cloud.machines[job], "name": "database", "tags": {"owner": "others"}}
        assert provider.find("") == [job]
        assert provider.status(["database"])[0].state is JobState.MISSING
        assert provider.cancel(["database", job]) == [True, True]
        assert list(cloud.machines) == ["database"]

    def test_the_heir_of_a_driver_finds_and_deletes_its_machines(
        self, provider: AzureProvider, cloud: FakeAzure
    ) -> None:
        job = provider.submit("sleep 600", 1, extras=JobExtras(tag="fheritage"))
        heir = provider_from(spec_of(provider))
        assert heir.find("fherit") == [job]
        assert heir.cancel([job]) == [True]
        assert cloud.machines == {}
        heir.close()

    def test_a_refusal_is_in_azures_words(self, provider: AzureProvider, cloud: FakeAzure) -> None:
        cloud.quota = 0
        with pytest.raises(SubmitException, match="exceeding quota"):
            provider.submit("true", 1)

    def test_a_cloud_that_is_away_leaves_the_states_unchanged(
        self, provider: AzureProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = provider.submit("sleep 600", 1)
        with self.surely_ended(provider, [job]):
            away = AzureProvider("s", "g", "l", "/image", KEY, api_endpoint="https://127.0.0.1:9", cmd_timeout=1)
            with pytest.raises(SchedulerUnavailable, match="does not answer"):
                away.status([job])
            away.close()
            assert provider.status([job])[0].state is JobState.RUNNING


def test_an_image_or_key_file_that_is_none_is_named(tmp_path: Path) -> None:
    pytest.importorskip("azure.identity")
    with pytest.raises(BadOption, match="publisher:offer:sku:version"):
        AzureProvider("s", "g", "l", "debian", KEY)
    provider = AzureProvider("s", "g", "l", "/image", KEY, key_file=str(tmp_path / "none.json"))
    with pytest.raises(BadOption, match=r"none\.json"):
        provider.submit("true", 1)

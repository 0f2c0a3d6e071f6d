"""JetstreamProvider through OpenStack's official client, on a cloud that checks requests and runs user data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_packages import need

from flow_providers import JetstreamProvider, JobExtras, JobState
from flow_providers.errors import SchedulerUnavailable, SubmitException
from flow_providers.spec import provider_from, spec_of
from flow_providers.testing.contract import ProviderContract
from flow_testing.clouds.http_service import HttpAnswer
from flow_testing.clouds.openstack import FakeOpenStack

pytestmark = [
    pytest.mark.services,
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),  # the client warns of what it does itself
]


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenStack]:
    need("openstack", "openstack")
    with FakeOpenStack() as cloud:
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud.write_clouds(tmp_path)))
        yield cloud


@pytest.fixture
def provider(cloud: FakeOpenStack) -> Iterator[JetstreamProvider]:
    provider = made()
    yield provider
    provider.close()


def made(**options: Any) -> JetstreamProvider:
    provider = JetstreamProvider("debian-12", "m3.small", cloud="fake", **options)
    provider.settle_s = 0
    return provider


class TestJetstreamProvider(ProviderContract):
    poll_s = 0.1
    unknown_job = "5e5e5e5e-0000-4000-8000-000000000000"

    @pytest.fixture
    def provider(self, provider: JetstreamProvider) -> JetstreamProvider:  # type: ignore[override]  # narrowed
        return provider

    def test_a_server_is_the_one_asked_for(self, cloud: FakeOpenStack) -> None:
        provider = made(network="private", key_name="my-key", security_groups=["inside"])
        job = provider.submit("sleep 600", 1, "My job", extras=JobExtras(tag="fTag"))
        asked = cloud.servers[job]["asked"]
        assert (asked["imageRef"], asked["flavorRef"]) == ("image-1", "flavor-1")
        assert asked["networks"] == [{"uuid": "network-1"}]
        assert (asked["key_name"], asked["security_groups"]) == ("my-key", [{"name": "inside"}])
        assert asked["metadata"] == {"flow-tag": "fTag"}
        assert asked["name"].startswith("my-job-ftag-")
        provider.cancel([job])
        provider.close()

    def test_servers_are_deleted_when_the_job_has_ended(
        self, provider: JetstreamProvider, cloud: FakeOpenStack
    ) -> None:
        job = provider.submit("echo kept", 1)
        self.until_ended(provider, job)
        assert cloud.servers == {}
        assert provider.tail(job)[0] == "kept\n"

    def test_a_server_that_cannot_be_built_has_failed_with_the_reason(
        self, provider: JetstreamProvider, cloud: FakeOpenStack
    ) -> None:
        cloud.host_fault = "No valid host was found."
        job = provider.submit("true", 1)
        status = self.until_ended(provider, job)
        assert (status.state, status.reason) == (JobState.FAILED, "ERROR")
        assert status.message == "No valid host was found."
        assert cloud.servers == {}

    def test_nothing_without_the_tag_is_listed_or_deleted(
        self, provider: JetstreamProvider, cloud: FakeOpenStack
    ) -> None:
        cloud.servers["1"] = {"id": "1", "name": "database", "status": "ACTIVE", "metadata": {}}
        assert provider.find("") == []
        assert provider.status(["1"])[0].state is JobState.MISSING
        assert provider.cancel(["1"]) == [True]
        assert list(cloud.servers) == ["1"]

    def test_the_heir_of_a_driver_finds_and_deletes_its_servers(
        self, provider: JetstreamProvider, cloud: FakeOpenStack
    ) -> None:
        job = provider.submit("sleep 600", 1, extras=JobExtras(tag="fheritage"))
        heir = provider_from(spec_of(provider))
        assert heir.find("fherit") == [job]
        assert heir.cancel([job]) == [True]
        assert cloud.servers == {}
        heir.close()

    def test_a_refusal_is_in_openstacks_words(self, provider: JetstreamProvider, cloud: FakeOpenStack) -> None:
        cloud.quota = 0
        with pytest.raises(SubmitException, match="Quota exceeded"):
            provider.submit("true", 1)

    @pytest.mark.parametrize(("image", "flavor"), [("windows", "m3.small"), ("debian-12", "huge")])
    def test_what_the_cloud_does_not_have_is_named(self, cloud: FakeOpenStack, image: str, flavor: str) -> None:
        provider = JetstreamProvider(image, flavor, cloud="fake")
        with pytest.raises(SubmitException, match=r"No (Image found for windows|Flavor found for huge)"):
            provider.submit("true", 1)
        provider.close()

    def test_a_wrong_password_or_cloud_is_said(
        self, cloud: FakeOpenStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(SubmitException, match="elsewhere"):
            JetstreamProvider("debian-12", "m3.small", cloud="elsewhere").submit("true", 1)
        cloud.write_clouds(tmp_path, password="wrong")
        with pytest.raises(SubmitException, match=r"refused the login|requires authentication"):
            JetstreamProvider("debian-12", "m3.small", cloud="fake").submit("true", 1)

    def test_an_answer_that_cannot_be_read_leaves_the_states_unchanged(
        self, provider: JetstreamProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = provider.submit("sleep 600", 1)
        with self.surely_ended(provider, [job]):
            with monkeypatch.context() as garbled:
                garbled.setattr(HttpAnswer, "body", property(lambda _: b'{"servers": [{"id": "1"'))
                with pytest.raises(SchedulerUnavailable, match="cannot be read"):
                    provider.status([job])
            assert provider.status([job])[0].state is JobState.RUNNING

    def test_a_cloud_that_is_away_leaves_the_states_unchanged(
        self, provider: JetstreamProvider, tmp_path: Path
    ) -> None:
        job = provider.submit("sleep 600", 1)
        with self.surely_ended(provider, [job]):
            clouds = tmp_path / "clouds.yaml"
            clouds.write_text(re_port(clouds.read_text()))
            away = JetstreamProvider("debian-12", "m3.small", cloud="fake", cmd_timeout=2)
            with pytest.raises(SchedulerUnavailable, match="does not answer"):
                away.status([job])
            assert provider.status([job])[0].state is JobState.RUNNING


def re_port(text: str) -> str:
    start = text.index("127.0.0.1:") + len("127.0.0.1:")
    return text[:start] + "9" + text[text.index("/", start) :]

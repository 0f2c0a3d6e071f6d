"""Every option of every provider of a cloud changes what goes to its client, or what executors read.

The client's place is taken by one that keeps what is asked of it. That the real clients do what is asked is shown by
the tests of each cloud's server.
"""

from __future__ import annotations

import inspect
import re
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

import flow_providers
from flow_providers.cloud.aws import provider as aws
from flow_providers.cloud.aws.state import Network
from flow_providers.cloud.azure import provider as azure
from flow_providers.cloud.base import CloudProvider
from flow_providers.cloud.google import provider as google
from flow_providers.cloud.openstack import provider as openstack
from flow_providers.errors import ProviderError
from flow_providers.interfaces.job_extras import JobExtras
from flow_providers.launchers import WrappedLauncher

NEEDED: dict[type, dict[str, object]] = {
    flow_providers.AWSProvider: {"image_id": "ami-1", "key_name": "mine"},
    flow_providers.AzureProvider: {
        "subscription_id": "one",
        "resource_group": "group",
        "location": "here",
        "image": "a:b:c:d",
        "ssh_public_key": "ssh-ed25519 AAAA me",
    },
    flow_providers.GoogleCloudProvider: {
        "project_id": "one",
        "key_file": "/key.json",
        "region": "here",
        "os_project": "debian",
        "os_family": "debian-12",
    },
    flow_providers.JetstreamProvider: {"image": "debian", "flavor": "small"},
}
"""What a provider needs to be made at all."""

OTHER: dict[str, object] = {
    "admin_username": "alice",
    "api_endpoint": "https://elsewhere",
    "cloud": "other",
    "cmd_timeout": 77.0,
    "flavor": "large",
    "google_version": "beta",
    "iam_instance_profile_arn": "arn:aws:iam::1:instance-profile/p",
    "image": "w:x:y:z",
    "image_id": "ami-2",
    "init_blocks": 3,
    "instance_type": "large",
    "key_file": "/other.json",
    "key_name": "other",
    "launcher": WrappedLauncher("nice"),
    "linger": True,
    "location": "there",
    "max_blocks": 33,
    "min_blocks": 1,
    "network": "private",
    "os_family": "debian-13",
    "os_project": "others",
    "parallelism": 0.25,
    "profile": "other",
    "project_id": "other",
    "public_ip": False,
    "region": "there",
    "resource_group": "other",
    "security_groups": ["inside"],
    "spot": True,
    "spot_max_bid": 0.5,
    "ssh_public_key": "ssh-ed25519 BBBB me",
    "subnet_id": "/subnets/7",
    "subscription_id": "other",
    "walltime": "03:00:00",
    "worker_init": "module load python",
}
"""Another value of each option than its default, or than that which is needed."""

READ_BY_EXECUTORS = ("init_blocks", "min_blocks", "max_blocks", "parallelism", "walltime_s")


class Client:
    """A client of a cloud that keeps what is asked of it, and finds what is looked for."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen
        self.machines, self.networks, self.group = "machines", MagicMock(), "group"

    def made(self, *how: object) -> Client:
        self._seen.append(f"made {how}")
        return self

    def put(self, *what: object) -> None:  # of Azure
        self._seen.append(f"put {what}")

    def pages(self, *what: object, **options: object) -> list[dict[str, object]]:  # of Google
        return [{"items": [{"name": f"{region}-a", "region": f"/{region}"} for region in ("here", "there")]}]

    def call(self, kind: Any, *what: Any, **options: object) -> Any:  # of Google and OpenStack
        if what and callable(what[0]):
            return what[0](self)
        self._seen.append(f"call {kind} {what} {options}")
        return {"status": "DONE", "selfLink": f"image {options.get('family')}"}

    def __getattr__(self, name: str) -> Any:
        def called(*what: object, **options: object) -> Any:
            self._seen.append(f"{name} {what} {options}")
            return MagicMock(id=f"{name} {what} {options}")

        if name in ("compute", "network", "image"):
            return self
        return called


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    kept: list[str] = []
    client = Client(kept)
    monkeypatch.setattr(aws, "make_session", client.made)
    monkeypatch.setattr(aws, "make_ec2", client.made)
    monkeypatch.setattr(aws, "translated", lambda *_: nullcontext())  # it would import the real client for its errors
    monkeypatch.setattr(flow_providers.AWSProvider, "_ready_network", lambda _: Network("vpc", "group", ("subnet",)))
    monkeypatch.setattr(flow_providers.AzureProvider, "_find_subnet", lambda self: f"/found in {self.location}")
    monkeypatch.setattr(azure, "AzureClient", client.made)
    monkeypatch.setattr(google, "ComputeClient", client.made)
    monkeypatch.setattr(openstack, "OpenStackClient", client.made)
    monkeypatch.setenv("FLOW_LEDGER", str(tmp_path / "ledger"))
    return kept


def observed(seen: list[str], kind: Any, options: dict[str, object]) -> list[str]:
    """Return what a provider of these options asks of its cloud, what executors read, and where it keeps its state."""
    seen.clear()
    orders: list[str] = []

    class Watched(kind):  # type: ignore[misc]  # of each kind in turn
        def start_machine(self, order: Any) -> str:
            orders.append(order.user_data)
            return str(super().start_machine(order))

    provider: Any = Watched(**{**NEEDED[kind], **options})
    with suppress(ProviderError, TypeError, IndexError):
        provider.submit("true", 1, "job", extras=JobExtras(tag="fabc"))
    assert orders, "nothing was started"
    found = [*seen, *orders, *(f"{name}={getattr(provider, name)}" for name in READ_BY_EXECUTORS)]
    found.append(str(getattr(provider, "state_file", "")))
    # Names, and what is encoded with them in it, differ from one job to the next.
    return [
        re.sub(r"fabc[-\w]*|[0-9a-f]{8}-[-0-9a-f]{27}|[A-Za-z0-9+/=]{60,}|0x[0-9a-f]+", "JOB", one) for one in found
    ]


CASES = [
    pytest.param(kind, name, id=f"{kind.__name__} {name}")
    for kind in NEEDED
    for name in inspect.signature(kind).parameters
    if name not in ("nodes_per_block", "state_file")  # the one is refused, the other tested by what is in the file
]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_an_option_of_a_cloud_changes_what_is_asked_of_it(kind: type, name: str, seen: list[str]) -> None:
    assert name in OTHER, f"{kind.__name__} has a new option {name}: give another value of it in OTHER"
    usual = observed(seen, kind, {})
    assert usual == observed(seen, kind, {})
    assert usual != observed(seen, kind, {name: OTHER[name]})


def test_all_clouds_are_here() -> None:
    public = {getattr(flow_providers, name) for name in flow_providers.__all__}
    assert NEEDED.keys() == {one for one in public if inspect.isclass(one) and issubclass(one, CloudProvider)}
    assert {name for kind in NEEDED for name in inspect.signature(kind).parameters} - {
        "nodes_per_block",
        "state_file",
    } == OTHER.keys()

"""What a user can do wrong with a provider of a batch scheduler or a cloud, and how it is told."""

from __future__ import annotations

import sys

import pytest

import flow_providers
from flow_providers import channels
from flow_providers.channels.local import LocalChannel
from flow_providers.cluster.base import ClusterProvider
from flow_providers.errors import (
    BadOption,
    ChannelRequired,
    OptionalModuleMissing,
    SchedulerMissingArgs,
    ScriptPathError,
    SubmitException,
)

CLUSTERS = [
    "CobaltProvider", "CondorProvider", "GridEngineProvider", "LSFProvider", "PBSProProvider", "SlurmProvider",
    "TorqueProvider",
]  # fmt: skip
every_cluster = pytest.mark.parametrize("name", CLUSTERS)


def cluster(name: str, script_dir: object, **options: object) -> ClusterProvider:
    made: ClusterProvider = getattr(flow_providers, name)(channel=LocalChannel(script_dir=str(script_dir)), **options)
    return made


@every_cluster
def test_an_unusable_script_directory_is_named(name: str, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScriptPathError, match="file/scripts") as caught:
        cluster(name, tmp_path / "file" / "scripts").submit("true", 1)
    assert caught.value.path == str(tmp_path / "file" / "scripts")


@every_cluster
def test_a_value_that_the_template_misses_is_named(name: str, tmp_path, monkeypatch) -> None:
    provider = cluster(name, tmp_path)
    render = sys.modules["flow_providers.cluster.base"].render
    monkeypatch.setattr(
        "flow_providers.cluster.base.render",
        lambda package, template, values: render(package, template, {k: v for k, v in values.items() if k != "body"}),
    )
    with pytest.raises(SchedulerMissingArgs, match="body"):
        provider.submit("true", 1)
    assert provider.current_capacity == 0


@pytest.mark.parametrize("name", [*CLUSTERS, "LocalProvider"])
def test_less_than_one_copy_on_a_node_is_refused(name: str, tmp_path) -> None:
    with pytest.raises(SubmitException, match="tasks_per_node=0 must be at least 1"):
        cluster(name, tmp_path).submit("true", 0)


def test_a_site_s_template_that_names_something_else_says_so(tmp_path, monkeypatch) -> None:
    (tmp_path / "site_of_test").mkdir()
    (tmp_path / "site_of_test" / "__init__.py").write_text("")
    (tmp_path / "site_of_test" / "script.sh.j2").write_text(
        "#!/bin/bash\n#SBATCH --reservation={{ reservation }}\n{{ body }}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    class SiteProvider(flow_providers.SlurmProvider):
        package = "site_of_test"

    with pytest.raises(SchedulerMissingArgs, match="reservation"):
        SiteProvider(channel=LocalChannel(script_dir=str(tmp_path))).submit("true", 1)


def test_hosts_without_channels_are_refused() -> None:
    with pytest.raises(ChannelRequired, match="at least one channel") as caught:
        flow_providers.AdHocProvider(channels=[])
    assert isinstance(caught.value, BadOption)


CLIENTS = {
    "AWSProvider": (("ami", "key"), "boto3", "aws"),
    "GoogleCloudProvider": (("p", "key.json", "r", "o", "f"), "google.oauth2.service_account", "google"),
    "AzureProvider": (("s", "g", "l", "/images/i", "key"), "azure.mgmt.compute", "azure"),
    "JetstreamProvider": (("i", "f"), "openstack", "openstack"),
    "KubernetesProvider": (("image",), "kubernetes", "kubernetes"),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_cloud_without_its_client_is_made_and_says_on_use_what_to_install(name: str, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)  # for the state file of AWS
    arguments, module, extra = CLIENTS[name]
    parts = module.split(".")
    for depth in range(len(parts)):
        monkeypatch.setitem(sys.modules, ".".join(parts[: depth + 1]), None)  # an import of it fails
    provider = getattr(flow_providers, name)(*arguments)
    for use in (lambda: provider.status(["zone/job"]), lambda: provider.submit("true", 1)):
        with pytest.raises(OptionalModuleMissing, match=rf"flow-providers with its extra \[{extra}\]"):
            use()


def test_ssh_without_its_client_says_on_use_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "paramiko", None)
    channel = channels.SSHChannel("nowhere.example")
    with pytest.raises(OptionalModuleMissing, match=r"install paramiko, or flow-providers with its extra \[ssh\]"):
        channel.execute_wait("true")

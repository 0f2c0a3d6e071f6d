"""The options that providers share: taken by one record, checked, attributes of the same names, shown by repr."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError

import pytest

import flow_providers
from flow_providers import channels, launchers
from flow_providers.block_options import BlockOptions
from flow_providers.cluster.options import ClusterOptions
from flow_providers.errors import BadLauncher, BadOption
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.option_records import documented, options_of
from flow_providers.options import checked, record_of

NEEDED: dict[str, dict[str, object]] = {
    "AdHocProvider": {"channels": [channels.LocalChannel()]},
    "AWSProvider": {"image_id": "ami-1", "key_name": "k"},
    "AzureProvider": {
        "subscription_id": "s", "resource_group": "g", "location": "l", "image": "/images/i", "ssh_public_key": "k",
    },
    "GoogleCloudProvider": {
        "project_id": "p", "key_file": "k.json", "region": "r", "os_project": "o", "os_family": "f",
    },
    "JetstreamProvider": {"image": "i", "flavor": "f"},
    "KubernetesProvider": {"image": "i"},
}  # fmt: skip
NAMES = [name for name in flow_providers.__all__ if name.endswith("Provider") and name != "ExecutionProvider"]
EVERY = pytest.mark.parametrize("name", NAMES)


def make(name: str, **options: object) -> ExecutionProvider:
    kind: type[ExecutionProvider] = getattr(flow_providers, name)
    return kind(**{**NEEDED.get(name, {}), **options})


TAKE_BOUNDS = [name for name in NAMES if "max_blocks" in inspect.signature(getattr(flow_providers, name)).parameters]


@pytest.mark.parametrize("name", TAKE_BOUNDS)
def test_more_blocks_at_the_start_than_there_may_be_are_refused(name: str) -> None:
    with pytest.raises(BadOption, match="max_blocks=2 must be at least init_blocks=5"):
        make(name, init_blocks=5, max_blocks=2)


@EVERY
def test_the_repr_of_a_provider_makes_an_equal_one(name: str) -> None:
    provider = make(name, max_blocks=7, worker_init="module load 'x'\ntrue", walltime="01:00:00")
    known = {each: getattr(home, each) for home in (flow_providers, channels, launchers) for each in home.__all__}
    again = eval(repr(provider), known)
    assert type(again) is type(provider)
    assert repr(again) == repr(provider)
    assert (again.max_blocks, again.worker_init, again.walltime) == (7, "module load 'x'\ntrue", "01:00:00")


@EVERY
@pytest.mark.parametrize(
    ("option", "value", "must"),
    [
        ("max_blocks", "ten", "must be int"),
        ("parallelism", "all", "must be float"),
        ("worker_init", ["module load x"], "must be str"),
        ("walltime", "half an hour", "HH:MM:SS"),
        ("init_blocks", -1, "at least 0"),
        ("min_blocks", 11, ""),
        ("parallelism", -0.5, "not be negative"),
        ("cmd_timeout", 0, "more than 0"),
    ],
)
def test_a_wrong_option_is_refused_by_name(name: str, option: str, value: object, must: str) -> None:
    with pytest.raises(BadOption, match=rf"{option}.*{must}"):
        make(name, **{"max_blocks": 10, option: value})


@EVERY
def test_a_launcher_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(BadLauncher, match="launcher="):
        make(name, launcher="srun")


@pytest.mark.parametrize("name", ["CobaltProvider", "TorqueProvider"])
def test_schedulers_of_crays_launch_by_aprun(name: str) -> None:
    assert repr(make(name).launcher) == "AprunLauncher(overrides='')"  # type: ignore[attr-defined]  # all have one


def test_the_record_is_frozen() -> None:
    options = BlockOptions()
    with pytest.raises(FrozenInstanceError):
        options.max_blocks = 3  # type: ignore[misc]  # the point of the test


def test_a_provider_of_a_site_gives_options_on_to_ours() -> None:
    class SiteProvider(flow_providers.SlurmProvider):
        @checked
        def __init__(self, hours: int = 1, max_blocks: int = 3) -> None:
            super().__init__("debug", walltime=f"{hours:02d}:00:00", max_blocks=max_blocks)
            self.hours = hours
            self.record = record_of(ClusterOptions, self)

    provider = SiteProvider(hours=2)
    assert (provider.walltime, provider.max_blocks, provider.partition) == ("02:00:00", 3, "debug")
    assert repr(provider) == "SiteProvider(hours=2, max_blocks=3)"
    assert (provider.record.max_blocks, provider.record.walltime) == (3, "00:10:00")  # of its own constructor again


@EVERY
def test_each_option_of_a_provider_is_documented(name: str) -> None:
    kind = getattr(flow_providers, name)
    assert [option.name for option in options_of(kind)] == list(inspect.signature(kind).parameters)
    for option in options_of(kind):
        assert f"\n    {option.name}: {option.documentation[:40]}" in kind.__doc__
        assert f"{option.name}=" in repr(make(name))


def test_the_signature_of_a_provider_shows_types_alone() -> None:
    shown = inspect.signature(flow_providers.SlurmProvider).parameters
    assert str(shown["partition"]) == "partition: str | None = None"
    assert str(shown["nodes_per_block"]) == "nodes_per_block: int = 1"


def test_options_of_a_record_are_those_of_the_records_above_it_and_its_own() -> None:
    known = {option.name: option for option in options_of(ClusterOptions)}
    assert known["nodes_per_block"].documentation == "Nodes of a job."
    assert known["scheduler_options"].default == ""
    assert {option.name for option in options_of(BlockOptions)} < set(known)


def test_a_docstring_without_sections_gets_the_options_at_its_end() -> None:
    @documented
    class Site(flow_providers.LSFProvider):
        """A site."""

    assert Site.__doc__ is not None
    assert Site.__doc__.startswith("A site.\n\nArgs:\n    channel: How")

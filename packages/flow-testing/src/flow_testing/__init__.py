"""Schedulers, clouds and a provider that tests run on instead of real ones. Public names are loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_providers.lazy import loading

if TYPE_CHECKING:
    from flow_testing.clouds.azure import FakeAzure as FakeAzure
    from flow_testing.clouds.ec2 import FakeEc2 as FakeEc2
    from flow_testing.clouds.google import FakeGoogle as FakeGoogle
    from flow_testing.clouds.kubernetes import FakeKubernetes as FakeKubernetes
    from flow_testing.clouds.openstack import FakeOpenStack as FakeOpenStack
    from flow_testing.fake_provider import FakeJob as FakeJob, FakeProvider as FakeProvider
    from flow_testing.schedulers.simulated import SimulatedScheduler as SimulatedScheduler
    from flow_testing.schedulers.variant import PROFILES as PROFILES, SchedulerVariant as SchedulerVariant

__version__ = "0.1.1"

_HOMES = {
    "FakeAzure": "flow_testing.clouds.azure",
    "FakeEc2": "flow_testing.clouds.ec2",
    "FakeGoogle": "flow_testing.clouds.google",
    "FakeJob": "flow_testing.fake_provider",
    "FakeKubernetes": "flow_testing.clouds.kubernetes",
    "FakeOpenStack": "flow_testing.clouds.openstack",
    "FakeProvider": "flow_testing.fake_provider",
    "PROFILES": "flow_testing.schedulers.variant",
    "SchedulerVariant": "flow_testing.schedulers.variant",
    "SimulatedScheduler": "flow_testing.schedulers.simulated",
}

__all__ = [*_HOMES, "__version__"]
__getattr__, __dir__ = loading(__name__, _HOMES)

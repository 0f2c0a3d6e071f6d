"""Instances of Google's Compute Engine: their description in, machines out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flow_providers.cloud.base import TAG, MachineOrder
from flow_providers.cloud.machine import Machine, MachinePhase

_STARTING = frozenset({"PROVISIONING", "STAGING", "PENDING"})
_OFF = frozenset({"TERMINATED", "STOPPED", "SUSPENDED"})


def job_id_of(zone: str, name: str) -> str:
    """Return the id of a job: names are unique in a zone only."""
    return f"{zone}/{name}"


def zone_and_name(job_id: str) -> tuple[str, str]:
    """Return the zone and name of a job's instance; empty ones for a text that is no id of ours."""
    zone, _, name = job_id.partition("/")
    return zone, name


def machine_of(instance: Mapping[str, Any]) -> Machine:
    """Return an instance of ``instances.list`` as a machine."""
    status = str(instance.get("status", ""))
    network = (instance.get("networkInterfaces") or [{}])[0]
    outside = (network.get("accessConfigs") or [{}])[0]
    phase = MachinePhase.STARTING if status in _STARTING else MachinePhase.RUNNING
    zone = str(instance.get("zone", "")).rsplit("/", 1)[-1]
    return Machine(
        job_id=job_id_of(zone, str(instance.get("name", ""))),
        tag=metadata_of(instance).get(TAG, ""),
        phase=MachinePhase.HALTED if status in _OFF else phase,
        reason="" if status == "RUNNING" else status,
        message=str(instance.get("statusMessage", "")),
        node=str(outside.get("natIP") or network.get("networkIP") or ""),
        started_at=_seconds(str(instance.get("lastStartTimestamp", ""))),
    )


def metadata_of(instance: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of an instance."""
    items = (instance.get("metadata") or {}).get("items") or []
    return {str(item["key"]): str(item.get("value", "")) for item in items}


def body_of(order: MachineOrder, zone: str, instance_type: str, image: str, spot: bool, limit_s: int) -> dict[str, Any]:
    """Return the body of ``instances.insert``.

    Args:
        order: The machine.
        zone: Its zone.
        instance_type: Its machine type.
        image: Link of the image of its disk.
        spot: Whether Google may take it away, for less money.
        limit_s: Seconds after which Google deletes it, whatever it does; 0: never.
    """
    # A job runs once: an instance that Google starts again would report its job as interrupted.
    scheduling: dict[str, Any] = {"automaticRestart": False}
    if spot:
        # STOP, not DELETE: the provider sees that the instance was taken away.
        scheduling.update(provisioningModel="SPOT", onHostMaintenance="TERMINATE", instanceTerminationAction="STOP")
    if limit_s:
        scheduling.update(maxRunDuration={"seconds": str(limit_s)}, instanceTerminationAction="DELETE")
    items = [{"key": "startup-script", "value": order.user_data}, {"key": TAG, "value": order.tag}]
    return {
        "name": order.name,
        "machineType": f"zones/{zone}/machineTypes/{instance_type}",
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": image}}],
        "networkInterfaces": [
            {
                "network": "global/networks/default",
                "accessConfigs": [{"type": "ONE_TO_ONE_NAT", "name": "External NAT"}],
            }
        ],
        # Labels can be filtered by the API, and are in lower case; the tag as it was given is in the metadata.
        "labels": {TAG: order.tag.lower()},
        "metadata": {"items": items},
        "scheduling": scheduling,
    }


def _seconds(stamp: str) -> float | None:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return None

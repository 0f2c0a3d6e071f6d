"""Servers of OpenStack, as its client describes them, to machines. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flow_providers.cloud.base import TAG
from flow_providers.cloud.machine import Machine, MachinePhase

_PHASES = {
    "BUILD": MachinePhase.STARTING,
    "SHUTOFF": MachinePhase.HALTED,
    "ERROR": MachinePhase.FAILED,
    "DELETED": MachinePhase.ENDED,
    "SOFT_DELETED": MachinePhase.ENDED,
}


def machine_of(server: Mapping[str, Any]) -> Machine:
    """Return a server as a machine."""
    status = str(server.get("status") or "")
    fault = server.get("fault") or {}
    return Machine(
        job_id=str(server["id"]),
        tag=str((server.get("metadata") or {}).get(TAG, "")),
        phase=_PHASES.get(status, MachinePhase.RUNNING),
        reason="" if status == "ACTIVE" else status,
        message=str(fault.get("message") or ""),
        node=_address(server.get("addresses") or {}),
        started_at=_seconds(str(server.get("launched_at") or "")),
        stands=status not in ("DELETED", "SOFT_DELETED"),
    )


def _address(addresses: Mapping[str, Any]) -> str:
    return next((str(one["addr"]) for network in addresses.values() for one in network if one.get("addr")), "")


def _seconds(stamp: str) -> float | None:
    try:
        found = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    # OpenStack leaves the zone out of launched_at, which is in UTC.
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()

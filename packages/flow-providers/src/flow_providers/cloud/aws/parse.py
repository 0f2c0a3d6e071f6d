"""From instances, as EC2 describes them, to machines. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flow_providers.cloud.base import TAG
from flow_providers.cloud.machine import Machine, MachinePhase

_SELF = "Client.InstanceInitiatedShutdown"
_BY_REQUEST = frozenset({"Client.UserInitiatedShutdown", "Client.UserInitiatedHibernate"})


def machine_of(instance: Mapping[str, Any]) -> Machine:
    """Return an instance of ``DescribeInstances`` as a machine."""
    reason = instance.get("StateReason") or {}
    state = str((instance.get("State") or {}).get("Name", ""))
    code = str(reason.get("Code", ""))
    launched = instance.get("LaunchTime")
    return Machine(
        job_id=str(instance["InstanceId"]),
        tag=tags_of(instance).get(TAG, ""),
        phase=_phase(state, code),
        reason=code or ("" if state in ("running", "pending") else state),
        message=str(reason.get("Message", "")),
        node=str(instance.get("PublicIpAddress") or instance.get("PrivateIpAddress") or ""),
        started_at=launched.timestamp() if isinstance(launched, datetime) else None,
        stands=state not in ("terminated", "shutting-down"),
    )


def tags_of(thing: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of anything that EC2 describes."""
    return {str(tag["Key"]): str(tag["Value"]) for tag in thing.get("Tags") or []}


def _phase(state: str, code: str) -> MachinePhase:
    if state == "pending":
        return MachinePhase.STARTING
    if state == "running":
        return MachinePhase.RUNNING
    if code in _BY_REQUEST:
        return MachinePhase.ENDED
    # The machine's own shutdown, after its job: the job's end stands on the console.
    if code == _SELF:
        return MachinePhase.HALTED if state in ("stopped", "terminated") else MachinePhase.RUNNING
    if code.startswith(("Server.", "Client.")):
        return MachinePhase.FAILED
    return MachinePhase.HALTED if state in ("stopped", "terminated") else MachinePhase.RUNNING

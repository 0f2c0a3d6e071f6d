"""Virtual machines of Azure: requests out, machines in. Pure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flow_providers.cloud.base import TAG, MachineOrder
from flow_providers.cloud.machine import Machine, MachinePhase
from flow_providers.errors import BadOption

# Azure wants a version of the network API where a machine's request describes its interfaces, too.
_NETWORK_API = "2023-09-01"
_PHASES = {
    "PowerState/starting": MachinePhase.STARTING,
    "PowerState/running": MachinePhase.RUNNING,
    "PowerState/stopping": MachinePhase.RUNNING,
    "PowerState/stopped": MachinePhase.HALTED,
    "PowerState/deallocating": MachinePhase.ENDED,
    "PowerState/deallocated": MachinePhase.ENDED,
}


@dataclass(frozen=True, slots=True)
class MachineOptions:
    """The options that all machines of one provider share; see ``AzureProvider``."""

    location: str
    image: Mapping[str, str]
    instance_type: str
    admin_username: str
    ssh_public_key: str
    public_ip: bool
    spot_max_bid: float


def image_of(image: str) -> dict[str, str]:
    """Return an image's reference: by id, or by ``publisher:offer:sku:version``. BadOption: it is neither."""
    if image.startswith("/"):
        return {"id": image}
    parts = image.split(":")
    if len(parts) != 4 or not all(parts):
        raise BadOption(
            f"AzureProvider: option image={image!r} must be 'publisher:offer:sku:version', such as "
            "'Debian:debian-12:12-gen2:latest', or the id of an image"
        )
    return dict(zip(("publisher", "offer", "sku", "version"), parts, strict=True))


def body_of(order: MachineOrder, options: MachineOptions, subnet_id: str) -> dict[str, object]:
    """Return the virtual machine as it goes over the wire; its disk and network interface go when it goes."""
    key = {"path": f"/home/{options.admin_username}/.ssh/authorized_keys", "keyData": options.ssh_public_key}
    properties: dict[str, object] = {
        "hardwareProfile": {"vmSize": options.instance_type},
        "storageProfile": {
            "imageReference": options.image,
            "osDisk": {"createOption": "FromImage", "deleteOption": "Delete"},
        },
        "osProfile": {
            "computerName": order.name,
            "adminUsername": options.admin_username,
            "customData": b64encode(order.user_data.encode()).decode(),
            "linuxConfiguration": {"disablePasswordAuthentication": True, "ssh": {"publicKeys": [key]}},
        },
        "networkProfile": {
            "networkApiVersion": _NETWORK_API,
            "networkInterfaceConfigurations": [_interface(order, options, subnet_id)],
        },
        # Outputs and exit codes of jobs come by the serial console, which is a part of the boot diagnostics.
        "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
    }
    if options.spot_max_bid > 0:
        properties.update(priority="Spot", evictionPolicy="Delete", billingProfile={"maxPrice": options.spot_max_bid})
    return {"location": options.location, "tags": {TAG: order.tag}, "properties": properties}


def network_body(location: str, subnet: str) -> dict[str, object]:
    """Return a virtual network with one subnet."""
    return {
        "location": location,
        "tags": {TAG: "network"},
        "properties": {
            "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
            "subnets": [{"name": subnet, "properties": {"addressPrefix": "10.0.0.0/17"}}],
        },
    }


def machine_of(name: str, tag: str, statuses: Sequence[tuple[str, str]], started_at: float | None) -> Machine:
    """Return a machine by the codes and messages of its instance view."""
    failure = next((status for status in statuses if status[0].startswith("ProvisioningState/failed")), None)
    power = next((code for code, _ in statuses if code.startswith("PowerState/")), "")
    # No power state yet: the machine is being made.
    phase = _PHASES.get(power, MachinePhase.STARTING)
    # A machine that could not be made may have a power state all the same.
    if failure is not None:
        phase = MachinePhase.FAILED
    reason = failure[0].split("/", 2)[-1] if failure is not None else power.removeprefix("PowerState/")
    return Machine(
        job_id=name,
        tag=tag,
        phase=phase,
        reason="" if phase is MachinePhase.RUNNING else reason,
        message=failure[1] if failure is not None else "",
        node=name,
        started_at=started_at,
    )


def _interface(order: MachineOrder, options: MachineOptions, subnet_id: str) -> dict[str, object]:
    address: dict[str, object] = {"primary": True, "subnet": {"id": subnet_id}}
    if options.public_ip:
        address["publicIPAddressConfiguration"] = {
            "name": order.name,
            "sku": {"name": "Standard"},
            "properties": {"deleteOption": "Delete", "publicIPAllocationMethod": "Static"},
        }
    return {
        "name": order.name,
        "properties": {
            "primary": True,
            "deleteOption": "Delete",
            "ipConfigurations": [{"name": order.name, "properties": address}],
        },
    }

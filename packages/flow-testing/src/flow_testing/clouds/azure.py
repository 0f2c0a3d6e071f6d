"""Azure's resource manager for one resource group, over https, with machines that really run their custom data.

Bodies are checked against the service's published schema, as the official client has it.
"""

from __future__ import annotations

import re
import types
import typing
from base64 import b64decode
from datetime import UTC, datetime
from threading import RLock
from typing import Any

from flow_testing.clouds.http_service import HttpAnswer, Request, ServedFake
from flow_testing.clouds.machine import FakeMachine

Document = dict[str, Any]  # JSON of the API
_GROUP = "/subscriptions/my-subscription/resourceGroups/my-group/providers"
_MACHINE = re.compile(rf"{_GROUP}/Microsoft.Compute/virtualMachines(?:/([^/]+)(/retrieveBootDiagnosticsData)?)?")
_NETWORK = re.compile(rf"{_GROUP}/Microsoft.Network/virtualNetworks/([^/]+)")
_ALL = "/subscriptions/my-subscription/providers/Microsoft.Compute/virtualMachines"
_REQUIRED = ("hardwareProfile", "storageProfile", "osProfile", "networkProfile")


class FakeAzure(ServedFake):
    """A resource group. ``machines`` has the virtual machines by name, ``networks`` the networks.

    Args:
        certificate: File with its key and certificate.
    """

    def __init__(self, certificate: str) -> None:
        self.machines: dict[str, Document] = {}
        self.networks: dict[str, Document] = {}
        self.quota = 100
        self._booted: dict[str, FakeMachine] = {}
        self._lock = RLock()
        super().__init__(certificate)

    def power(self, name: str, state: str) -> None:
        """Put a machine into a power state, such as ``deallocated``."""
        view = {"statuses": [{"code": "ProvisioningState/succeeded"}, {"code": f"PowerState/{state}"}]}
        self.machines[name]["properties"]["instanceView"] = view

    def _end(self) -> None:
        for machine in self._booted.values():
            machine.end()

    def _answer(self, request: Request) -> HttpAnswer:
        # Before the login: the real address has the right to read in itself.
        if request.path.startswith("/consoles/"):
            machine = self._booted.get(request.path.rsplit("/", 1)[1])
            return HttpAnswer(200, machine.console.encode() if machine else b"", "text/plain")
        headers = {key.lower(): value for key, value in request.headers.items()}
        if not headers.get("authorization", "").startswith("Bearer "):
            return _failure(401, "AuthenticationFailed", "Authentication failed.")
        with self._lock:
            return self._route(request)

    def _route(self, request: Request) -> HttpAnswer:
        if request.path == _ALL:
            keys = ("id", "name", "location", "type")
            view = [{**{k: vm[k] for k in keys}, "properties": vm["properties"]} for vm in self.machines.values()]
            return HttpAnswer(200, {"value": view})
        network, machine = _NETWORK.fullmatch(request.path), _MACHINE.fullmatch(request.path)
        if network:
            return self._network(request, network[1])
        if machine is None:
            return _failure(404, "ResourceNotFound", f"The resource {request.path!r} was not found.")
        name, console = machine.groups()
        if name is None:
            return HttpAnswer(200, {"value": [_plain(vm) for vm in self.machines.values()]})
        if request.method == "PUT":
            return self._put(request.path, name, request.json())
        if name not in self.machines:
            return _failure(404, "ResourceNotFound", f"The Resource 'virtualMachines/{name}' was not found.")
        if console:
            return HttpAnswer(200, {"serialConsoleLogBlobUri": f"{self.url}/consoles/{name}"})
        return self._delete(name) if request.method == "DELETE" else HttpAnswer(200, self.machines[name])

    def _network(self, request: Request, name: str) -> HttpAnswer:
        if request.method == "PUT":
            body = request.json()
            for subnet in typing.cast(Document, body["properties"])["subnets"]:
                subnet["id"] = f"{request.path}/subnets/{subnet['name']}"
            self.networks[name] = {**body, "id": request.path, "name": name}
            return HttpAnswer(201, self.networks[name])
        if name not in self.networks:
            return _failure(404, "ResourceNotFound", f"The Resource 'virtualNetworks/{name}' was not found.")
        return HttpAnswer(200, self.networks[name])

    def _put(self, path: str, name: str, body: Document) -> HttpAnswer:
        wrong = _wrong(body, self.networks)
        if wrong:
            return _failure(400, "InvalidParameter", wrong)
        if len(self.machines) >= self.quota:
            return _failure(
                409, "OperationNotAllowed", "Operation could not be completed as it results in exceeding quota."
            )
        vm = {**body, "id": path, "name": name, "type": "Microsoft.Compute/virtualMachines"}
        vm["properties"].update(provisioningState="Succeeded", timeCreated=datetime.now(UTC).isoformat())
        self.machines[name] = vm
        self.power(name, "running")
        # Taken out, as Azure never shows custom data again.
        script = b64decode(vm["properties"]["osProfile"].pop("customData")).decode()
        self._booted[name] = FakeMachine(script, lambda: self._halted(name))
        return HttpAnswer(201, vm)

    def _halted(self, name: str) -> None:
        with self._lock:
            if name in self.machines:
                self.power(name, "stopped")

    def _delete(self, name: str) -> HttpAnswer:
        del self.machines[name]
        machine = self._booted.get(name)
        if machine is not None:
            self._http_free(machine)
        return HttpAnswer(202, None)

    def _http_free(self, machine: FakeMachine) -> None:
        self._lock.release()  # a machine that is switching itself off wants it
        try:
            machine.end()
        finally:
            self._lock.acquire()


def _plain(vm: Document) -> Document:
    """Return a machine as lists show it: without its instance view."""
    return {**vm, "properties": {key: value for key, value in vm["properties"].items() if key != "instanceView"}}


def _failure(code: int, reason: str, message: str) -> HttpAnswer:
    return HttpAnswer(code, {"error": {"code": reason, "message": message}})


def _wrong(body: Document, networks: Document) -> str:
    """Return the fault for which Azure would refuse a virtual machine; empty where there is none."""
    from azure.mgmt.compute import types as published

    missing = [key for key in _REQUIRED if key not in body.get("properties", {})]
    if "location" not in body or missing:
        return f"Required parameter {', '.join(missing) or 'location'} is missing (null)."
    subnets = {subnet["id"] for network in networks.values() for subnet in network["properties"]["subnets"]}
    for interface in body["properties"]["networkProfile"]["networkInterfaceConfigurations"]:
        for address in interface["properties"]["ipConfigurations"]:
            if networks and address["properties"]["subnet"]["id"] not in subnets:
                return f"Subnet {address['properties']['subnet']['id']} was not found."
    return _unknown_field(body, published.VirtualMachine, "")


def _unknown_field(item: object, schema: Any, path: str) -> str:
    """Return a field that the published schema does not know."""
    # "X | None" counts as X.
    options = typing.get_args(schema) if typing.get_origin(schema) in (typing.Union, types.UnionType) else (schema,)
    schema = next((option for option in options if option is not type(None)), schema)
    if isinstance(item, list) and typing.get_args(schema):
        found = (_unknown_field(one, typing.get_args(schema)[0], f"{path}[{i}]") for i, one in enumerate(item))
        return next(filter(None, found), "")
    if not isinstance(item, dict) or not typing.is_typeddict(schema):
        return ""
    from azure.mgmt.compute import models, types as published

    known = typing.get_type_hints(schema, globalns={**vars(models), **vars(published)})
    for key, value in item.items():
        wrong = _unknown_field(value, known[key], f"{path}.{key}") if key in known else f"unknown field {path}.{key}"
        if wrong:
            return wrong
    return ""

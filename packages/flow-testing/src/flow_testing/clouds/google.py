"""Google's Compute Engine for one project, over HTTP, with instances that really run their startup scripts.

Bodies are checked against the API's published discovery document, which the official client brings along; calls must
carry the token that the key's own token address gave.
"""

from __future__ import annotations

import json
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any

from flow_testing.clouds.http_service import HttpAnswer, Request, ServedFake
from flow_testing.clouds.machine import FakeMachine

Document = dict[str, Any]  # JSON of the API
_PROJECT = "my-project"
_ZONES = ("us-central1-a", "us-central1-b")
_INSTANCE = re.compile(rf"/projects/{_PROJECT}/zones/([^/]+)/instances(?:/([^/]+)(/serialPort)?)?")
# Lower case only, as Google wants labels.
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")


class FakeGoogle(ServedFake):
    """A project with two zones and one image. ``instances`` has the descriptions by (zone, name)."""

    def __init__(self) -> None:
        self.instances: dict[tuple[str, str], Document] = {}
        self.full_zones: set[str] = set()
        self.operation_error: Document | None = None
        self._machines: dict[tuple[str, str], FakeMachine] = {}
        self._operations: dict[str, Document] = {}
        self._token = secrets.token_hex(8)
        self._lock = RLock()
        super().__init__()

    def write_key(self, folder: Path) -> str:
        """Write the key of a service account, and return its path."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key = {"type": "service_account", "project_id": _PROJECT, "private_key_id": "1", "private_key": pem.decode()}
        key.update(client_email="flow@my-project.iam.gserviceaccount.com", token_uri=f"{self.url}/token")
        path = folder / "key.json"
        path.write_text(json.dumps(key))
        return str(path)

    def _end(self) -> None:
        for machine in self._machines.values():
            machine.end()

    def _answer(self, request: Request) -> HttpAnswer:
        if request.path == "/token":
            # The login of a service account: a signed assertion for a token. The signature itself is not checked.
            if b"grant_type=urn" not in request.body or b"assertion=" not in request.body:
                return HttpAnswer(400, {"error": "invalid_grant"})
            return HttpAnswer(200, {"access_token": self._token, "expires_in": 3600, "token_type": "Bearer"})
        if {key.lower(): value for key, value in request.headers.items()}.get(
            "authorization"
        ) != f"Bearer {self._token}":
            return _failure(401, "Request had invalid authentication credentials.")
        path = request.path.removeprefix("/compute/v1")
        with self._lock:
            return self._route(request, path)

    def _route(self, request: Request, path: str) -> HttpAnswer:
        if path == f"/projects/{_PROJECT}/zones":
            zones = [{"name": zone, "region": f"{self.url}/regions/us-central1"} for zone in _ZONES]
            return HttpAnswer(200, {"items": zones})
        if path == "/projects/debian-cloud/global/images/family/debian-12":
            return HttpAnswer(200, {"name": "debian-12", "selfLink": "projects/debian-cloud/global/images/debian-12"})
        if path == f"/projects/{_PROJECT}/aggregated/instances":
            return self._list(request)
        if "/operations/" in path:
            return HttpAnswer(200, self._operations[path.rsplit("/", 1)[1]])
        found = _INSTANCE.fullmatch(path)
        if found is None:
            return _failure(404, f"The resource {path!r} was not found")
        zone, name, console = found.groups()
        if request.method == "POST" and name is None:
            return self._insert(zone, request.json())
        if (zone, name) not in self.instances:
            return _failure(404, f"The resource 'instances/{name}' was not found")
        if console:
            return self._console(zone, name)
        return self._delete(zone, name) if request.method == "DELETE" else HttpAnswer(200, self.instances[zone, name])

    def _list(self, request: Request) -> HttpAnswer:
        label = re.fullmatch(r"labels\.([a-z-]+):\*", request.query.get("filter", ""))
        items: dict[str, Document] = {f"zones/{zone}": {"instances": []} for zone in _ZONES}
        for (zone, _), instance in self.instances.items():
            if label is None or label[1] in instance.get("labels", {}):
                items[f"zones/{zone}"]["instances"].append(instance)
        return HttpAnswer(200, {"kind": "compute#instanceAggregatedList", "items": items})

    def _insert(self, zone: str, body: Document) -> HttpAnswer:
        wrong = _wrong(body)
        if wrong:
            return _failure(400, f"Invalid value for field {wrong}")
        if (zone, body["name"]) in self.instances:
            return _failure(409, f"The resource 'instances/{body['name']}' already exists")
        error = self.operation_error
        if zone in self.full_zones:
            error = {
                "code": "ZONE_RESOURCE_POOL_EXHAUSTED",
                "message": f"The zone {zone} does not have enough resources",
            }
        if error is None:
            self._boot(zone, body)
        return self._operation(error)

    def _boot(self, zone: str, body: Document) -> None:
        now = datetime.now(UTC).isoformat()
        network = {"networkIP": "10.128.0.2", "accessConfigs": [{"natIP": "203.0.113.7"}]}
        instance = {**body, "zone": f"{self.url}/zones/{zone}", "status": "RUNNING", "lastStartTimestamp": now}
        instance["networkInterfaces"] = [network]
        self.instances[zone, body["name"]] = instance
        script = next(item["value"] for item in body["metadata"]["items"] if item["key"] == "startup-script")
        self._machines[zone, body["name"]] = FakeMachine(script, lambda: instance.update(status="TERMINATED"))

    def _console(self, zone: str, name: str) -> HttpAnswer:
        # Google forgets the console of an instance that is off.
        if self.instances[zone, name]["status"] != "RUNNING":
            return _failure(400, f"The resource 'instances/{name}' is not ready")
        machine = self._machines.get((zone, name))
        return HttpAnswer(200, {"contents": machine.console if machine else "", "start": "0", "next": "1"})

    def _delete(self, zone: str, name: str) -> HttpAnswer:
        del self.instances[zone, name]
        machine = self._machines.get((zone, name))
        if machine is not None:
            machine.end()
        return self._operation(None)

    def _operation(self, error: Document | None) -> HttpAnswer:
        name = f"operation-{len(self._operations)}"
        done: Document = {"name": name, "status": "DONE", "kind": "compute#operation"}
        if error is not None:
            done["error"] = {"errors": [error]}
        self._operations[name] = done
        # Never done at once: the caller has to ask for the operation, as it has to ask Google.
        return HttpAnswer(200, {"name": name, "status": "RUNNING", "kind": "compute#operation"})


def _failure(code: int, message: str) -> HttpAnswer:
    return HttpAnswer(code, {"error": {"code": code, "message": message, "errors": [{"message": message}]}})


def _wrong(body: Document) -> str:
    """Return the field of an instance that Google would not take."""
    for key, value in body.get("labels", {}).items():
        if not _LABEL.fullmatch(key) or not _LABEL.fullmatch(value):
            return f"labels: {key}={value}"
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", str(body.get("name"))):
        return f"name: {body.get('name')!r}"
    return _unknown_field(body, "Instance", "instance")


def _unknown_field(item: object, schema: str, path: str) -> str:
    return _mismatch(item, _schemas()[schema], path)


def _mismatch(item: object, schema: Document, path: str) -> str:
    if "$ref" in schema:
        schema = _schemas()[schema["$ref"]]
    kind = schema.get("type")
    if kind == "array" and isinstance(item, list):
        return next(filter(None, (_mismatch(one, schema["items"], f"{path}[{i}]") for i, one in enumerate(item))), "")
    if kind == "object" and isinstance(item, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        fields = ((key, value, known.get(key, others)) for key, value in item.items())
        found = (_mismatch(v, s, f"{path}.{k}") if s else f"{path}.{k}: unknown" for k, v, s in fields)
        return next(filter(None, found), "")
    types: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "boolean": (bool,),
        "integer": (int,),
        "number": (int, float),
    }
    right = isinstance(item, types.get(str(kind), (object,)))
    allowed = schema.get("enum", [item])
    return "" if right and item in allowed else f"{path}: {item!r}"


def _schemas() -> dict[str, Document]:
    from googleapiclient import discovery_cache

    document = Path(str(discovery_cache.__file__)).parent / "documents" / "compute.v1.json"
    if not _LOADED:
        _LOADED.update(json.loads(document.read_text())["schemas"])
    return _LOADED


_LOADED: dict[str, Document] = {}

"""An OpenStack cloud for one project, over HTTP: login, images, flavours, networks, and servers that really boot.

Bodies are checked against what the compute API publishes for ``POST /servers``.
"""

from __future__ import annotations

import re
import secrets
import uuid
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import Any, cast

from flow_testing.clouds.http_service import HttpAnswer, Request, ServedFake
from flow_testing.clouds.machine import FakeMachine

Document = dict[str, Any]  # JSON of the APIs
_SERVER = re.compile(r"/compute/v2\.1/servers(?:/([^/]+)(/action)?)?")
# The published schema has no additional properties: a field that is misspelt is refused here, too.
_SERVER_FIELDS = frozenset(
    {
        *("name", "imageRef", "flavorRef", "networks", "user_data", "metadata", "key_name", "security_groups"),
        *("min_count", "max_count", "availability_zone", "block_device_mapping_v2", "config_drive", "tags", "hostname"),
        *("description", "adminPass", "accessIPv4", "accessIPv6", "personality", "OS-DCF:diskConfig"),
    }
)
_IDS = {"debian-12": "image-1", "m3.small": "flavor-1", "private": "network-1"}


class FakeOpenStack(ServedFake):
    """A cloud with the image ``debian-12``, the flavour ``m3.small`` and the network ``private``."""

    def __init__(self) -> None:
        self.servers: dict[str, Document] = {}
        self.quota = 100
        self.host_fault = ""
        """Why servers cannot be built, if they cannot."""
        self._booted: dict[str, FakeMachine] = {}
        self._token = secrets.token_hex(8)
        self._password = secrets.token_hex(4)
        self._lock = RLock()
        super().__init__()

    def write_clouds(self, folder: Path, password: str | None = None) -> Path:
        """Write a ``clouds.yaml`` with the cloud ``fake``, and return its path."""
        auth = {
            "auth_url": f"{self.url}/identity/v3",
            "username": "flow",
            "password": password or self._password,
            "project_name": "project",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
        lines = ["clouds:", "  fake:", "    region_name: RegionOne", "    auth:"]
        path = folder / "clouds.yaml"
        path.write_text("\n".join([*lines, *(f"      {key}: '{value}'" for key, value in auth.items())]) + "\n")
        return path

    def _end(self) -> None:
        for machine in self._booted.values():
            machine.end()

    def _answer(self, request: Request) -> HttpAnswer:
        path = request.path.rstrip("/")
        if path == "/identity/v3/auth/tokens":
            return self._login(request.json())
        # Versions are asked for before the login, so without a token.
        if path in ("/identity/v3", "/compute/v2.1", "/image/v2", "/network/v2.0", "/image", "/compute", "/network"):
            return HttpAnswer(200, self._versions(path))
        headers = {key.lower(): value for key, value in request.headers.items()}
        if headers.get("x-auth-token") != self._token:
            return HttpAnswer(
                401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}
            )
        with self._lock:
            return self._route(request, path)

    def _route(self, request: Request, path: str) -> HttpAnswer:
        for prefix, many, one in (
            ("/image/v2/images", "images", None),
            ("/compute/v2.1/flavors", "flavors", "flavor"),
            ("/network/v2.0/networks", "networks", "network"),
        ):
            if path.startswith(prefix):
                return self._look_up(request, path.removeprefix(prefix).strip("/"), many, one)
        if path == "/compute/v2.1/servers/detail":
            return HttpAnswer(200, {"servers": list(self.servers.values())})
        found = _SERVER.fullmatch(path)
        if found is None:
            return _failure(404, f"The resource {path} could not be found.")
        server_id, action = found.groups()
        if server_id is None:
            return self._create(cast(Document, request.json()["server"]))
        if server_id not in self.servers:
            return _failure(404, f"Instance {server_id} could not be found.")
        if action:
            machine = self._booted.get(server_id)
            return HttpAnswer(200, {"output": machine.console if machine else ""})
        return (
            self._delete(server_id)
            if request.method == "DELETE"
            else HttpAnswer(200, {"server": self.servers[server_id]})
        )

    def _look_up(self, request: Request, rest: str, many: str, one: str | None) -> HttpAnswer:
        kind = many.removesuffix("s")
        known = {name: {"id": key, "name": name} for name, key in _IDS.items() if key.startswith(kind)}
        if rest in ("", "detail"):
            wanted = request.query.get("name")
            return HttpAnswer(200, {many: [thing for name, thing in known.items() if wanted in (None, name)]})
        thing = next((thing for thing in known.values() if thing["id"] == rest), None)
        if thing is None:
            return _failure(404, f"{kind} {rest} could not be found.")
        return HttpAnswer(200, {one: thing} if one else thing)

    def _create(self, server: Document) -> HttpAnswer:
        wrong = _wrong(server)
        if wrong:
            return _failure(400, f"Invalid input: {wrong}")
        if len(self.servers) >= self.quota:
            return _failure(403, "Quota exceeded for instances: Requested 1, but already used all.")
        server_id = str(uuid.uuid4())
        made = {"id": server_id, "name": server["name"], "metadata": server["metadata"], "asked": server}
        # OpenStack takes the request and fails later: the server exists, in the state ERROR.
        if self.host_fault:
            made.update(status="ERROR", fault={"code": 500, "message": self.host_fault})
        else:
            made.update(status="ACTIVE", addresses={"private": [{"addr": "10.0.0.5", "version": 4}]})
            # Without a zone, as OpenStack writes it.
            made["OS-SRV-USG:launched_at"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000000")
            script = b64decode(server["user_data"]).decode()
            self._booted[server_id] = FakeMachine(script, lambda: made.update(status="SHUTOFF"))
        self.servers[server_id] = made
        # Only the id and a password: what a server has is known by asking for it.
        return HttpAnswer(202, {"server": {"id": server_id, "links": [], "adminPass": "x"}})

    def _delete(self, server_id: str) -> HttpAnswer:
        del self.servers[server_id]
        machine = self._booted.get(server_id)
        if machine is not None:
            machine.end()
        return HttpAnswer(204, None)

    def _login(self, body: Document) -> HttpAnswer:
        user = body["auth"]["identity"]["password"]["user"]
        if user["password"] != self._password:
            return HttpAnswer(
                401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}
            )
        services = (
            ("compute", "/compute/v2.1"),
            ("image", "/image"),
            ("network", "/network"),
            ("identity", "/identity/v3"),
        )
        catalog = [
            {
                "type": kind,
                "name": kind,
                "id": kind,
                "endpoints": [
                    {
                        "interface": "public",
                        "region": "RegionOne",
                        "region_id": "RegionOne",
                        "url": f"{self.url}{path}",
                        "id": kind,
                    }
                ],
            }
            for kind, path in services
        ]
        ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        named = {"id": "1", "name": "flow", "domain": {"id": "default", "name": "Default"}}
        token: Document = {"methods": ["password"], "expires_at": ends, "issued_at": ends, "catalog": catalog}
        token.update(user=named, project={**named, "name": "project"}, roles=[])
        return HttpAnswer(201, {"token": token}, headers={"X-Subject-Token": self._token})

    def _versions(self, path: str) -> Document:
        service, _, _ = path.strip("/").partition("/")
        versions = {"identity": "v3", "compute": "v2.1", "image": "v2", "network": "v2.0"}
        name = versions[service]
        found: Document = {
            "id": {"identity": "v3.14", "image": "v2.9"}.get(service, name),
            "status": "CURRENT",
            "links": [{"rel": "self", "href": f"{self.url}/{service}/{name}/"}],
        }
        if service == "compute":
            found.update(version="2.90", min_version="2.1")
        return {"version": found} if path.endswith(name) else {"versions": [found]}


def _failure(code: int, message: str) -> HttpAnswer:
    kind = {400: "badRequest", 403: "forbidden", 404: "itemNotFound"}[code]
    return HttpAnswer(code, {kind: {"code": code, "message": message}})


def _wrong(server: Document) -> str:
    """Return the fault for which the compute API would refuse a server; empty where there is none."""
    unknown = sorted(server.keys() - _SERVER_FIELDS)
    if unknown:
        return f"Additional properties are not allowed ({unknown[0]!r} was unexpected)"
    missing = [key for key in ("name", "flavorRef", "networks") if key not in server]
    if missing:
        return f"{missing[0]!r} is a required property"
    if server["imageRef"] not in _IDS.values() or server["flavorRef"] not in _IDS.values():
        return "image or flavor not found"
    networks = server["networks"]
    if networks not in ("auto", "none") and [network.get("uuid") for network in networks] != ["network-1"]:
        return f"{networks!r} is not valid"
    # Counted in base64, as the API does.
    if len(server.get("user_data", "")) > 65535:
        return "user_data is too long"
    return ""

"""A Kubernetes API server for pods and secrets that runs each pod's container for real, as a local process.

    with FakeKubernetes() as cluster:
        provider = KubernetesProvider("image", config_file=cluster.write_config(directory))

Needs Linux with ``unshare`` and ``setpriv``. Every call must carry the token of ``write_config``. Manifests with fields
that the official client does not know are refused, where that is installed. Images under ``missing/`` cannot be pulled,
pods that request more than ``cores`` cannot be scheduled.
"""

from __future__ import annotations

import copy
import json
import re
import secrets
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock, Thread
from typing import Any

from flow_testing.clouds import kubelet
from flow_testing.clouds.http_service import HttpAnswer, Request, ServedFake

Document = dict[str, Any]  # JSON of the API, checked by hand
_PATH = re.compile(r"/api/v1/namespaces/([^/]+)/(pods|secrets)(?:/([^/]+)(/log)?)?")
# Names and values of labels as Kubernetes checks them.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class FakeKubernetes(ServedFake):
    """One node that runs pods as processes. ``objects`` maps (kind, namespace, name) to documents.

    Args:
        cores: CPUs a pod may request.
    """

    def __init__(self, cores: float = 64) -> None:
        self.cores = cores
        self.objects: dict[tuple[str, str, str], Document] = {}
        self.requests: list[Request] = []
        self.forbidden: set[tuple[str, str]] = set()
        """Pairs of method and kind that are answered by 403, such as ``("GET", "secrets")``."""
        self.fail_next: list[int] = []
        """Codes that the next calls are answered by; 0: done, but the answer is lost."""
        self._token = secrets.token_hex(8)
        self._lock = RLock()
        self._folder = tempfile.TemporaryDirectory(prefix="fake-kubernetes-")
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._threads: list[Thread] = []
        super().__init__()

    def write_config(self, folder: Path) -> str:
        """Write a kube config and return its path."""
        named = [
            ("clusters", "cluster", {"server": self.url}),
            ("users", "user", {"token": self._token}),
            ("contexts", "context", {"cluster": "fake", "user": "fake"}),
        ]
        config: Document = {"apiVersion": "v1", "kind": "Config", "current-context": "fake"}
        config.update({many: [{"name": "fake", one: what}] for many, one, what in named})
        path = folder / "kube.json"
        path.write_text(json.dumps(config))
        return str(path)

    def add_volume(self, claim: str, folder: Path) -> None:
        """Bind a persistent volume claim to a directory of this machine."""
        (Path(self._folder.name) / f"claim-{claim}").symlink_to(folder)

    def names(self, kind: str) -> list[str]:
        """Return the names of all ``pods`` or ``secrets``."""
        with self._lock:
            return [name for found, _, name in self.objects if found == kind]

    def wait_until_empty(self, timeout_s: float) -> None:
        """Wait until there are no pods and no secrets; AssertionError names those that are still there."""
        deadline = time.monotonic() + timeout_s
        while self.objects and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not self.objects, f"still there: {sorted(self.objects)}"

    def put(self, kind: str, name: str, labels: dict[str, str], namespace: str = "default") -> None:
        """Add an object of another user to the cluster."""
        metadata = {"name": name, "namespace": namespace, "labels": labels, "uid": str(uuid.uuid4())}
        with self._lock:
            self.objects[kind, namespace, name] = {"metadata": metadata, "status": {"phase": "Running"}, "spec": {}}

    # -- the API

    def _end(self) -> None:
        with self._lock:
            running = list(self._running.values())
        for process in running:
            kubelet.end(process, 0)
        for thread in self._threads:
            thread.join(15)
        self._folder.cleanup()

    def _answer(self, request: Request) -> HttpAnswer:
        self.requests.append(request)
        if request.headers.get("authorization", request.headers.get("Authorization")) != f"Bearer {self._token}":
            return _failure(401, "Unauthorized", "Unauthorized")
        # 0 is none that is answered at once: the call is carried out first, and its answer lost below.
        code = self.fail_next.pop(0) if self.fail_next else None
        if code:
            return _failure(code, "ServiceUnavailable", "the server is currently unable to handle the request")
        path = _PATH.fullmatch(request.path)
        if path is None:
            return _failure(404, "NotFound", "the server could not find the requested resource")
        namespace, kind, name, log = path.groups()
        if (request.method, kind) in self.forbidden:
            return _failure(403, "Forbidden", f'{kind} is forbidden: User "fake" cannot do that')
        with self._lock:
            said = self._route(request, kind, namespace, name, bool(log))
        return _failure(500, "InternalError", "the answer was lost") if code == 0 else said

    def _route(self, request: Request, kind: str, namespace: str, name: str | None, log: bool) -> HttpAnswer:
        if name is None:
            routes: dict[str, Callable[[], HttpAnswer]] = {
                "GET": lambda: self._list(kind, namespace, request),
                "POST": lambda: self._create(kind, namespace, request.json()),
            }
            return routes[request.method]()
        found = self.objects.get((kind, namespace, name))
        if found is None:
            return _failure(404, "NotFound", f'{kind} "{name}" not found')
        if log:
            return self._log(found, request)
        return (
            self._delete(kind, namespace, found, request.json())
            if request.method == "DELETE"
            else HttpAnswer(200, found)
        )

    def _list(self, kind: str, namespace: str, request: Request) -> HttpAnswer:
        found = [
            # A copy under the lock: the answer is made into JSON later, while the pod's thread may change the
            # document.
            copy.deepcopy(item)
            for (one, space, _), item in self.objects.items()
            if one == kind and space == namespace and _selected(request.query.get("labelSelector", ""), item)
        ]
        # The token of a page is simply where the next one starts.
        start, limit = int(request.query.get("continue", "0")), int(request.query.get("limit", "0")) or len(found)
        more = str(start + limit) if start + limit < len(found) else ""
        metadata = {"resourceVersion": "1", "continue": more}
        return HttpAnswer(
            200, {"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": found[start : start + limit]}
        )

    def _create(self, kind: str, namespace: str, item: Document) -> HttpAnswer:
        name = str(item["metadata"].get("name", ""))
        wrong = _wrong(kind, name, item)
        if wrong:
            return _failure(422, "Invalid", f'{item.get("kind")} "{name}" is invalid: {wrong}')
        if (kind, namespace, name) in self.objects:
            return _failure(409, "AlreadyExists", f'{kind} "{name}" already exists')
        item["metadata"].update(namespace=namespace, uid=str(uuid.uuid4()), creationTimestamp=_now())
        self.objects[kind, namespace, name] = item
        if kind == "pods":
            item["status"] = {"phase": "Pending"}
            self._schedule(namespace, item)
        return HttpAnswer(201, item)

    def _delete(self, kind: str, namespace: str, item: Document, options: Document) -> HttpAnswer:
        uid, name = item["metadata"].get("uid"), item["metadata"]["name"]
        wanted = (options.get("preconditions") or {}).get("uid", uid)
        if wanted != uid:
            return _failure(409, "Conflict", f"the UID in the precondition ({wanted}) does not match {uid}")
        process = self._running.get(str(uid))
        if process is None:
            del self.objects[kind, namespace, name]
        # A second deletion of a pod that is ending changes nothing, as in a cluster.
        elif "deletionTimestamp" not in item["metadata"]:
            item["metadata"]["deletionTimestamp"] = _now()
            grace = float(options.get("gracePeriodSeconds", item["spec"].get("terminationGracePeriodSeconds", 30)))
            self._thread(kubelet.end, process, grace)
        return HttpAnswer(200, item)

    def _log(self, item: Document, request: Request) -> HttpAnswer:
        path = self._log_path(item)
        if not path.exists():
            return _failure(400, "BadRequest", f'container in pod "{item["metadata"]["name"]}" is waiting to start')
        lines = path.read_bytes().splitlines(keepends=True)
        return HttpAnswer(200, b"".join(lines[-int(request.query.get("tailLines", len(lines) or 1)) :]), "text/plain")

    # -- the node

    def _schedule(self, namespace: str, item: Document) -> None:
        container = item["spec"]["containers"][0]
        if float(container["resources"]["requests"]["cpu"]) > self.cores:
            why = {"reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}
            item["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", **why}]
            return
        item["spec"]["nodeName"] = "node-0"
        item["status"]["startTime"] = _now()
        if container["image"].startswith("missing/"):
            why = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{container["image"]}"'}
            item["status"]["containerStatuses"] = [{"name": container["name"], "state": {"waiting": why}}]
            return
        self._thread(self._run, namespace, item)

    def _run(self, namespace: str, item: Document) -> None:
        uid, spec = item["metadata"]["uid"], item["spec"]
        container = spec["containers"][0]
        with self._lock:
            # Deleted before it has begun.
            if ("pods", namespace, item["metadata"]["name"]) not in self.objects:
                return
            process = kubelet.start(
                container, spec.get("securityContext") or {}, self._mounts(namespace, item), self._log_path(item)
            )
            self._running[uid] = process
            started = _now()
            item["status"].update(
                phase="Running", containerStatuses=[_container(container, {"running": {"startedAt": started}})]
            )
        late = False
        try:
            code = process.wait(spec.get("activeDeadlineSeconds"))
        except subprocess.TimeoutExpired:
            late = True
            kubelet.end(process, spec.get("terminationGracePeriodSeconds", 30))
            # Seconds; the container was killed, so this only collects it.
            code = process.wait(15)
        # What the container started ends with it, as with the end of a pid namespace.
        kubelet.sweep(process.pid)
        self._finished(namespace, item, 128 - code if code < 0 else code, started, late)

    def _finished(self, namespace: str, item: Document, code: int, started: str, late: bool) -> None:
        ended: Document = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
        ended.update(startedAt=started, finishedAt=_now())
        if code and item["spec"]["containers"][0].get("terminationMessagePolicy") == "FallbackToLogsOnError":
            # As many bytes as a kubelet takes from the log.
            ended["message"] = self._log_path(item).read_text(errors="replace")[-2048:]
        with self._lock:
            self._running.pop(item["metadata"]["uid"], None)
            item["status"]["containerStatuses"] = [_container(item["spec"]["containers"][0], {"terminated": ended})]
            item["status"]["phase"] = "Succeeded" if code == 0 and not late else "Failed"
            if late:
                item["status"].update(
                    reason="DeadlineExceeded", message="Pod was active on the node longer than the specified deadline"
                )
            if "deletionTimestamp" in item["metadata"]:
                self.objects.pop(("pods", namespace, item["metadata"]["name"]), None)

    def _mounts(self, namespace: str, item: Document) -> list[kubelet.Mount]:
        volumes = {volume["name"]: volume for volume in item["spec"].get("volumes") or []}
        pod = Path(self._folder.name) / f"pod-{item['metadata']['uid']}"
        mounts = []
        for mount in item["spec"]["containers"][0].get("volumeMounts") or []:
            volume = volumes[mount["name"]]
            source = pod / mount["name"]
            if "persistentVolumeClaim" in volume:
                source = Path(self._folder.name) / f"claim-{volume['persistentVolumeClaim']['claimName']}"
            elif "secret" in volume:
                data = self.objects["secrets", namespace, volume["secret"]["secretName"]]["data"]
                kubelet.write_secret(source, data, volume["secret"].get("defaultMode", 0o644))
            else:
                source.mkdir(parents=True)
                # An emptyDir may be written to by whatever user the container has.
                source.chmod(0o777)
            mounts.append(kubelet.Mount(source, mount["mountPath"]))
        if pod.exists():
            pod.chmod(0o755)
        # Temporary directories are closed to others, and the container may run as another user.
        Path(self._folder.name).chmod(0o755)
        return mounts

    def _log_path(self, item: Document) -> Path:
        return Path(self._folder.name) / f"log-{item['metadata'].get('uid')}"

    def _thread(self, target: Callable[..., None], *arguments: object) -> None:
        thread = Thread(target=target, args=arguments, name="fake-kubelet", daemon=True)
        self._threads.append(thread)
        thread.start()


def _container(container: Document, state: Document) -> Document:
    return {"name": container["name"], "image": container["image"], "state": state}


def _failure(code: int, reason: str, message: str) -> HttpAnswer:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
    return HttpAnswer(code, status)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _wrong(kind: str, name: str, item: Document) -> str:
    """Return the fault for which a real server would refuse an object; empty where there is none."""
    if not _NAME.fullmatch(name) or len(name) > 253:
        return f"metadata.name: Invalid value: {name!r}: a lowercase RFC 1123 subdomain must consist of ..."
    bad = [value for value in (item["metadata"].get("labels") or {}).values() if not _LABEL.fullmatch(value)]
    if bad:
        return f"metadata.labels: Invalid value: {bad[0]!r}"
    if kind == "pods" and not item["spec"].get("containers"):
        return "spec.containers: Required value"
    with suppress(ImportError):
        return _unknown_field(item, "V1Pod" if kind == "pods" else "V1Secret", "")
    return ""


def _unknown_field(item: object, model: str, path: str) -> str:
    """Return a field that the published schema, as the official client has it, does not know."""
    from kubernetes.client import models

    if model.startswith(("list[", "List[")) and isinstance(item, list):
        found = (_unknown_field(one, model[5:-1], f"{path}[{i}]") for i, one in enumerate(item))
        return next(filter(None, found), "")
    kind = getattr(models, model, None)
    if kind is None or not isinstance(item, dict):
        return ""
    types = {kind.attribute_map[field]: what for field, what in kind.openapi_types.items()}
    for key, value in item.items():
        if key not in types:
            return f"unknown field {path}.{key}"
        wrong = _unknown_field(value, types[key], f"{path}.{key}")
        if wrong:
            return wrong
    return ""


def _selected(selector: str, item: Document) -> bool:
    labels = item["metadata"].get("labels") or {}
    return all(_carries(labels, part.strip()) for part in re.findall(r"[^,(]+(?:\([^)]*\))?", selector))


def _carries(labels: Document, part: str) -> bool:
    """Return whether labels meet ``key``, ``key=value`` or ``key in (a,b)``."""
    among = re.fullmatch(r"(\S+) in \(([^)]*)\)", part)
    if among:
        return labels.get(among[1]) in among[2].split(",")
    key, equals, value = part.partition("=")
    return labels.get(key) == value.lstrip("=") if equals else key in labels

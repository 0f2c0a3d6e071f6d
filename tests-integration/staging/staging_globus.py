"""A local HTTP server that speaks as much of the Globus Transfer and Auth APIs as transfers need, and moves files."""

from __future__ import annotations

import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Task:
    document: dict
    work: dict
    looks: int = 0
    events: list[dict] = field(default_factory=list)

    def note(self, details: str, code: str = "ERROR") -> None:
        self.events.insert(
            0, {"DATA_TYPE": "event", "is_error": True, "code": code, "details": details, "time": len(self.events)}
        )


class Globus(ThreadingHTTPServer):
    """``roots`` maps endpoints to directories; ``on_look`` is called with a task each time someone looks at it and
    may change it, before it is done by itself; ``refuse`` maps a path's ending to (status, code, how often)."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.roots: dict[str, Path] = {}
        self.root = root
        self.tasks: dict[str, Task] = {}
        self.submissions: dict[str, str] = {}
        self.seen: list[tuple[str, str]] = []
        self.on_look: Callable[[Task], bool] = lambda task: False
        self.refuse: dict[str, list] = {}
        self.good = {"at-0"}
        self.refresh_tokens = {"rt-0"}
        self.renames_over = True
        self.lost_renames = 0
        self.codes = {"the-code"}
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def endpoint(self, name: str) -> tuple[str, Path]:
        made = str(uuid.uuid4())
        self.roots[made] = self.root / name
        self.roots[made].mkdir()
        return made, self.roots[made]

    def transfers(self) -> list[Task]:
        return [task for task in list(self.tasks.values()) if task.work["DATA_TYPE"] == "transfer"]

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(5)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    server: Globus

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, document: dict, status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def error(self, status: int, code: str, message: str) -> None:
        self.answer(
            {"DATA_TYPE": "error", "code": code, "message": message, "request_id": "r", "resource": self.path}, status
        )

    def refused(self, path: str) -> bool:
        with self.server.lock:
            self.server.seen.append((self.command, path))
            for ending, refusal in self.server.refuse.items():
                if path.endswith(ending) and refusal[2] > 0:
                    refusal[2] -= 1
                    self.error(refusal[0], refusal[1], f"{refusal[1]} for the test")
                    return True
        if "oauth2" in path:
            return False
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in self.server.good:
            self.error(401, "AuthenticationFailed", "token is not active")
            return True
        return False

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].rstrip("/")
        if self.refused(path):
            return
        if path.endswith("/submission_id"):
            self.answer({"DATA_TYPE": "submission_id", "value": str(uuid.uuid4())})
            return
        parts = path.split("/task/")
        task = self.server.tasks.get(parts[-1].split("/")[0])
        if task is None:
            self.error(404, "TaskNotFound", "no such task")
        elif path.endswith("/event_list"):
            self.answer({"DATA_TYPE": "event_list", "DATA": task.events, "offset": 0, "limit": 10, "total": 1})
        else:
            self.look(task)
            self.answer(task.document)

    def look(self, task: Task) -> None:
        with self.server.lock:
            task.looks += 1
            if task.document["status"] != "ACTIVE" or self.server.on_look(task):
                return
            try:
                self.work(task.work)
                task.document["status"] = "SUCCEEDED"
            except OSError as error:
                task.document.update(status="FAILED", nice_status="FILE_NOT_FOUND")
                task.document["fatal_error"] = {"code": "FILE_NOT_FOUND", "description": "No such file or directory"}
                task.note(f"No such file or directory: {error.filename}")

    def work(self, work: dict) -> None:
        if work["DATA_TYPE"] == "delete":
            for item in work["DATA"]:
                gone = self.at(work["endpoint"], item["path"])
                if gone.is_dir() and work.get("recursive"):
                    shutil.rmtree(gone)
                else:
                    gone.unlink(missing_ok=True)
            return
        for item in work["DATA"]:
            source = self.at(work["source_endpoint"], item["source_path"])
            if not source.exists():
                raise FileNotFoundError(2, "No such file or directory", item["source_path"])
            target = self.at(work["destination_endpoint"], item["destination_path"])
            target.parent.mkdir(parents=True, exist_ok=True)
            if item.get("recursive"):
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copy(source, target)

    def at(self, endpoint: str, path: str) -> Path:
        return self.server.roots[endpoint] / path.lstrip("/")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        path = self.path.partition("?")[0].rstrip("/")
        if self.refused(path):
            return
        if path.endswith("/oauth2/token"):
            self.token(dict(pair.partition("=")[::2] for pair in body.split("&")))
        elif path.endswith("/cancel"):
            task = self.server.tasks[path.split("/task/")[1].split("/")[0]]
            task.document["status"] = "FAILED"
            task.document["nice_status"] = "CANCELED"
            self.answer({"DATA_TYPE": "result", "code": "Canceled", "message": "done"})
        elif path.endswith("/rename"):
            self.rename(path.split("/endpoint/")[1].split("/")[0], json.loads(body))
        else:
            self.submit(json.loads(body))

    def token(self, form: dict[str, str]) -> None:
        with self.server.lock:
            code = form.get("grant_type") == "authorization_code" and form.get("code") in self.server.codes
            fresh = (
                form.get("grant_type") == "refresh_token" and form.get("refresh_token") in self.server.refresh_tokens
            )
            if not (code or fresh):
                self.answer({"error": "invalid_grant", "error_description": "not good any more"}, 400)
                return
            number = len(self.server.good)
            self.server.good.add(f"at-{number}")
            self.server.refresh_tokens.add(f"rt-{number}")
        self.answer(
            {
                "access_token": f"at-{number}",
                "refresh_token": f"rt-{number}",
                "expires_in": 172800,
                "resource_server": "transfer.api.globus.org",
                "token_type": "Bearer",
                "scope": "urn:globus:auth:scope:transfer.api.globus.org:all",
                "other_tokens": [],
            }
        )

    def submit(self, work: dict) -> None:
        with self.server.lock:
            task_id = self.server.submissions.setdefault(work["submission_id"], str(uuid.uuid4()))
            document = {"DATA_TYPE": "task", "task_id": task_id, "status": "ACTIVE", "nice_status": "OK"}
            self.server.tasks.setdefault(task_id, Task({**document, "is_paused": False}, work))
        self.answer({"DATA_TYPE": "transfer_result", "task_id": task_id, "code": "Accepted", "message": "ok"}, 202)

    def rename(self, endpoint: str, names: dict) -> None:
        old, new = self.at(endpoint, names["old_path"]), self.at(endpoint, names["new_path"])
        if not old.exists():
            self.error(404, "ClientError.NotFound", f"No such file or directory: {old.name}")
            return
        if new.exists() and not self.server.renames_over:
            self.error(502, "ExternalError.RenameFailed.Exists", "Path already exists")
            return
        old.rename(new)
        if self.server.lost_renames:
            self.server.lost_renames -= 1
            self.error(502, "ExternalError.ConnectFailed", "the endpoint hung up")
            return
        self.answer({"DATA_TYPE": "result", "code": "FileRenamed", "message": "done"})


def expired() -> int:
    return int(time.time()) - 100


def valid() -> int:
    return int(time.time()) + 100_000

"""The newest runs as metrics for Prometheus, and a small server that gives them."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sqlalchemy.engine import Connection

from flow_monitor.errors import MonitorError
from flow_monitor.queries import workflows
from flow_monitor.queries.database import Database

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NEWEST = 20


def render(connection: Connection, newest: int = _NEWEST) -> str:
    """Return metrics of the newest runs in the text format of Prometheus."""
    runs = workflows.page(connection, limit=newest).items
    families: dict[str, tuple[str, str, list[str]]] = {
        "flow_run_state": ("gauge", "1 for the state that the run is in", []),
        "flow_run_seconds": ("gauge", "How long the run took, or has gone on so far", []),
        "flow_tasks": ("gauge", "Tasks by app and state", []),
        "flow_app_run_seconds_total": ("counter", "Time that tries of the app ran", []),
        "flow_app_cpu_seconds_total": ("counter", "CPU time that tries of the app used, where measured", []),
        "flow_app_tries_total": ("counter", "Tries of the app that ended", []),
        "flow_events_lost_total": ("counter", "Events that are known to be missing", []),
    }
    for run in runs:
        about = {"run": run.run_id, "workflow": run.name}
        families["flow_run_state"][2].append(_line("flow_run_state", {**about, "state": run.state.value}, 1))
        families["flow_run_seconds"][2].append(_line("flow_run_seconds", about, (run.duration_ns or 0) / 1e9))
        families["flow_events_lost_total"][2].append(_line("flow_events_lost_total", about, run.events_lost))
        for app in workflows.apps(connection, run.run_id):
            of_app = {**about, "app": app.name}
            for state, tasks in sorted(app.tasks.items()):
                families["flow_tasks"][2].append(_line("flow_tasks", {**of_app, "state": state}, tasks))
            for name, value in (
                ("flow_app_run_seconds_total", app.run_time_sum_s),
                ("flow_app_cpu_seconds_total", app.cpu_s),
                ("flow_app_tries_total", app.tries),
            ):
                families[name][2].append(_line(name, of_app, value))
    return "".join(_families(families))


def server(database: Database, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server of ``/metrics``; ``serve_forever`` runs it. Raises OSError where the address is taken."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            if self.path.partition("?")[0] not in ("/", "/metrics"):
                self._answer(404, "there is only /metrics\n")
                return
            try:
                with database.connect() as connection:
                    self._answer(200, render(connection))
            except MonitorError as error:
                self._answer(503, f"{error}\n")

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # its name in http.server
            pass

    made = ThreadingHTTPServer((host, port), Handler)
    made.daemon_threads = True
    return made


def _families(families: dict[str, tuple[str, str, list[str]]]) -> Iterator[str]:
    for name, (kind, about, lines) in families.items():
        if lines:
            yield f"# HELP {name} {about}\n# TYPE {name} {kind}\n"
            yield from lines


def _line(name: str, labels: dict[str, str], value: float) -> str:
    said = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{said}}} {value}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

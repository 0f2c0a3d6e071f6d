"""The newest runs as metrics for Prometheus, and a small server that gives them."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sqlalchemy.engine import Connection

from flow_monitor.errors import MonitorError
from flow_monitor.queries import traffic, workflows
from flow_monitor.queries.database import Database
from flow_monitor.queries.records import Workflow

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NEWEST = 20

Seen = dict[str, tuple[int, dict[str, traffic.Traffic]]]
"""By run: its revision, and the traffic of its apps then."""


def render(connection: Connection, newest: int = _NEWEST, seen: Seen | None = None) -> str:
    """Return metrics of the newest runs in the text format of Prometheus.

    Args:
        seen: Kept from one call to the next, it saves summing the samples of runs that have not changed.
    """
    runs = workflows.page(connection, limit=newest).items
    families: dict[str, tuple[str, str, list[str]]] = {
        "flow_run_state": ("gauge", "1 for the state that the run is in", []),
        "flow_run_seconds": ("gauge", "How long the run took, or has gone on so far", []),
        "flow_tasks": ("gauge", "Tasks by app and state; launched ones may run for up to a second", []),
        "flow_app_run_seconds_total": ("counter", "Time that tries of the app ran", []),
        "flow_app_cpu_seconds_total": ("counter", "CPU time that tries of the app used, where measured", []),
        "flow_app_network_sent_bytes_total": ("counter", "Bytes that tries of the app sent, where sampled", []),
        "flow_app_network_received_bytes_total": ("counter", "Bytes that tries of the app received, where sampled", []),
        "flow_app_tries_total": ("counter", "Tries of the app that ended", []),
        "flow_events_lost_total": ("counter", "Events that are known to be missing", []),
    }
    for run in runs:
        about = {"run": run.run_id, "workflow": run.name}
        families["flow_run_state"][2].append(_line("flow_run_state", {**about, "state": run.state.value}, 1))
        families["flow_run_seconds"][2].append(_line("flow_run_seconds", about, (run.duration_ns or 0) / 1e9))
        families["flow_events_lost_total"][2].append(_line("flow_events_lost_total", about, run.events_lost))
        by_app = _traffic(connection, run, {} if seen is None else seen)
        for app in workflows.apps(connection, run.run_id):
            of_app = {**about, "app": app.name}
            for state, tasks in sorted(app.tasks.items()):
                families["flow_tasks"][2].append(_line("flow_tasks", {**of_app, "state": state}, tasks))
            sent, received = by_app.get(app.name, traffic.UNKNOWN)
            for name, value in (
                ("flow_app_run_seconds_total", app.run_time_sum_s),
                ("flow_app_cpu_seconds_total", app.cpu_s),
                ("flow_app_network_sent_bytes_total", sent),
                ("flow_app_network_received_bytes_total", received),
                ("flow_app_tries_total", app.tries),
            ):
                if value is None:
                    continue
                families[name][2].append(_line(name, of_app, value))
    return "".join(_families(families))


def server(database: Database, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server of ``/metrics``; ``serve_forever`` runs it. Raises OSError where the address is taken."""

    seen: Seen = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            if self.path.partition("?")[0] not in ("/", "/metrics"):
                self._answer(404, "there is only /metrics\n")
                return
            try:
                with database.connect() as connection:
                    self._answer(200, render(connection, seen=seen))
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


def _traffic(connection: Connection, run: Workflow, seen: Seen) -> dict[str, traffic.Traffic]:
    """Return the traffic of the apps of a run."""
    found = seen.get(run.run_id)
    if found is None or found[0] != run.revision:
        found = seen[run.run_id] = run.revision, traffic.of_apps(connection, run.run_id)
    return found[1]


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

"""The newest runs as metrics for Prometheus, and a small server that gives them."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from sqlalchemy.engine import Connection

from flow_monitor.access import knows, named_locally
from flow_monitor.errors import MonitorError
from flow_monitor.queries import traffic, workflows
from flow_monitor.queries.database import Database
from flow_monitor.queries.records import Workflow

_NEWEST = 20  # runs; older ones do not change, and each is a family of time series
_MOST_CONNECTIONS = 64  # connections, each with a thread; a Prometheus server needs one
_PATIENCE_S = 10
"""Seconds that a connection may say nothing before its thread is given back."""

Seen = dict[str, tuple[int, dict[str, traffic.Traffic]]]
"""Cache by run id: the revision of the run, and the traffic of its apps at that revision."""


def render(connection: Connection, newest: int = _NEWEST, seen: Seen | None = None, accept: str = "") -> str:
    """Return metrics of the newest runs in the text format of Prometheus, or in OpenMetrics.

    Args:
        seen: Kept from one call to the next, it saves summing the samples of runs that have not changed.
        accept: What the reader says that it reads: the header ``Accept`` of HTTP.
    """
    registry = CollectorRegistry()
    registry.register(RunCollector(connection, newest, seen))
    encode, _ = choose_encoder(accept)
    return encode(registry).decode()


class RunCollector(Collector):
    """Collects metrics of the newest runs from a database, for a registry of prometheus_client.

    Args:
        connection: Connection to read by, on the thread that collects.
        newest: Number of runs.
        seen: As for `render`.
    """

    def __init__(self, connection: Connection, newest: int = _NEWEST, seen: Seen | None = None) -> None:
        self._connection = connection
        self._newest = newest
        self._seen: Seen = {} if seen is None else seen

    def describe(self) -> Iterable[Metric]:
        """Name no metrics, so that registering reads no database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read the database; return each metric that has a value. Raises MonitorError where it cannot be read."""
        run_labels, app_labels = ("run", "workflow"), ("run", "workflow", "app")
        state = GaugeMetricFamily("flow_run_state", "1 for the state that the run is in", labels=(*run_labels, "state"))
        duration = GaugeMetricFamily(
            "flow_run_seconds", "How long the run took, or has gone on so far", labels=run_labels
        )
        lost = CounterMetricFamily("flow_events_lost", "Events that are known to be missing", labels=run_labels)
        tasks = GaugeMetricFamily(
            "flow_tasks",
            "Tasks by app and state; launched ones may run for up to a second",
            labels=(*app_labels, "state"),
        )
        run_time, cpu, sent, received, tries = of_apps = [
            CounterMetricFamily(name, documentation, labels=app_labels)
            for name, documentation in (
                ("flow_app_run_seconds", "Time that tries of the app ran"),
                ("flow_app_cpu_seconds", "CPU time that tries of the app used, where measured"),
                ("flow_app_network_sent_bytes", "Bytes that tries of the app sent, where sampled"),
                ("flow_app_network_received_bytes", "Bytes that tries of the app received, where sampled"),
                ("flow_app_tries", "Tries of the app that ended"),
            )
        ]
        for run in workflows.page(self._connection, limit=self._newest).items:
            about = (_printable(run.run_id), _printable(run.name))
            state.add_metric((*about, run.state.value), 1)
            duration.add_metric(about, (run.duration_ns or 0) / 1e9)
            lost.add_metric(about, run.events_lost)
            by_app = self._traffic(run)
            for app in workflows.apps(self._connection, run.run_id):
                of_app = (*about, _printable(app.name))
                for name, count in sorted(app.tasks.items()):
                    tasks.add_metric((*of_app, name), count)
                bytes_sent, bytes_received = by_app.get(app.name, traffic.UNKNOWN)
                for family, value in (
                    (run_time, app.run_time_sum_s),
                    (cpu, app.cpu_s),
                    (sent, bytes_sent),
                    (received, bytes_received),
                    (tries, app.tries),
                ):
                    # Absent, never 0: Prometheus would take it for a counter that begins.
                    if value is not None:
                        family.add_metric(of_app, value)
        yield from (family for family in (state, duration, tasks, *of_apps, lost) if family.samples)

    def _traffic(self, run: Workflow) -> dict[str, traffic.Traffic]:
        """Return the traffic of the apps of a run."""
        found = self._seen.get(run.run_id)
        # Summing samples reads all of them: done only when the run has changed.
        if found is None or found[0] != run.revision:
            found = self._seen[run.run_id] = run.revision, traffic.of_apps(self._connection, run.run_id)
        return found[1]


def _printable(text: str) -> str:
    """Return the text of a label; the format has no escapes for control characters, so these are replaced."""
    return "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text)


def server(database: Database, host: str, port: int, token: str | None) -> ThreadingHTTPServer:
    """Return a server of ``/metrics``; ``serve_forever`` runs it. Raises OSError where the address is taken.

    Args:
        token: Demanded as ``Authorization: Bearer`` or ``?token=``; None: whoever asks under a local name may look.
    """

    seen: Seen = {}

    class Handler(BaseHTTPRequestHandler):
        """Answers requests of one connection, each on the connection's thread."""

        timeout = _PATIENCE_S

        def do_GET(self) -> None:  # the name that http.server calls
            """Answer ``/metrics``, or with the status of what is wrong."""
            if not self._may_look():
                return
            if self.path.partition("?")[0] not in ("/", "/metrics"):
                self._answer(404, "there is only /metrics\n")
                return
            try:
                accept = self.headers.get("Accept", "")
                with database.connect() as connection:
                    text = render(connection, seen=seen, accept=accept)
                self._answer(200, text, choose_encoder(accept)[1])
            except MonitorError as error:
                self._answer(503, f"{error}\n")

        def _may_look(self) -> bool:
            if token is None:
                if not named_locally(self.headers.get("Host", "")):
                    self._answer(403, "ask under 127.0.0.1 or localhost\n")
                    return False
            elif not knows(
                token, self.headers.get("Authorization", ""), parse_qs(urlsplit(self.path).query).get("token", ())
            ):
                self._answer(401, "send the token as 'Authorization: Bearer TOKEN'\n")
                return False
            return True

        def _answer(self, status: int, text: str, content_type: str = "text/plain; charset=utf-8") -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # its name in http.server
            """Log nothing: a line for each request would fill the screen."""

    return _Server((host, port), Handler)


class _Server(ThreadingHTTPServer):
    """A server that connections which say little do not hold up: the oldest give way to new ones.

    A thread each, for as long as a stranger likes, would be all threads that there are.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._lock = threading.Lock()
        self._open: dict[int, socket.socket] = {}

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Serve a connection on a thread of its own."""
        assert isinstance(request, socket.socket)
        with self._lock:
            self._open[id(request)] = request
            if len(self._open) > _MOST_CONNECTIONS:
                oldest = self._open.pop(next(iter(self._open)))
                with suppress(OSError):  # it has just ended
                    # shutdown, not close: the thread that reads from it wakes, and closes it itself.
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing of connections that were closed by the other side: strangers would fill the screen."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # handed on

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Close a connection and forget it. Called on its own thread."""
        with self._lock:
            self._open.pop(id(request), None)
        super().shutdown_request(request)

"""A run as spans of OpenTelemetry: one for the run, one a task; needs ``flow-monitor[opentelemetry]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.engine import Connection

from flow_monitor.errors import MonitorError
from flow_monitor.queries import provenance, workflows

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import SpanContext, Tracer

_FAILED = frozenset({"failed", "dep_fail", "cancelled"})


def export_spans(connection: Connection, run_id: str, exporter: SpanExporter) -> int:
    """Give a run to an exporter of spans, tasks linked to those they depend on; return the number of spans.

    Raises:
        NoSuchRecord: there is no such run.
        MonitorError: opentelemetry-sdk is not installed.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise MonitorError("spans need the SDK of OpenTelemetry: install flow-monitor[opentelemetry]") from error
    run = workflows.one(connection, run_id)
    about = {"service.name": run.name, "service.version": run.flow_version, "host.name": run.host}
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=1 << 16))
    tracer = provider.get_tracer("flow_monitor")
    end = run.time_completed or run.time_last_event
    whole = tracer.start_span(run.name, start_time=run.time_began, attributes={"flow.run_id": run_id})
    context = trace.set_span_in_context(whole)
    seen: dict[int, SpanContext] = {}
    for number, task in enumerate(provenance.tasks(connection, run_id), 1):
        seen[task.task_id] = _task(tracer, context, task, seen, end)
        # Before the queue (65,536 spans) is full: the processor would drop spans without an error.
        if number % 20_000 == 0:
            provider.force_flush()
    whole.end(end)
    provider.shutdown()
    return len(seen) + 1


def _task(
    tracer: Tracer, context: Context, task: provenance.TaskRecord, seen: dict[int, SpanContext], run_end: int | None
) -> SpanContext:
    from opentelemetry.trace import Link, Status, StatusCode

    attributes: dict[str, str | int | float] = {
        "flow.task_id": task.task_id, "flow.app": task.app, "flow.kind": task.kind, "flow.state": task.status,
        "flow.executor": task.executor, "host.name": task.host,
    }  # fmt: skip
    use = {
        "flow.cpu_s": task.cpu_s, "flow.max_rss_kb": task.max_rss_kb, "flow.net_sent_bytes": task.net_sent,
        "flow.net_received_bytes": task.net_received,
    }  # fmt: skip
    attributes.update({name: value for name, value in use.items() if value is not None})
    links = [Link(seen[parent]) for parent in task.depends if parent in seen]
    span = tracer.start_span(
        task.app or "task", context=context, start_time=task.time_invoked, attributes=attributes, links=links
    )
    if task.time_running:
        span.add_event("running", timestamp=task.time_running)
    if task.status in _FAILED:
        span.set_status(Status(StatusCode.ERROR, task.error or task.status))
    span.end(task.time_returned or run_end)
    found: SpanContext = span.get_span_context()
    return found

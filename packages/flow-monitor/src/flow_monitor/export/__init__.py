"""Exports of a run: WfFormat, Workflow Run RO-Crate, OpenTelemetry spans, Prometheus metrics."""

"""The description of the JSON API, made from the records it returns."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

from flow_monitor.queries import records as r

Schema = dict[str, Any]

_RUN = {
    "name": "run_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Id of the run; bytes other than letters, digits, _ and - as ~ and two hexadecimal digits",
}
_TASK = {"name": "task_id", "in": "path", "required": True, "schema": {"type": "integer"}}
_PAGING = [
    {"name": "offset", "in": "query", "schema": {"type": "integer", "default": 0}},
    {"name": "limit", "in": "query", "schema": {"type": "integer", "default": 100, "maximum": 1000}},
]
_PATHS: tuple[tuple[str, str, type, bool, list[Schema]], ...] = (
    ("/api/workflows", "Runs, newest first, a page at a time", r.Page, False, _PAGING),
    ("/api/workflows/{run_id}", "One run", r.Workflow, False, [_RUN]),
    ("/api/workflows/{run_id}/apps", "Its apps", r.AppSummary, True, [_RUN]),
    ("/api/workflows/{run_id}/tasks", "Its tasks, a page at a time", r.Page, False, [_RUN, *_PAGING]),
    ("/api/workflows/{run_id}/tasks/{task_id}", "One task", r.TaskDetail, False, [_RUN, _TASK]),
    ("/api/workflows/{run_id}/tasks/{task_id}/samples", "Its resource samples", r.TaskSample, True, [_RUN, _TASK]),
    ("/api/workflows/{run_id}/graph", "Its graph by app", r.AppGraph, False, [_RUN]),
    ("/api/workflows/{run_id}/timeline", "Its tries", r.Span, True, [_RUN]),
    ("/api/workflows/{run_id}/resources", "CPU and memory over time", r.Usage, True, [_RUN]),
    ("/api/workflows/{run_id}/blocks", "Its blocks", r.Block, True, [_RUN]),
    ("/api/workflows/{run_id}/nodes", "Its nodes", r.Node, True, [_RUN]),
    ("/api/workflows/{run_id}/gaps", "Events that are missing", r.Gap, True, [_RUN]),
)


def description(version: str) -> Schema:
    """Return the OpenAPI 3.1 document."""
    schemas: dict[str, Schema] = {}
    paths = {}
    for path, summary, record, many, parameters in _PATHS:
        answer = _reference(record, schemas)
        schema = {"type": "array", "items": answer} if many else answer
        paths[path] = {"get": {
            "summary": summary,
            "parameters": parameters,
            "responses": {
                "200": {"description": summary, "content": {"application/json": {"schema": schema}}},
                "404": {"description": "There is no such run or task"},
                "503": {"description": "The database cannot be read now"},
            },
        }}  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {"title": "Flow monitoring", "version": version,
                 "description": "Read only. Times are integers: nanoseconds UTC since 1970."},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }  # fmt: skip


def _reference(record: type, schemas: dict[str, Schema]) -> Schema:
    name = record.__name__
    if name not in schemas:
        schemas[name] = {}
        hints = get_type_hints(record)
        properties = {f.name: _schema(hints[f.name], schemas) for f in fields(record)}
        schemas[name].update({"type": "object", "properties": properties, "required": list(properties)})
    return {"$ref": f"#/components/schemas/{name}"}


def _schema(kind: Any, schemas: dict[str, Schema]) -> Schema:
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, types.UnionType):
        return {"anyOf": [_schema(one, schemas) for one in arguments]}
    if origin is tuple:
        items = _schema(arguments[0], schemas) if len(arguments) == 2 and arguments[1] is Ellipsis else {}
        return {"type": "array", "items": items}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], schemas)}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"type": "string", "enum": [member.value for member in kind]}
    if isinstance(kind, type) and is_dataclass(kind):
        return _reference(kind, schemas)
    names = {int: "integer", str: "string", float: "number", bool: "boolean", type(None): "null"}
    return {"type": names[kind]} if kind in names else {}

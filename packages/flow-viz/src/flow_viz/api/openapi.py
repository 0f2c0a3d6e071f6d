"""The description of the JSON API, made from the records it returns."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

from flow_monitor.queries import records as r
from flow_monitor.queries.resources import Grouping
from flow_monitor.queries.tasks import TaskOrder
from flow_monitor.queries.workflows import WorkflowOrder
from flow_viz.api.pulse import Pulse

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
_SEARCH = {"name": "q", "in": "query", "schema": {"type": "string"}, "description": "Text to look for"}


def _sorting(order: type[Enum], down: bool) -> list[Schema]:
    names = [member.value for member in order]
    ways = {"type": "string", "enum": ["asc", "desc"], "default": "desc" if down else "asc"}
    return [
        {"name": "sort", "in": "query", "schema": {"type": "string", "enum": names}},
        {"name": "dir", "in": "query", "schema": ways},
    ]


_RUNS = [_SEARCH, *_sorting(WorkflowOrder, down=True)]
_TASKS = [
    {"name": "app", "in": "query", "schema": {"type": "string"}, "description": "Name of an app"},
    {
        "name": "state",
        "in": "query",
        "schema": {"type": "array", "items": {"type": "string"}},
        "description": "States, each as a parameter of its own",
    },
    _SEARCH,
    *_sorting(TaskOrder, down=False),
]
_BY = {"name": "by", "in": "query", "schema": {"type": "string", "enum": [one.value for one in Grouping]}}
# Path, summary, record, whether the answer is a list of them, parameters. A test holds these rows and the routes
# equal.
_PATHS: tuple[tuple[str, str, Any, bool, list[Schema]], ...] = (
    ("/api/workflows", "Runs, newest first, a page at a time", r.Page[r.Workflow], False, [*_RUNS, *_PAGING]),
    ("/api/workflows/{run_id}", "One run", r.Workflow, False, [_RUN]),
    ("/api/workflows/{run_id}/pulse", "Whether it goes on, and a number that changes with it", Pulse, False, [_RUN]),
    ("/api/workflows/{run_id}/apps", "Its apps", r.AppSummary, True, [_RUN]),
    ("/api/workflows/{run_id}/tasks", "Its tasks, a page at a time", r.Page[r.Task], False, [_RUN, *_TASKS, *_PAGING]),
    ("/api/workflows/{run_id}/tasks/{task_id}", "One task", r.TaskDetail, False, [_RUN, _TASK]),
    ("/api/workflows/{run_id}/tasks/{task_id}/samples", "Its resource samples", r.TaskSample, True, [_RUN, _TASK]),
    ("/api/workflows/{run_id}/graph", "Its graph by app", r.AppGraph, False, [_RUN]),
    ("/api/workflows/{run_id}/timeline", "Its tries", r.Span, True, [_RUN]),
    ("/api/workflows/{run_id}/resources", "CPU and memory over time", r.Usage, True, [_RUN, _BY]),
    ("/api/workflows/{run_id}/blocks", "Its blocks", r.Block, True, [_RUN]),
    ("/api/workflows/{run_id}/nodes", "Its nodes", r.Node, True, [_RUN]),
    ("/api/workflows/{run_id}/gaps", "Events that are missing", r.Gap, True, [_RUN]),
)


def description(version: str) -> Schema:
    """Return the OpenAPI 3.1 document of the JSON API, for a version of this package."""
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
                "401": {"description": "The token is missing or wrong, where one is demanded"},
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
        # Either nothing or the token, since a server may be started without one.
        "security": [{}, {"token": []}],
    }  # fmt: skip


def _reference(record: Any, schemas: dict[str, Schema]) -> Schema:
    """Return a reference to the schema of a record; a generic one, such as a page of tasks, has one for each kind."""
    of = get_args(record)
    base = get_origin(record) or record
    name = base.__name__ + "Of".join(["", *(one.__name__ for one in of)])
    if name not in schemas:
        # Before its fields are looked at: a record that refers to itself would otherwise never end.
        schemas[name] = {}
        # A page of tasks and a page of runs are one generic class, and two schemas.
        filled = dict(zip(getattr(base, "__parameters__", ()), of, strict=bool(of)))
        hints = {key: _filled(hint, filled) for key, hint in get_type_hints(base).items()}
        record = base
        properties = {f.name: _schema(hints[f.name], schemas) for f in fields(record)}
        schemas[name].update({"type": "object", "properties": properties, "required": list(properties)})
    return {"$ref": f"#/components/schemas/{name}"}


def _filled(hint: Any, kinds: dict[Any, Any]) -> Any:
    """Return a type with kinds in the place of its variables."""
    parameters = getattr(hint, "__parameters__", ())
    return hint[tuple(kinds[one] for one in parameters)] if parameters and kinds else kinds.get(hint, hint)


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
    # An empty schema allows anything: better than a wrong description of an unusual type.
    return {"type": names[kind]} if kind in names else {}

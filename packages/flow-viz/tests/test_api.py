"""The JSON API and its description."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from viz_clients import ClientOf

from flow_monitor.testing.made import make_database
from flow_monitor.testing.synthetic import SyntheticRun


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("runinfo"), SyntheticRun(run_id="r/1", tasks=30, samples=4))


@pytest.fixture
def client(path: Path, client_of: ClientOf) -> FlaskClient:
    return client_of(path)


def get(client: FlaskClient, path: str) -> Any:
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.json


def matches(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> bool:
    """Return whether a value is as a schema of the description says."""
    if "$ref" in schema:
        return matches(value, schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        return any(matches(value, one, schemas) for one in schema["anyOf"])
    if "enum" in schema and value not in schema["enum"]:
        return False
    kind = schema.get("type")
    if kind == "object" and not isinstance(value, dict):
        return False
    if kind == "object":
        names = schema.get("properties", {})
        more = schema.get("additionalProperties", {})
        whole = set(schema.get("required", ())) <= set(value)
        known = bool(more) or not names or set(value) <= set(names)
        return whole and known and all(matches(v, names.get(k, more), schemas) for k, v in value.items())
    if kind == "array":
        return isinstance(value, list) and all(matches(item, schema["items"], schemas) for item in value)
    types = {"integer": int, "string": str, "number": (int, float), "boolean": bool, "null": type(None)}
    return kind is None or isinstance(value, types[kind])  # type: ignore[arg-type] # a table of types


def test_every_address_answers_as_described(client: FlaskClient) -> None:
    described = get(client, "/api/openapi.json")
    assert described["openapi"].startswith("3.1")
    for template, item in described["paths"].items():
        value = get(client, template.replace("{run_id}", "r~2F1").replace("{task_id}", "3"))
        schema = item["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert matches(value, schema, described["components"]["schemas"]), template


def test_every_address_and_every_parameter_is_described(client: FlaskClient) -> None:
    described = get(client, "/api/openapi.json")
    rules = {
        re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for rule in client.application.url_map.iter_rules()
        if rule.endpoint.startswith("api.")
    }
    assert rules == {*described["paths"], "/api/openapi.json"}
    asked = {path: {one["name"] for one in item["get"]["parameters"]} for path, item in described["paths"].items()}
    assert asked["/api/workflows"] == {"q", "sort", "dir", "offset", "limit"}
    assert asked["/api/workflows/{run_id}/tasks"] >= {"run_id", "app", "state", "q", "sort", "dir", "offset", "limit"}
    assert asked["/api/workflows/{run_id}/resources"] == {"run_id", "by"}


def test_pages_are_described_with_what_is_in_them(client: FlaskClient) -> None:
    schemas = get(client, "/api/openapi.json")["components"]["schemas"]
    assert schemas["PageOfTask"]["properties"]["items"]["items"] == {"$ref": "#/components/schemas/Task"}
    assert schemas["PageOfWorkflow"]["properties"]["items"]["items"] == {"$ref": "#/components/schemas/Workflow"}


def test_tasks_are_paged(client: FlaskClient) -> None:
    page = get(client, "/api/workflows/r~2F1/tasks?limit=5&offset=10")
    assert [task["task_id"] for task in page["items"]] == [10, 11, 12, 13, 14]
    assert page["total"] == 30


def test_the_pulse_changes_with_the_run(client: FlaskClient, path: Path) -> None:
    pulse = get(client, "/api/workflows/r~2F1/pulse")
    assert pulse["live"] is False
    assert pulse["revision"] > 0


@pytest.mark.parametrize(
    "what", ["", "/apps", "/tasks", "/graph", "/timeline", "/resources", "/blocks", "/nodes", "/gaps"]
)
def test_an_unknown_run_is_a_404_in_json(client: FlaskClient, what: str) -> None:
    answer = client.get("/api/workflows/none" + what)
    assert answer.status_code == 404
    assert answer.json is not None
    assert "none" in answer.json["error"]

"""What others read of a run."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow_monitor.export.prometheus import render, server
from flow_monitor.export.rocrate import metadata, write_crate
from flow_monitor.export.wfformat import wfformat
from flow_monitor.queries import provenance, workflows
from flow_monitor.queries.database import Database, open_database
from flow_monitor.queries.frames import frame
from flow_monitor.testing.made import make_database
from flow_monitor.testing.synthetic import SyntheticRun

RUN = SyntheticRun(run_id="r", tasks=40, seed=3, name='na"me\n.py')


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with open_database(str(make_database(tmp_path_factory.mktemp("db"), RUN))) as opened:
        yield opened


def test_a_wfformat_document_has_a_whole_graph_and_files_of_known_names(database: Database) -> None:
    with database.connect() as connection:
        made = json.loads(json.dumps(wfformat(connection, "r")))
        done = workflows.one(connection, "r").completed
    specification, execution = made["workflow"]["specification"], made["workflow"]["execution"]
    tasks = {task["id"]: task for task in specification["tasks"]}
    assert made["schemaVersion"] == "1.5"
    assert len(tasks) == done == len(execution["tasks"])
    files = {file["id"] for file in specification["files"]}
    for name, task in tasks.items():
        assert all(name in tasks[parent]["children"] for parent in task["parents"])
        assert all(name in tasks[child]["parents"] for child in task["children"])
        assert files.issuperset([*task["inputFiles"], *task["outputFiles"]])
    assert all("/" not in name for name in files)
    machines = {machine["nodeName"] for machine in execution["machines"]}
    assert all(machines.issuperset(task.get("machines", ())) for task in execution["tasks"])


def test_every_thing_a_crate_names_of_its_own_is_described_in_it(database: Database) -> None:
    with database.connect() as connection:
        made = metadata(connection, "r")
    graph = made["@graph"]
    assert isinstance(graph, list)
    described = {entity["@id"] for entity in graph}
    assert len(described) == len(graph)

    def named(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            if set(value) == {"@id"}:
                yield value["@id"]
            else:
                for item in value.values():
                    yield from named(item)
        elif isinstance(value, list):
            for item in value:
                yield from named(item)

    used = set(named(graph)) - {"https://w3id.org/ro/crate/1.1"}
    assert {name for name in used if not name.startswith("http://schema.org/")} <= described
    actions = [entity for entity in graph if entity["@type"] == "CreateAction"]
    assert len(actions) == 41
    assert {action["actionStatus"]["@id"].rpartition("/")[2] for action in actions} <= {
        "CompletedActionStatus", "FailedActionStatus",
    }  # fmt: skip


def test_a_crate_says_where_its_script_is_missing(database: Database, tmp_path: Path) -> None:
    with database.connect() as connection:
        path = write_crate(connection, "r", tmp_path / "crate")
    assert json.loads(path.read_text())["@graph"]
    assert "was not there" in next(p for p in path.parent.iterdir() if p != path).read_text()


def test_metrics_are_served_with_their_labels_escaped(database: Database) -> None:
    serving = server(database, "127.0.0.1", 0)
    thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
    thread.start()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{serving.server_address[1]}/metrics", timeout=20) as answer:
            text = answer.read().decode()
    finally:
        serving.shutdown()
        thread.join()
        serving.server_close()
    with database.connect() as connection:
        assert text == render(connection)
    assert 'workflow="na\\"me\\n.py"' in text
    assert "# TYPE flow_tasks gauge" in text
    tasks = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("flow_tasks{")]
    assert sum(tasks) == 40


def test_spans_are_linked_as_tasks_depend(database: Database) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from flow_monitor.export.otel import export_spans

    exporter = InMemorySpanExporter()
    with database.connect() as connection:
        assert export_spans(connection, "r", exporter) == 41
        tasks = {task.task_id: task for task in provenance.tasks(connection, "r")}
    spans = exporter.get_finished_spans()
    by_task = {span.attributes["flow.task_id"]: span for span in spans if "flow.task_id" in (span.attributes or {})}
    ids = {span.context.span_id: number for number, span in by_task.items()}
    for number, span in by_task.items():
        assert {ids[link.context.span_id] for link in span.links} == set(tasks[number].depends)
        assert span.end_time >= span.start_time
    assert len({span.context.trace_id for span in spans}) == 1


def test_records_are_frames_with_times(database: Database) -> None:
    import pandas

    with database.connect() as connection:
        made = frame(provenance.tasks(connection, "r"))
    assert len(made) == 40
    assert isinstance(made["time_invoked"].dtype, pandas.DatetimeTZDtype)

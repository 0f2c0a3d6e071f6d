"""What others read of a run."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import parser as text_parser
from prometheus_client.openmetrics import parser as openmetrics_parser
from sqlalchemy import MetaData, create_engine, select

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.events import Event, Sampled, TaskSubmitted, TryEnded, TryLaunched
from flow_core.interfaces.sampler import Sample
from flow_monitor.errors import MonitorError
from flow_monitor.export.parsl_db import write_parsl_db
from flow_monitor.export.prometheus import Seen, render, server
from flow_monitor.export.rocrate import metadata, write_crate
from flow_monitor.export.wfformat import wfformat
from flow_monitor.project.rebuild import rebuild, upgrade
from flow_monitor.queries import provenance, traffic, workflows
from flow_monitor.queries.database import Database, open_database
from flow_monitor.queries.frames import frame
from flow_monitor.testing.made import as_version, make_database, write_log
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


COLUMNS = {
    "workflow": "run_id workflow_name workflow_version time_began time_completed host user rundir tasks_failed_count "
    "tasks_completed_count",
    "task": "task_id run_id task_depends task_func_name task_memoize task_hashsum task_inputs task_outputs task_stdin "
    "task_stdout task_stderr task_time_invoked task_time_returned task_fail_count task_fail_cost",
    "try": "try_id task_id run_id block_id hostname task_executor task_try_time_launched task_try_time_running "
    "task_try_time_returned task_fail_history task_joins",
    "status": "task_id task_status_name timestamp run_id try_id",
    "node": "id run_id hostname uid block_id cpu_count total_memory active worker_count python_v timestamp "
    "last_heartbeat",
    "block": "run_id executor_label block_id job_id timestamp status",
    "resource": "try_id task_id run_id timestamp resource_monitoring_interval psutil_process_pid "
    "psutil_process_memory_percent psutil_process_children_count psutil_process_time_user psutil_process_time_system "
    "psutil_process_memory_virtual psutil_process_memory_resident psutil_process_disk_read psutil_process_disk_write "
    "psutil_process_status psutil_cpu_num psutil_process_num_ctx_switches_voluntary "
    "psutil_process_num_ctx_switches_involuntary",
}


def test_a_parsl_database_has_the_tables_columns_and_datetimes_of_parsl(database: Database, tmp_path: Path) -> None:
    made = tmp_path / "parsl.db"
    with database.connect() as connection:
        counts = write_parsl_db(connection, workflows.ids(connection), made)
        run = workflows.one(connection, "r")
    # By SQLAlchemy itself, and with its own types, as the notebooks read it.
    engine = create_engine(f"sqlite:///{made}")
    read = MetaData()
    read.reflect(engine)
    assert {name: " ".join(table.c.keys()) for name, table in read.tables.items()} == COLUMNS
    with engine.connect() as connection:
        tables = {name: connection.execute(select(table)).all() for name, table in read.tables.items()}
    engine.dispose()
    assert {name: len(rows) for name, rows in tables.items()} == counts
    (workflow,) = tables["workflow"]
    assert (workflow.run_id, workflow.tasks_failed_count) == ("r", run.failed)
    assert workflow.tasks_completed_count == run.completed + run.memoized
    assert workflow.time_began.replace(tzinfo=UTC).timestamp() == pytest.approx(run.time_began / 1e9, abs=1e-5)
    assert len(tables["task"]) == run.submitted
    assert all(isinstance(task.task_time_invoked, datetime) for task in tables["task"])
    ran = [one for one in tables["try"] if one.task_try_time_running]
    assert ran
    assert all(one.task_try_time_running >= one.task_try_time_launched for one in ran)
    assert {state.task_status_name for state in tables["status"]} >= {"pending", "launched", "running", "exec_done"}
    assert all(sample.task_id is not None for sample in tables["resource"])


def test_a_notebook_counts_running_tasks_of_a_parsl_database_over_time(database: Database, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    made = tmp_path / "parsl.db"
    with database.connect() as connection:
        write_parsl_db(connection, ["r"], made)
    with closing(sqlite3.connect(made)) as connection:
        states = pandas.read_sql_query("SELECT * FROM status", connection, parse_dates=["timestamp"])
    moments = states.sort_values("timestamp").set_index("timestamp")
    running = (moments.task_status_name == "running").astype(int).cumsum()
    assert running.iloc[-1] == (states.task_status_name == "running").sum() > 0
    assert states.timestamp.dtype.kind == "M"


def test_a_file_that_is_there_is_not_replaced_by_a_parsl_database_and_half_of_one_is_not_left(
    database: Database, tmp_path: Path
) -> None:
    there = tmp_path / "mine.db"
    there.write_text("mine")
    with database.connect() as connection:
        with pytest.raises(MonitorError, match="is there already"):
            write_parsl_db(connection, ["r"], there)
        with pytest.raises(MonitorError, match="cannot be written"):
            write_parsl_db(connection, ["r"], tmp_path / "no" / "such.db")
    assert there.read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["mine.db"]


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


@contextmanager
def served(database: Database, token: str | None) -> Iterator[str]:
    serving = server(database, "127.0.0.1", 0, token)
    thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{serving.server_address[1]}/metrics"
    finally:
        serving.shutdown()
        thread.join()
        serving.server_close()


def test_metrics_are_given_to_those_who_know_the_token(database: Database) -> None:
    with served(database, "a-token") as address:
        for asked, headers, status in (
            (address, {}, 401),
            (address, {"Authorization": "Bearer a-token"}, 200),
            (address, {"Authorization": "Bearer b-token"}, 401),
            (f"{address}?token=a-token", {}, 200),
        ):
            assert status_of(asked, headers) == status
    with served(database, None) as address:
        assert status_of(address, {"Host": "evil.example"}) == 403


def status_of(address: str, headers: dict[str, str]) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_metrics_are_served_with_their_labels_escaped(database: Database) -> None:
    with served(database, None) as address, urllib.request.urlopen(address, timeout=20) as answer:
        text = answer.read().decode()
    with database.connect() as connection:
        assert text == render(connection)
    assert 'workflow="na\\"me\\n.py"' in text
    assert "# TYPE flow_tasks gauge" in text
    tasks = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("flow_tasks{")]
    assert sum(tasks) == 40


def test_metrics_are_what_a_reader_of_prometheus_parses_in_both_formats(database: Database) -> None:
    openmetrics = "application/openmetrics-text; version=1.0.0"
    with served(database, None) as address:
        found = []
        for accept, parse in (("text/plain", text_parser), (openmetrics, openmetrics_parser)):
            asked = urllib.request.Request(address, headers={"Accept": accept})
            with urllib.request.urlopen(asked, timeout=20) as answer:
                assert answer.headers["Content-Type"].startswith(accept.partition(";")[0])
                families = parse.text_string_to_metric_families(answer.read().decode())
                found.append(
                    sorted((one.name, sorted(one.labels.items()), one.value) for f in families for one in f.samples)
                )
    assert found[0] == found[1]
    assert {"flow_run_state", "flow_tasks", "flow_app_tries_total", "flow_events_lost_total"} <= {
        n for n, *_ in found[0]
    }


# -- network traffic

TRIES = {0: [(900, 30), (50, 7)], 1: [(4, 2)], 2: [(None, None)], 3: []}
"""Bytes sent and received of the tries of each task, as far as they were sampled: tasks 0 and 1 are of one app."""


@pytest.fixture(scope="module")
def with_traffic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("net")
    events: list[Event] = []
    for task, tries in TRIES.items():
        events.append(TaskSubmitted(1, task, "talk" if task < 2 else "hush", "python", "", ("x",), ()))
        for number, (sent, received) in enumerate(tries or [(None, None)]):
            key = TryKey(task * 10 + number)
            events.append(TryLaunched(2, task, number, key, "x"))
            for at in (3, 4) if tries else ():  # the second says all
                bytes_so_far = [None if value is None else value // (5 - at) for value in (sent, received)]
                sample = Sample(at, key, 9, 1, 1.0, 1.0, 0.0, 1, 0.0, 0, 0, *bytes_so_far)
                events.append(Sampled(at, "x", "", "n", "", (sample,)))
            events.append(TryEnded(5, task, number, "OK", 2, 5, "x", None, None))
    write_log(directory / "run", "r", events)
    rebuild(directory / "run", f"sqlite:///{directory / 'm.db'}")
    return directory / "m.db"


def test_traffic_of_a_task_is_that_of_its_last_try_and_of_an_app_that_of_all_tries(with_traffic: Path) -> None:
    with open_database(str(with_traffic)) as opened, opened.connect() as connection:
        found = [(task.net_sent, task.net_received) for task in provenance.tasks(connection, "r")]
        assert found == [(50, 7), (4, 2), (None, None), (None, None)]
        assert traffic.of_apps(connection, "r") == {"talk": (954, 39), "hush": (None, None)}


def test_metrics_have_traffic_where_it_is_known(with_traffic: Path) -> None:
    seen: Seen = {}
    with open_database(str(with_traffic)) as opened, opened.connect() as connection:
        text = render(connection, seen=seen)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(traffic, "of_apps", lambda *_: pytest.fail("the samples of this run were summed before"))
            assert render(connection, seen=seen) == text
    lines = [line for line in text.splitlines() if line.startswith("flow_app_network")]
    assert [(line.partition("{")[0], float(line.rpartition(" ")[2])) for line in lines] == [
        ("flow_app_network_sent_bytes_total", 954),
        ("flow_app_network_received_bytes_total", 39),
    ]
    assert all('app="talk"' in line for line in lines)
    assert "# TYPE flow_app_network_sent_bytes_total counter" in text


def test_a_crate_has_traffic_as_use_of_resources_where_it_is_known(with_traffic: Path) -> None:
    with open_database(str(with_traffic)) as opened, opened.connect() as connection:
        graph = metadata(connection, "r")["@graph"]
    assert isinstance(graph, list)
    by_id = {entity["@id"]: entity for entity in graph}
    used = [[by_id[one["@id"]] for one in by_id[f"#task-{task}"].get("resourceUsage", ())] for task in TRIES]
    assert [[one["value"] for one in entities] for entities in used] == [["50", "7"], ["4", "2"], [], []]
    assert {one["propertyID"] for one in used[0]} == {"flow.net_sent_bytes", "flow.net_received_bytes"}
    assert {one["@type"] for one in used[0]} == {"PropertyValue"}


def test_spans_have_traffic_where_it_is_known(with_traffic: Path) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from flow_monitor.export.otel import export_spans

    exporter = InMemorySpanExporter()
    with open_database(str(with_traffic)) as opened, opened.connect() as connection:
        export_spans(connection, "r", exporter)
    of_tasks = [dict(span.attributes or {}) for span in exporter.get_finished_spans()]
    by_task = {attributes.get("flow.task_id"): attributes for attributes in of_tasks}
    assert by_task[0]["flow.net_sent_bytes"] == 50
    assert by_task[0]["flow.net_received_bytes"] == 7
    assert not any(name.startswith("flow.net") for task in (2, 3) for name in by_task[task])


def test_a_database_of_before_traffic_was_measured_knows_none(with_traffic: Path, tmp_path: Path) -> None:
    older = tmp_path / "older.db"
    shutil.copy(with_traffic, older)
    as_version(older, 3)
    upgrade(f"sqlite:///{older}")
    with open_database(str(older)) as opened, opened.connect() as connection:
        assert {task.net_sent for task in provenance.tasks(connection, "r")} == {None}
        assert "flow_app_network" not in render(connection)


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

"""Another user's database, run directory and requests, against who serves the pages."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from flask import url_for
from security_attacker import Attacker

import flow
from flow import Config, bash_app
from flow.executors import HighThroughputExecutor
from flow.monitoring import MonitoringHub
from flow.providers import LocalProvider
from flow_core.interfaces.events import Event, RunStarted, TaskSubmitted
from flow_monitor.project.rebuild import rebuild
from flow_monitor.queries.database import open_database
from flow_monitor.testing.made import make_database, write_log
from flow_monitor.testing.synthetic import SyntheticRun
from flow_viz.app import create_app


@bash_app
def say(stdout: object = None) -> str:
    return "echo said by the task"


EXCHANGE = """
import ctypes, sys
libc = ctypes.CDLL(None)
print("begun", flush=True)
while True:
    libc.renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2)
"""


@pytest.mark.timeout(120)
def test_no_race_of_renames_leads_to_a_file_of_who_serves_the_pages(tmp_path: Path, attacker: Attacker) -> None:
    private = tmp_path / "private.txt"
    private.write_text("PRIVATE")
    private.chmod(0o600)
    run = tmp_path / "000"
    stream, link = run / "task_logs" / "x", run / "task_logs" / "y"
    events: list[Event] = [RunStarted(5, "r", 1, "x.py", "/x.py", "0.1.0", "3.11", "h", "u", str(run), ("t",))]
    events.append(TaskSubmitted(6, 0, "work", "bash", "", ("t",), (), (), (), str(stream)))
    write_log(run, "r", events)
    rebuild(run, f"sqlite:///{tmp_path / 'm.db'}")
    stream.parent.mkdir()
    stream.write_text("their stream")
    link.symlink_to(private)
    subprocess.run(["chown", "-Rh", f"{attacker.uid}:{attacker.gid}", str(run)], check=True, timeout=30)
    racer = attacker.start(EXCHANGE, stream, link)
    try:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "begun\n"
        with create_app(open_database(str(tmp_path / "m.db"))).test_client() as client:
            pages = [client.get("/workflow/r/task/0").text for _ in range(300)]
        assert racer.poll() is None
    finally:
        racer.kill()
        racer.communicate(timeout=30)
    assert not [page for page in pages if "PRIVATE" in page]
    assert [page for page in pages if "their stream" in page]


def test_another_user_of_the_machine_sees_no_page_without_the_token(tmp_path: Path, attacker: Attacker) -> None:
    database = make_database(tmp_path, SyntheticRun(run_id="r", tasks=10, samples=0))
    ask = (
        "import sys, urllib.request as r\n"
        "try: print(r.urlopen(sys.argv[1]).status)\n"
        "except Exception as e: print(e.code)"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "flow_viz.cli", str(database), "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            said = [server.stdout.readline() for _ in range(2)][-1]
            address = said.split()[1]
            page = address.partition("?")[0]
            assert attacker.run(ask, f"{page}api/workflows") == "401\n"
            with urllib.request.urlopen(address.replace("/?", "/api/workflows?"), timeout=20) as answer:
                assert answer.status == 200
        finally:
            server.terminate()


def test_a_database_of_a_stranger_shows_no_file_of_a_run_but_its_streams(tmp_path: Path, attacker: Attacker) -> None:
    """Every file of a real run is named as the output of a task, the key of its block among them."""
    command = "{python} -P -m {module} {debug} {options} --addresses=127.0.0.1"  # so the key stays
    executor = HighThroughputExecutor(max_workers=1, launch_cmd=command, provider=LocalProvider(max_blocks=1))
    endpoint = f"sqlite:///{tmp_path / 'mine' / 'monitoring.db'}"
    hub = MonitoringHub(logging_endpoint=endpoint)
    with flow.load(Config([executor], run_dir=str(tmp_path / "runinfo"), monitoring=hub)) as kernel:
        assert say(stdout=flow.AUTO_LOGNAME).result() == 0
        run = kernel.run_dir
        (key,) = run.rglob("flow_block_key")
        held = key.read_bytes()
    key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key.write_bytes(held)  # as while the run goes on
    files = [path for path in run.rglob("*") if path.is_file()]
    streams = [path for path in files if "task_logs" in path.parts]
    assert key in files
    assert len(streams) == 1
    database = tmp_path / "theirs.db"
    shutil.copy(tmp_path / "mine" / "monitoring.db", database)
    os.chown(database, attacker.uid, attacker.gid)
    with create_app(open_database(str(database))).test_client() as client:
        (run_id,) = [row["run_id"] for row in client.get("/api/workflows").get_json()["items"]]
        for path in files:
            for name in (str(path), f"task_logs/../{path.relative_to(run)}"):
                with closing(sqlite3.connect(database)) as connection, connection:
                    connection.execute("UPDATE task_rows SET task_stdout = ?, task_stderr = ?", (name, name))
                page = client.get(f"/workflow/{run_id}/task/0").text
                assert ("said by the task" in page) is (path in streams), name
                assert (page.count("Not shown") == 2) is (path not in streams), name


def test_no_page_changes_anything_and_all_of_them_want_the_token(tmp_path: Path) -> None:
    database = make_database(tmp_path, SyntheticRun(run_id="r", tasks=10, samples=0))
    app = create_app(open_database(str(database)), token="a-long-token")
    writing = {
        rule.endpoint for rule in app.url_map.iter_rules() if (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}
    }
    assert writing == {"auth.enter"}  # which takes the token and sets the cookie
    with app.test_request_context():
        values = {"run_id": "r", "task_id": 1, "what": "cpu", "filename": "app.js"}
        rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint != "auth.enter"]
        places = {
            rule.endpoint: url_for(rule.endpoint, **{name: values.get(name, "x") for name in rule.arguments})
            for rule in rules
        }
    assert len(places) > 20
    with app.test_client() as client:
        open_to_all = set()
        for name, place in places.items():
            with client.get(place) as answer:
                if answer.status_code != 401:
                    open_to_all.add(name)
        assert open_to_all == {"static"}
        answer = client.post("/token", data={"token": "guessed"}, headers={"Origin": "https://evil.example"})
        assert (answer.status_code, answer.headers.get("Set-Cookie")) == (401, None)
        for how in (client.post, client.put, client.delete, client.patch):
            assert how("/workflow/r/tasks", headers={"Authorization": "Bearer a-long-token"}).status_code == 405
        entered = client.post("/token", data={"token": "a-long-token"})
        assert "SameSite=Strict" in entered.headers["Set-Cookie"]
        assert not [name for name in dict(entered.headers) if name.startswith("Access-Control")]


VIEW = 'WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT t.* FROM "was" t, c WHERE n < 0'
HUGE = "hex(zeroblob(400000000))"


@pytest.mark.parametrize("table", ["workflow", "task_rows", "app"])
@pytest.mark.parametrize("kind", ["endless", "huge"])
@pytest.mark.timeout(120)
def test_a_database_of_a_stranger_neither_holds_a_page_up_nor_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, kind: str
) -> None:
    monkeypatch.setattr("flow_monitor.queries.database.MOST_STEPS", 50_000_000)  # seconds rather than a minute
    database = make_database(tmp_path, SyntheticRun(run_id="r", tasks=10, samples=0))
    with sqlite3.connect(database) as connection:
        names = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
        text = "workflow_name" if table == "workflow" else "task_func_name"
        columns = ", ".join(f"{HUGE} AS {name}" if name == text else f'"{name}"' for name in names)
        connection.execute("PRAGMA legacy_alter_table=ON")
        connection.execute(f'ALTER TABLE "{table}" RENAME TO "was"')
        connection.execute(f'CREATE VIEW "{table}" AS {VIEW if kind == "endless" else f"SELECT {columns} FROM was"}')
    connection.close()
    with create_app(open_database(str(database))).test_client() as client:
        answers = [client.get(path) for path in ("/", "/workflow/r/", "/workflow/r/tasks", "/api/workflows/r/tasks")]
        assert max(len(answer.data) for answer in answers) < 1 << 20
        assert {answer.status_code for answer in answers} <= {200, 404, 500, 503}
        told = [answer.text for answer in answers if answer.status_code in (500, 503)]
        assert told
        assert all("what no run writes" in text for text in told)

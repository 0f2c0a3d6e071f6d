"""Every page, asked for without a browser."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from flask import url_for
from flask.testing import FlaskClient
from viz_clients import ClientOf

from flow_core.interfaces.events import (
    BlockChanged,
    Event,
    EventsLost,
    NodeHeld,
    NodeJoined,
    RunStarted,
    TaskSubmitted,
    TryLaunched,
    TryStarted,
)
from flow_core.interfaces.outcome import Place
from flow_monitor.project.rebuild import rebuild, upgrade
from flow_monitor.queries.database import open_database
from flow_monitor.testing.made import as_version, make_database, write_log
from flow_monitor.testing.synthetic import SyntheticRun
from flow_viz.app import create_app

HOSTILE_ID = "../..//<script>alert('id')</script>?a=b&c#d%2e ü ☃"
HOSTILE = "<script>alert(1)</script>"
PAGES = ("", "graph", "tasks", "task/3", "timeline", "resources", "blocks")
FIGURES = (
    "graph.json",
    "graph.json?color=state",
    "graph.json?level=stages",
    "graph.json?level=apps",
    "timeline.json",
    "running.json",
    "resources/cpu.json",
    "resources/memory.json?by=node",
    "resources/node_cpu.json",
    "resources/node_memory.json",
    "resources/app_cpu.json",
    "task/3/resources.json",
    "task/3/flow.json",
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of a database with a run that ended, one that was killed, and a hostile one."""
    made = tmp_path_factory.mktemp("runinfo")
    make_database(
        made,
        SyntheticRun(run_id="good", tasks=40, samples=8, fail_rate=0.4),
        SyntheticRun(run_id="dead", tasks=30, ended=False, samples=2, seed=2),
        SyntheticRun(run_id=HOSTILE_ID, tasks=30, samples=4, seed=3, name=HOSTILE, app_prefix=HOSTILE),
    )
    return made


@pytest.fixture
def client(directory: Path, client_of: ClientOf) -> FlaskClient:
    return client_of(directory / "monitoring.db")


def address(client: FlaskClient, endpoint: str, **values: object) -> str:
    with client.application.test_request_context():
        return url_for(endpoint, **values)  # type: ignore[arg-type] # values of any page


@pytest.mark.parametrize("run", ["good", "dead"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_its_run(client: FlaskClient, run: str, page: str) -> None:
    answer = client.get(f"/workflow/{run}/{page}")
    assert answer.status_code == 200
    assert f"{run}</span>" in answer.text
    assert 'aria-current="page"' in answer.text


@pytest.mark.parametrize("run", ["good", "dead"])
@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_has_something_to_draw(client: FlaskClient, run: str, figure: str) -> None:
    answer = client.get(f"/workflow/{run}/{figure}")
    assert answer.status_code == 200
    assert answer.json is not None
    assert "layout" in answer.json
    if run == "good":
        assert any(trace["x"] for trace in answer.json["data"])


@pytest.mark.parametrize("page", [*PAGES, *FIGURES])
def test_hostile_names_are_text_everywhere(client: FlaskClient, page: str) -> None:
    base = address(client, "summary.page", run_id=HOSTILE_ID)
    assert re.fullmatch(r"/workflow/[A-Za-z0-9._~-]+/", base)
    answer = client.get(base + page)
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text


def test_the_list_shows_all_runs_newest_first_and_links_to_them(client: FlaskClient) -> None:
    text = client.get("/").text
    links = set(re.findall(r'href="(/workflow/[^"]+)"', text))
    assert len(links) == 3
    assert all(client.get(link).status_code == 200 for link in links)
    assert "killed" in text
    assert "<script>alert" not in text


@pytest.mark.parametrize(
    "query", ["?q=good", "?sort=tasks&dir=asc", "?sort=nonsense&dir=x", "?offset=500", "?q=%3Cb%3E"]
)
def test_the_list_is_searched_and_sorted(client: FlaskClient, query: str) -> None:
    answer = client.get("/" + query)
    assert answer.status_code == 200
    assert "<b>" not in answer.text


@pytest.mark.parametrize(
    "query",
    ["?state=failed", "?app=simulate&state=exec_done", "?q=7", "?q=converge", "?sort=run_time&dir=desc", "?offset=30"],
)
def test_tasks_are_filtered(client: FlaskClient, query: str) -> None:
    assert client.get("/workflow/good/tasks" + query).status_code == 200


def test_tasks_with_a_bad_offset_are_refused_clearly(client: FlaskClient) -> None:
    answer = client.get("/workflow/good/tasks?offset=abc")
    assert answer.status_code == 400
    assert "offset=abc is no number" in answer.text


def test_a_killed_run_says_so(client: FlaskClient) -> None:
    assert "This run was killed" in client.get("/workflow/dead/").text


@pytest.mark.parametrize(
    "path", ["/workflow/none/", "/workflow/none/graph", "/workflow/good/task/9999", "/nowhere", "/api/x"]
)
def test_what_is_not_there_is_a_clear_404(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("run_id", ["%00", "%2e%2e%2f", "a%27%20OR%201=1--", "~", "~ZZ", "%ff%fe", "x" * 5000])
def test_odd_run_ids_are_a_clear_404(client: FlaskClient, run_id: str) -> None:
    answer = client.get(f"/workflow/{run_id}/", follow_redirects=True)
    assert answer.status_code == 404
    assert "Traceback" not in answer.text


def test_of_a_run_directory_streams_of_tasks_are_shown_and_nothing_else(tmp_path: Path, client_of: ClientOf) -> None:
    (tmp_path / "secret.txt").write_text("not for the web")
    path = make_database(tmp_path, SyntheticRun(run_id="r", tasks=8))
    run_dir = next(tmp_path.glob("run-*"))
    for name, text in (("task_logs/0000/t.stdout", "hello <b>from</b> the task"), ("submit_scripts/x.secrets/key", "")):
        (run_dir / name).parent.mkdir(parents=True)
        (run_dir / name).write_text(text or "not for the web")
    (run_dir / "task_logs" / "second").hardlink_to(tmp_path / "secret.txt")
    for name, shown in (
        (f"{run_dir}/task_logs/0000/t.stdout", True),
        ("task_logs/0000/t.stdout", True),
        ("task_logs/../submit_scripts/x.secrets/key", False),
        (f"{run_dir}/submit_scripts/x.secrets/key", False),
        (f"{run_dir}/monitoring/events.log", False),
        ("../secret.txt", False),
        ("task_logs/../../secret.txt", False),
        ("task_logs/second", False),
    ):
        connection = sqlite3.connect(path)
        connection.execute("UPDATE task_rows SET task_stdout=? WHERE task_id=3", (name,))
        connection.commit()
        connection.close()
        text = client_of(path).get("/workflow/r/task/3").text
        assert ("hello &lt;b&gt;from" in text) is shown
        assert "not for the web" not in text


def test_the_output_of_a_task_is_shown_where_the_runs_own_log_names_the_file(
    tmp_path: Path, client_of: ClientOf
) -> None:
    run_dir, work = tmp_path / "runinfo" / "000", tmp_path / "work"
    (work / "out").mkdir(parents=True)
    (work / "out" / "good \u2603.txt").write_text("hello from the task")
    (work / "secret.txt").write_text("not for the web")
    (tmp_path / "linked").symlink_to(work)
    named = [
        f"{work}/out/good \u2603.txt",
        f"{tmp_path}/linked/out/good \u2603.txt",
        f"{work}/missing.txt",
        f"{work}/out",
    ]
    named.append(f"file://{work}/out/good%20%E2%98%83.txt")
    events: list[Event] = [RunStarted(5, "r", 1, "x.py", "/x.py", "0.1.0", "3.11", "h", "u", str(run_dir), ("t",))]
    for task_id, path in enumerate(named):
        events.append(TaskSubmitted(6, task_id, "work", "bash", "", ("t",), (), (), (), path))
    write_log(run_dir, "r", events)
    rebuild(run_dir, f"sqlite:///{tmp_path / 'm.db'}")
    client = client_of(tmp_path / "m.db")
    pages = [client.get(f"/workflow/r/task/{task_id}").text for task_id in range(len(named))]
    assert ["hello from the task" in page for page in pages] == [True, True, False, False, True]
    assert "there is no such file on this machine" in pages[2]
    assert "not a plain file" in pages[3]
    for path, why in (
        (f"{work}/secret.txt", "event log does not name it"),
        ("out/good.txt", "recorded without the directory"),
        ("https://store.example/x", "not written on this machine"),
    ):
        with closing(sqlite3.connect(tmp_path / "m.db")) as connection, connection:
            connection.execute("UPDATE task_rows SET task_stdout = ? WHERE task_id = 0", (path,))
        page = client.get("/workflow/r/task/0").text
        assert "not for the web" not in page
        assert why in page


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_no_output_is_shown_through_files_or_links_of_another_user(tmp_path: Path, client_of: ClientOf) -> None:
    run_dir = tmp_path / "000"
    (tmp_path / "theirs.txt").write_text("somebody else's")
    (tmp_path / "mine.txt").write_text("somebody else's wish")
    (tmp_path / "link.txt").symlink_to(tmp_path / "mine.txt")
    for name in ("theirs.txt", "link.txt"):
        os.chown(tmp_path / name, 12345, 12345, follow_symlinks=False)
    events: list[Event] = [RunStarted(5, "r", 1, "x.py", "/x.py", "0.1.0", "3.11", "h", "u", str(run_dir), ("t",))]
    for task_id, name in enumerate(("theirs.txt", "link.txt")):
        events.append(TaskSubmitted(6, task_id, "work", "bash", "", ("t",), (), (), (), str(tmp_path / name)))
    write_log(run_dir, "r", events)
    rebuild(run_dir, f"sqlite:///{tmp_path / 'm.db'}")
    client = client_of(tmp_path / "m.db")
    assert "belongs to another user" in client.get("/workflow/r/task/0").text
    assert "link on the way to it is another user" in client.get("/workflow/r/task/1").text


@pytest.mark.parametrize("content", [None, b"", b"some text", b"SQLite format 3\x00" + b"\xff" * 3000])
def test_what_is_no_database_gets_a_clear_page(tmp_path: Path, content: bytes | None, client_of: ClientOf) -> None:
    path = tmp_path / "m.db"
    if content is not None:
        path.write_bytes(content)
    client = client_of(path)
    for address_ in ("/", "/workflow/x/", "/api/workflows"):
        answer = client.get(address_)
        assert answer.status_code == 503
        assert "m.db" in answer.text
        assert "Traceback" not in answer.text
    assert path.exists() is (content is not None)


def test_an_empty_database_says_how_to_fill_it(tmp_path: Path, client_of: ClientOf) -> None:
    upgrade(f"sqlite:///{tmp_path / 'm.db'}")
    assert "MonitoringHub()" in client_of(tmp_path / "m.db").get("/").text


def test_a_locked_database_is_said_to_be_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client_of: ClientOf
) -> None:
    monkeypatch.setattr("flow_monitor.queries.database._LOCK_WAIT_S", 0.05)
    path = make_database(tmp_path, SyntheticRun(run_id="r", tasks=8, samples=0))
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("PRAGMA journal_mode=DELETE")
    lock.execute("BEGIN EXCLUSIVE")
    answer = client_of(path).get("/")
    lock.execute("ROLLBACK")
    lock.close()
    assert answer.status_code == 503
    assert "locked" in answer.text


def test_everything_comes_from_the_package(client: FlaskClient) -> None:
    for page in ("/", *(f"/workflow/good/{page}" for page in PAGES)):
        text = client.get(page).text
        for link in re.findall(r'(?:src|href)="([^"]+)"', text):
            assert link.startswith(("/", "?", "#")), link
        for source in re.findall(r'<script src="([^"]+)"|<link rel="[a-z]+" href="([^"]+)"', text):
            with client.get("".join(source)) as answer:
                assert answer.status_code == 200
        assert not re.search(r"<script(?! src=)", text)
        assert " onclick" not in text


def test_pages_forbid_foreign_code(client: FlaskClient) -> None:
    headers = client.get("/").headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe-eval" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_foreign_name_for_this_machine_is_refused(client: FlaskClient) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
    for host in ("127.0.0.1:8080", "localhost:50000", "[::1]:8080"):
        assert client.get("/", headers={"Host": host}).status_code == 200


def test_with_a_token_only_those_who_know_it_look(directory: Path, client_of: ClientOf) -> None:
    client = client_of(directory / "monitoring.db", "t0ken")
    assert client.get("/").status_code == 401
    assert client.get("/api/workflows").status_code == 401
    assert client.get("/api/workflows", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/api/workflows", headers={"Authorization": "Bearer t0ken"}).status_code == 200
    assert client.post("/token", data={"token": "wrong"}).status_code == 401
    answer = client.get("/workflow/good/?token=t0ken&x=1", headers={"Host": "node.example"})
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/workflow/good/?x=1"
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert client.get("/workflow/good/", headers={"Host": "node.example"}).status_code == 200


def test_the_redirect_without_the_token_stays_on_this_server(directory: Path, client_of: ClientOf) -> None:
    client = client_of(directory / "monitoring.db", "t0ken")
    location = client.get("////evil.example/?token=t0ken").headers["Location"]
    assert "//evil" not in location.removeprefix("http://localhost")


def test_the_token_can_be_typed_in(directory: Path, client_of: ClientOf) -> None:
    client = client_of(directory / "monitoring.db", "t0ken")
    assert client.post("/token", data={"token": "t0ken"}).status_code == 302
    assert client.get("/").status_code == 200


def test_a_cookie_that_somebody_else_was_sent_opens_no_later_server_of_the_same_token(directory: Path) -> None:
    with open_database(str(directory / "monitoring.db")) as database:
        first, later = (create_app(database, "t0ken").test_client(use_cookies=False) for _ in range(2))
        cookie = first.get("/?token=t0ken").headers["Set-Cookie"].partition(";")[0]
        # Who listens at the port afterwards is sent it by the browser.
        assert first.get("/api/workflows", headers={"Cookie": cookie}).status_code == 200
        assert later.get("/api/workflows", headers={"Cookie": cookie}).status_code == 401
        as_token = {"Authorization": f"Bearer {cookie.partition('=')[2]}"}
        assert first.get("/api/workflows", headers=as_token).status_code == 401


NOW = time.time_ns()


def test_a_run_last_heard_of_long_ago_is_not_live(tmp_path: Path, client_of: ClientOf) -> None:
    client = client_of(make_database(tmp_path, SyntheticRun(run_id="old", tasks=30, ended=False)))
    forget_the_end(tmp_path, "old")
    page = client.get("/workflow/old/").text
    assert 'data-live=""' in page
    assert 'data-follow=""' in page
    assert "<title>synthetic.py (silent)" in page
    assert "Running for" not in page
    assert re.search(r"last heard of (\d+ (month|year|week)s ago)", page)
    pulse = client.get("/api/workflows/old/pulse").json
    assert (pulse["live"], pulse["follow"], pulse["state"]) == (False, False, "silent")
    home = client.get("/").text
    assert 'data-live=""' in home
    assert 'data-follow="1"' in home
    assert "not known</span>" in client.get("/workflow/old/blocks").text


def test_a_run_that_went_silent_a_moment_ago_is_looked_at_seldom(tmp_path: Path, client_of: ClientOf) -> None:
    run = SyntheticRun(run_id="asleep", tasks=30, ended=False, began_ns=NOW - 600 * 10**9)
    client = client_of(make_database(tmp_path, run))
    forget_the_end(tmp_path, "asleep")
    assert client.get("/api/workflows/asleep/pulse").json["follow"] is True
    page = client.get("/workflow/asleep/").text
    assert 'data-live="" data-follow="1"' in page


def forget_the_end(directory: Path, run_id: str) -> None:
    """Take back that a run's projection found it dead."""
    with closing(sqlite3.connect(directory / "monitoring.db")) as connection, connection:
        connection.execute("UPDATE workflow SET ended_how = NULL WHERE run_id = ?", [run_id])
        connection.execute("UPDATE projection SET finished = 0, heartbeat = NULL WHERE run_id = ?", [run_id])
        connection.execute("UPDATE node SET time_left = NULL, reason = NULL WHERE run_id = ?", [run_id])


def test_no_node_of_a_run_that_ended_is_connected(client: FlaskClient, directory: Path) -> None:
    for run in ("good", "dead"):
        assert "connected" not in client.get(f"/workflow/{run}/blocks").text
        assert all(node["time_left"] for node in client.get(f"/api/workflows/{run}/nodes").json)


def test_tasks_of_which_nobody_knows_whether_they_run_are_counted_as_one(tmp_path: Path, client_of: ClientOf) -> None:
    began = time.time_ns()
    place = Place("htex", "0", "node", "m", 0, 1)
    events: list[Event] = [RunStarted(began, "r", 1, "x.py", "/x.py", "0.1.0", "3.11", "h", "u", "/r", ("htex",))]
    for task_id in range(9):
        events.append(TaskSubmitted(began + 1, task_id, "work", "python", "", ("htex",), ()))
        events.append(TryLaunched(began + 2, task_id, 0, task_id + 1, "htex"))
    events += [TryStarted(began + 3, task_id, 0, place) for task_id in (0, 1)]
    run_dir = tmp_path / "000"
    write_log(run_dir, "r", events)
    rebuild(run_dir, f"sqlite:///{tmp_path / 'monitoring.db'}")
    forget_the_end(tmp_path, "r")
    client = client_of(tmp_path / "monitoring.db")
    assert "Nothing is known yet of what tasks use" in client.get("/workflow/r/resources").text
    page = client.get("/workflow/r/").text
    assert re.search(r"state=launched&(amp;)?state=running\">.*queued or running</span> <b>9</b>", page)
    assert not re.search(r"running</span> <b>2</b>", page)


def test_missing_events_are_told_with_the_time_from_when_to_when(tmp_path: Path, client_of: ClientOf) -> None:
    run = SyntheticRun(run_id="r", tasks=9)
    gap = EventsLost(run.began_ns + 9 * 10**9, 7, "the event log could not be written", run.began_ns)
    write_log(tmp_path / "000", "r", [*run.events(), gap])
    rebuild(tmp_path / "000", f"sqlite:///{tmp_path / 'monitoring.db'}")
    client = client_of(tmp_path / "monitoring.db")
    page = client.get("/workflow/r/").text
    assert "7 between 2025-10-09 08:53:20 and 2025-10-09 08:53:29 (the event log could not be written)" in page
    assert "(the event log could not be written). What is shown is without them." in page
    assert client.get("/api/workflows/r/gaps").json[0]["time_first"] == run.began_ns


def test_what_is_not_measured_is_said_to_be(tmp_path: Path, client_of: ClientOf) -> None:
    path = make_database(tmp_path, SyntheticRun(run_id="r", tasks=8, samples=0))
    client = client_of(path)
    page = client.get("/workflow/r/resources").text
    assert "CPU of tasks" in page, "their workers told what they used in all"
    assert "Nodes: CPU" not in page
    assert "Disk and network" not in client.get("/workflow/r/task/0").text


def test_a_task_shows_what_it_read_wrote_sent_and_received(tmp_path: Path, client_of: ClientOf) -> None:
    path = make_database(tmp_path, SyntheticRun(run_id="r", tasks=8, samples=40))
    client = client_of(path)
    page = client.get("/workflow/r/task/0").text
    assert "Disk and network" in page
    assert re.search(r"<td class=\"num\">[\d.]+ [KM]iB, [\d.]+ [KM]iB</td>", page), "sent, received"
    figure = client.get("/workflow/r/task/0/flow.json").get_json()
    lines = {trace["name"]: trace["y"] for trace in figure["data"]}
    assert set(lines) == {"disk read", "disk written", "network sent", "network received"}
    assert lines["network received"] == sorted(lines["network received"])
    as_version(path, 3)
    upgrade(f"sqlite:///{path}")
    page = client_of(path).get("/workflow/r/task/0").text
    assert not re.search(r"iB, [\d.]+ [KM]iB</td>", page), "before version 4 it was not measured"
    lines = {trace["name"] for trace in client_of(path).get("/workflow/r/task/0/flow.json").get_json()["data"]}
    assert lines == {"disk read", "disk written"}


def test_a_task_that_is_not_done_says_why(tmp_path: Path, client_of: ClientOf) -> None:
    run_dir = tmp_path / "000"
    second = 1_000_000_000
    now = time.time_ns()
    write_log(
        run_dir,
        "live",
        [
            RunStarted(now, "live", 1, "name", "", "", "", "host", "user", str(run_dir), ("htex",)),
            *(TaskSubmitted(now, n, "first", "python", "", ("htex",), ()) for n in (0, 1)),
            TaskSubmitted(now, 2, "last", "python", "", ("htex",), (0, 1)),
            *(TryLaunched(now + n, n, 0, n + 1, "htex") for n in (0, 1)),
            BlockChanged(now - 60 * second, "htex", "0", "4711", "PENDING", "QOSMaxJobsPerUserLimit"),
            NodeHeld(now, "htex", "node7", "its last 10 tasks failed"),
        ],
    )
    rebuild(run_dir, f"sqlite:///{tmp_path / 'monitoring.db'}")
    with closing(sqlite3.connect(tmp_path / "monitoring.db")) as database, database:
        database.execute("UPDATE workflow SET ended_how = NULL")  # it was rebuilt while the run went on
    client = client_of(tmp_path / "monitoring.db")
    waiting = " ".join(re.sub(r"<[^>]*>", "", client.get("/workflow/live/task/2").text).split())
    queued = " ".join(re.sub(r"<[^>]*>", "", client.get("/workflow/live/task/1").text).split())
    assert 'href="/workflow/live/task/0"' in client.get("/workflow/live/task/2").text
    told = client.get("/api/workflows/live/tasks/1").get_json()["waiting"]
    assert "2 tasks that it waits for have not ended: 0 first queued, 1 first queued" in waiting
    assert "It has not been tried yet." in waiting
    assert "It is queued since" in queued
    assert "executor htex has it, and no start was reported" in queued
    assert "1 task called before it is queued there, too" in queued
    assert "No node of htex is connected." in queued
    assert "Block 0 (job 4711) is pending since" in queued
    assert "with the reason “QOSMaxJobsPerUserLimit”" in queued
    assert "Node node7 is held since" in queued
    assert "gets no tasks of htex: its last 10 tasks failed." in queued
    assert (told["ahead"], told["blocks"][0]["reason"]) == (1, "QOSMaxJobsPerUserLimit")
    assert told["held"][0]["host"] == "node7"


def test_a_node_that_is_held_says_so_since_when_and_how_to_free_it(tmp_path: Path, client_of: ClientOf) -> None:
    run_dir, now = tmp_path / "000", time.time_ns()
    write_log(
        run_dir,
        "live",
        [
            RunStarted(now, "live", 1, "name", "", "", "", "host", "user", str(run_dir), ("htex",)),
            *(NodeJoined(now, "htex", "0", f"node{n}", f"m{n}", 1, 4, 8, 0, "3.11") for n in (6, 7, 8)),
            *(NodeHeld(now, "htex", f"node{n}", "its last 10 tasks failed") for n in (7, 8)),
            NodeHeld(now + 1, "htex", "node8", ""),
        ],
    )
    rebuild(run_dir, f"sqlite:///{tmp_path / 'monitoring.db'}")
    with closing(sqlite3.connect(tmp_path / "monitoring.db")) as database, database:
        database.execute("UPDATE workflow SET ended_how = NULL")  # it was rebuilt while the run went on
        database.execute("UPDATE node SET time_left = NULL")
    page = client_of(tmp_path / "monitoring.db").get("/workflow/live/blocks").text
    rows = [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL)]
    states = {row.split()[0]: row for row in rows if row.startswith("node")}
    assert " connected htex" in states["node6"]
    assert " held htex" in states["node7"]
    assert " connected htex" in states["node8"]
    assert "its last 10 tasks failed (free it by flow nodes free node7" in states["node7"]


def test_a_task_that_its_run_left_behind_says_that(client: FlaskClient) -> None:
    pages = [client.get(f"/workflow/dead/task/{number}").text for number in range(24, 30)]
    assert any("Its run has ended: it goes no further." in page for page in pages)

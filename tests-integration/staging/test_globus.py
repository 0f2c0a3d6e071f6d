"""Globus through the real globus-sdk, against a local server that speaks its API and copies files."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from flow_core.errors import ConfigurationError, StagingError
from flow_core.files import Directory, Glob

pytest.importorskip("globus_sdk", reason="globus-sdk is missing: pip install globus-sdk")

from staging_globus import Globus, Task, expired, valid
from staging_servers import incoming, outgoing, visible

from flow_staging.globus import batch as globus_batch
from flow_staging.globus.batch import Batch, Item, Phase
from flow_staging.globus.login import GlobusLogin, Tokens, TokenStore
from flow_staging.globus.transfer import GlobusStaging
from flow_staging.transfer.retry import LeastSpeed, Pace


@dataclass
class World:
    """A Globus, an endpoint elsewhere, and the executor's own, which it names below ``/shared``."""

    globus: Globus
    other: str
    there: Path
    mine: str
    here: Path
    store: TokenStore

    def staging(self, **options) -> GlobusStaging:
        options = {"timeout_s": 40, "poll_s": (0.01, 0.05), "token_file": str(self.store.path), **options}
        return GlobusStaging(self.mine, "/shared", str(self.here), **options)

    def url(self, path: str) -> str:
        return f"globus://{self.other}{path}"


@pytest.fixture
def world(tmp_path, monkeypatch):
    globus = Globus(tmp_path)
    monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_TRANSFER", globus.url)
    monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_AUTH", globus.url)
    other, there = globus.endpoint("there")
    mine, root = globus.endpoint("mine")
    (root / "shared").mkdir()
    store = TokenStore(tmp_path / "config" / "tokens.json")
    store.save(Tokens(str(uuid.uuid4()), "at-0", "rt-0", valid()))
    yield World(globus, other, there, mine, root / "shared", store)
    globus.close()


@pytest.fixture
def method(world):
    staging = world.staging()
    yield staging
    staging.close()


def go(method: GlobusStaging, *transfers) -> None:
    method.stage(list(transfers)).result(50)


def refused(method: GlobusStaging, *transfers) -> str:
    with pytest.raises(StagingError, match="task 7 on executor here") as caught:
        go(method, *transfers)
    return str(caught.value)


def test_files_of_one_task_come_in_by_one_transfer(world, method):
    for name in "abc":
        (world.there / f"{name} x").write_text(name)
    go(method, *[incoming(world.url(f"/{name}%20x"), world.here / "wd" / name) for name in "abc"])
    assert [(world.here / "wd" / name).read_text() for name in "abc"] == ["a", "b", "c"]
    assert visible(world.here) == ["a", "b", "c", "wd"]
    (transfer,) = world.globus.transfers()
    assert transfer.work["verify_checksum"] is True
    assert transfer.work["label"] == "Flow task 7"
    assert transfer.work["notify_on_succeeded"] is False


@pytest.mark.parametrize("name", ["out#1?.txt", "data[1]*.txt", "100%25.txt", "naïve ☃", "-rf"])
def test_a_name_is_a_name(world, method, name):
    called = name.replace("%25", "%")
    (world.here / "a").write_text(name)
    go(method, outgoing(world.here / "a", world.url(f"/{name}")))
    assert visible(world.there) == [called]
    go(method, incoming(world.url(f"/{name}"), world.here / called))
    assert (world.here / called).read_text() == name


def test_a_name_that_is_no_text_is_refused(world, method):
    assert "not UTF-8" in refused(method, incoming(world.url("/%FF"), world.here / "a"))


def test_files_go_out_under_their_names_only_when_whole(world, method):
    (world.here / "a").write_text("a")
    seen = []
    world.globus.on_look = lambda task: seen.append(visible(world.there)) and False
    go(method, outgoing(world.here / "a", world.url("/out/a")))
    assert (world.there / "out" / "a").read_text() == "a"
    assert visible(world.there) == ["a", "out"]
    (transfer,) = world.globus.transfers()
    assert transfer.work["DATA"][0]["destination_path"].startswith("/out/.flow-")


def test_files_go_from_one_endpoint_to_another_through_ours(world, method):
    third, far = world.globus.endpoint("third")
    (world.there / "a").write_text("a")
    go(method, incoming(world.url("/a"), world.here / "a"))
    go(method, outgoing(world.here / "a", f"globus://{third}/sorted/a"))
    assert (far / "sorted" / "a").read_text() == "a"


@pytest.mark.parametrize("renames_over", [True, False])
def test_an_output_replaces_an_older_one(world, method, renames_over):
    world.globus.renames_over = renames_over
    (world.there / "a").write_text("old")
    (world.here / "a").write_text("new")
    go(method, outgoing(world.here / "a", world.url("/a")))
    assert (world.there / "a").read_text() == "new"
    assert visible(world.there) == ["a"]


def test_files_are_renamed_by_globus_where_this_side_does_not_see_them(world, method, tmp_path):
    staging = GlobusStaging(
        world.mine, "/shared", "/seen/by/executors", timeout_s=40, poll_s=(0.01, 0.05), token_file=str(world.store.path)
    )
    (world.there / "a").write_text("a")
    go(staging, incoming(world.url("/a"), Path("/seen/by/executors/wd/a")))
    assert (world.here / "wd" / "a").read_text() == "a"
    assert visible(world.here) == ["a", "wd"]
    staging.close()


def test_a_missing_file_is_named_and_nothing_is_left(world, method):
    (world.there / "a").write_text("a")
    transfers = [incoming(world.url(f"/{name}"), world.here / name) for name in ("a", "missing")]
    said = refused(method, *transfers)
    assert "No such file or directory" in said
    assert "/missing" in said
    while not all(task.document["status"] != "ACTIVE" for task in world.globus.tasks.values()):
        for task_id in world.globus.tasks:
            look(world, task_id)
    assert visible(world.here) == []


def look(world: World, task_id: str) -> None:
    import globus_sdk

    globus_sdk.TransferClient(authorizer=globus_sdk.AccessTokenAuthorizer("at-0")).get_task(task_id)


def test_trouble_that_passes_is_waited_out_and_logged(world, method, caplog):
    def trouble(task: Task) -> bool:
        if task.looks < 4:
            task.document["nice_status"] = "CONNECTION_RESET"
            task.note("the other side hung up") if task.looks == 1 else None
            return True
        task.document["nice_status"] = "OK"
        return False

    world.globus.on_look = trouble
    (world.there / "a").write_text("a")
    with caplog.at_level(logging.WARNING, "flow.staging.globus"):
        go(method, incoming(world.url("/a"), world.here / "a"))
    assert (world.here / "a").read_text() == "a"
    assert "the other side hung up" in caplog.text


def test_trouble_that_cannot_pass_ends_the_transfer_at_once(world, method):
    def trouble(task: Task) -> bool:
        task.document["nice_status"] = "PERMISSION_DENIED"
        task.note("Path not allowed: /a")
        return True

    world.globus.on_look = trouble
    assert "Path not allowed" in refused(method, incoming(world.url("/a"), world.here / "a"))
    assert world.globus.transfers()[0].document["nice_status"] == "CANCELED"


def test_a_paused_transfer_is_waited_for(world, method, caplog):
    def pause(task: Task) -> bool:
        task.document["is_paused"] = task.looks < 4
        return task.looks < 4

    world.globus.on_look = pause
    (world.there / "a").write_text("a")
    with caplog.at_level(logging.WARNING, "flow.staging.globus"):
        go(method, incoming(world.url("/a"), world.here / "a"))
    assert (world.here / "a").read_text() == "a"
    assert caplog.text.count("paused by an endpoint's manager") == 1


def test_a_transfer_that_takes_too_long_is_cancelled_with_its_state(world):
    staging = world.staging(timeout_s=0.3)

    def pause(task: Task) -> bool:
        task.document["is_paused"] = True
        return True

    world.globus.on_look = pause
    said = refused(staging, incoming(world.url("/a"), world.here / "a"))
    assert "not complete within 0.3 s; Globus says: paused" in said
    assert world.globus.transfers()[0].document["nice_status"] == "CANCELED"
    staging.close()


def test_a_suspended_transfer_asks_for_a_login(world, method):
    def suspend(task: Task) -> bool:
        task.document.update(status="INACTIVE", nice_status="CREDENTIALS_EXPIRED")
        return True

    world.globus.on_look = suspend
    assert "run flow-globus-auth" in refused(method, incoming(world.url("/a"), world.here / "a"))


def test_an_expired_access_token_is_renewed_and_kept(world, method):
    world.store.save(Tokens("c0ffee00-0000-4000-8000-000000000000", "at-old", "rt-0", expired()))
    (world.there / "a").write_text("a")
    go(method, incoming(world.url("/a"), world.here / "a"))
    kept = world.store.load()
    assert kept is not None
    assert kept.access_token == "at-1"
    assert kept.refresh_token == "rt-1"
    assert kept.client_id == "c0ffee00-0000-4000-8000-000000000000"
    assert world.store.path.stat().st_mode & 0o777 == 0o600


def test_an_access_token_withdrawn_in_the_middle_is_renewed(world, method):
    world.globus.on_look = lambda task: task.looks == 1 and bool(world.globus.good.clear()) is False
    (world.there / "a").write_text("a")
    go(method, incoming(world.url("/a"), world.here / "a"))
    assert (world.here / "a").read_text() == "a"


def test_a_login_that_was_withdrawn_says_what_to_do(world, method):
    world.store.save(Tokens(str(uuid.uuid4()), "at-old", "rt-old", expired()))
    assert "run flow-globus-auth" in refused(method, incoming(world.url("/a"), world.here / "a"))


def test_nobody_logged_in_says_what_to_do(world, method):
    world.store.path.unlink()
    assert "run flow-globus-auth" in refused(method, incoming(world.url("/a"), world.here / "a"))


def test_a_lost_answer_does_not_start_a_second_transfer(world, method):
    world.globus.refuse["/transfer"] = [502, "BadGateway", 1]
    (world.there / "a").write_text("a")
    go(method, incoming(world.url("/a"), world.here / "a"))
    assert len(world.globus.transfers()) == 1


def test_a_collection_that_wants_consent_says_what_to_do(world, method):
    world.globus.refuse["/transfer"] = [403, "ConsentRequired", 10]
    assert "--data-access" in refused(method, incoming(world.url("/a"), world.here / "a"))


def test_many_transfers_share_one_thread(world, method):
    import threading

    for n in range(30):
        (world.there / str(n)).write_text(str(n))
    world.globus.on_look = lambda task: task.looks < 3
    futures = [method.stage([incoming(world.url(f"/{n}"), world.here / str(n), n)]) for n in range(30)]
    assert sum(thread.name == "flow-globus" for thread in threading.enumerate()) == 1
    for n, future in enumerate(futures):
        future.result(50)
        assert (world.here / str(n)).read_text() == str(n)


def test_thousands_of_files_of_one_task_are_one_transfer(world, method):
    names = [f"{n:04}" for n in range(3000)]
    for name in names:
        (world.there / name).write_text(name)
    go(method, *[incoming(world.url(f"/{name}"), world.here / "wd" / name) for name in names])
    assert len(world.globus.transfers()) == 1
    assert len(world.globus.transfers()[0].work["DATA"]) == 3000
    assert visible(world.here) == [*names, "wd"]
    assert all((world.here / "wd" / name).read_text() == name for name in names)


def test_renaming_many_files_of_one_task_does_not_hold_up_another(world, method):
    for n in range(300):
        (world.here / str(n)).write_text(str(n))
    (world.there / "a").write_text("a")
    many = method.stage([outgoing(world.here / str(n), world.url(f"/out/{n}")) for n in range(300)])
    while not any(path.endswith("/rename") for _, path in world.globus.seen):
        assert not many.done()
    go(method, incoming(world.url("/a"), world.here / "a", 8))
    between = sum(path.endswith("/rename") for _, path in world.globus.seen)
    many.result(50)
    assert between < 300
    assert sorted(map(int, visible(world.there / "out"))) == list(range(300))


def test_a_rename_whose_answer_was_lost_is_not_done_twice(world, method):
    world.globus.lost_renames = 2
    for name in "abc":
        (world.here / name).write_text(name)
    go(method, *[outgoing(world.here / name, world.url(f"/{name}")) for name in "abc"])
    assert visible(world.there) == ["a", "b", "c"]


def test_a_hundred_tasks_of_twenty_files_at_once(world, method):
    for n in range(2000):
        (world.there / str(n)).write_text(str(n))
    world.globus.on_look = lambda task: task.looks < 2
    futures = [
        method.stage([incoming(world.url(f"/{n}"), world.here / str(n), task) for n in range(task, 2000, 100)])
        for task in range(100)
    ]
    for future in futures:
        future.result(50)
    assert len(world.globus.transfers()) == 100
    assert sorted(map(int, visible(world.here))) == list(range(2000))


def test_closing_cancels_what_is_under_way_and_a_second_run_works(world, method):
    world.globus.on_look = lambda task: True
    future = method.stage([incoming(world.url("/a"), world.here / "a")])
    while not world.globus.transfers() or not world.globus.transfers()[0].looks:
        assert not future.done()
    method.close()
    with pytest.raises(StagingError, match="stopped"):
        future.result(10)
    assert world.globus.transfers()[0].document["nice_status"] == "CANCELED"
    world.globus.on_look = lambda task: False
    (world.there / "a").write_text("a")
    go(method, incoming(world.url("/a"), world.here / "a"))


@pytest.mark.parametrize("path", ["", "/", "/dir/", "/x/../../y"])
def test_urls_that_name_no_file_are_refused(world, method, path):
    refused(method, incoming(world.url(path), world.here / "a"))
    assert world.globus.seen == []


def test_a_path_outside_of_the_endpoint_is_refused(world, method, tmp_path):
    assert "not below local_path" in refused(method, incoming(world.url("/a"), tmp_path / "a"))
    assert "ENDPOINT-UUID" in refused(method, incoming("globus://not-a-uuid/a", world.here / "a"))


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint_uuid": "x"},
        {"endpoint_path": "relative"},
        {"local_path": "/a/../b"},
        {"timeout_s": 0},
        {"poll_s": (2, 1)},
    ],
)
def test_wrong_options_are_refused_by_name(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        GlobusStaging(**{"endpoint_uuid": str(uuid.uuid4()), **options})


def test_a_place_without_a_working_directory_lies_below_the_endpoint(world, method, monkeypatch):
    assert method.files_home == str(world.here)
    monkeypatch.chdir(world.here)
    assert GlobusStaging(str(uuid.uuid4()), "/", str(world.here)).files_home is None  # what the run has lies below


# -- logging in


def auth(world: World, *arguments: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flow_staging.globus.cli", *arguments],
        input=code,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "FLOW_GLOBUS_TOKENS": str(world.store.path), **environment},
        check=False,
    )


def test_the_command_does_nothing_when_the_login_is_good(world):
    done = auth(world)
    assert done.returncode == 0
    assert done.stdout.startswith("Flow Globus command-line authoriser\n")
    assert done.stdout.endswith("Authorization complete\n")
    assert world.globus.seen == []


def test_the_command_takes_the_user_through_the_browser(world):
    world.store.path.unlink()
    client = "c0ffee00-0000-4000-8000-000000000000"
    done = auth(world, "--client-id", client, "--data-access", world.other, code="the-code\n")
    assert done.returncode == 0, done.stderr
    assert "oauth2/authorize" in done.stdout
    assert world.other in done.stdout
    kept = world.store.load()
    assert kept is not None
    assert kept.client_id == client
    assert world.store.path.stat().st_mode & 0o777 == 0o600


def test_a_wrong_code_is_refused(world):
    world.store.path.unlink()
    done = auth(world, FLOW_GLOBUS_CLIENT_ID=str(uuid.uuid4()), code="wrong\n")
    assert done.returncode == 1
    assert "did not take the code" in done.stderr
    assert not world.store.path.exists()


def test_a_missing_client_id_says_how_to_get_one(world):
    world.store.path.unlink()
    done = auth(world, FLOW_GLOBUS_CLIENT_ID="")
    assert done.returncode == 1
    assert "app.globus.org/settings/developers" in done.stderr


def test_no_code_is_no_login(world):
    done = auth(world, "--force")
    assert done.returncode == 1
    assert "flow-globus-auth:" in done.stderr


def test_rights_of_others_on_the_tokens_are_taken_away(world):
    world.store.path.chmod(0o644)
    assert GlobusLogin(store=world.store).works()
    assert world.store.path.stat().st_mode & 0o777 == 0o600


def test_a_cancelled_transfer_is_cancelled_at_the_service_and_others_go_on(world, method):
    world.globus.on_look = lambda task: "/a" in str(task.work)
    (world.there / "b").write_text("b")
    future = method.stage([incoming(world.url("/a"), world.here / "a")])
    while not world.globus.transfers() or not world.globus.transfers()[0].looks:
        assert not future.done()
    future.cancel()
    with pytest.raises(StagingError, match="stopped"):
        future.result(20)
    assert world.globus.transfers()[0].document["nice_status"] == "CANCELED"
    go(method, incoming(world.url("/b"), world.here / "b"))
    assert visible(world.here) == ["b"]


def test_a_transfer_cancelled_before_it_began_is_never_submitted(world):
    method = world.staging(poll_s=(30.0, 30.0))
    started, go_on = threading.Event(), threading.Event()

    def connect():
        started.set()
        assert go_on.wait(20)
        raise AssertionError("nothing is to be asked for")

    method._poller._connect = connect
    other = method.stage([incoming(world.url("/x"), world.here / "x")])
    assert started.wait(20)
    future = method.stage([incoming(world.url("/a"), world.here / "a")])
    future.cancel()
    go_on.set()
    for one in (future, other):
        with pytest.raises(StagingError):
            one.result(20)
    assert world.globus.transfers() == []
    method.close()


def test_a_transfer_that_is_too_slow_is_cancelled_and_one_that_is_paused_is_not():
    told = {"status": "ACTIVE", "bytes_transferred": 10, "is_paused": False}
    now, cancelled = [0.0], []

    class Api:
        def get_task(self, task_id: str) -> dict[str, object]:
            return dict(told)

        def cancel_task(self, task_id: str) -> None:
            cancelled.append(task_id)

        def submit_delete(self, data: object) -> dict[str, object]:
            return {"task_id": "gone"}

    item = Item(incoming("globus://x/a", Path("/a")), "/a", "/b", "/.b")
    batch = Batch("source", "destination", [item], 60, LeastSpeed("GlobusStaging", 100, 30))
    batch.phase, batch.task_id = Phase.WAIT, "t"
    monkey = pytest.MonkeyPatch()
    monkey.setattr(globus_batch, "Pace", lambda policy: Pace(policy, lambda: now[0]))
    try:
        for at, moved, paused in ((0, 10, False), (20, 20, False), (29, 30, True), (90, 30, True), (100, 40, False)):
            now[0] = float(at)
            told.update(bytes_transferred=moved, is_paused=paused)
            assert not batch.step(Api(), late=False)
        now[0] = 131.0
        told.update(bytes_transferred=50)
        assert batch.step(Api(), late=False)
    finally:
        monkey.undo()
    assert "where least_speed=100, least_speed_window_s=30" in str(batch.future.exception(0))
    assert cancelled == ["t"]
    with pytest.raises(ConfigurationError, match="least_speed"):
        GlobusStaging(str(uuid.uuid4()), least_speed=-1)


def test_directories_go_both_ways_and_join_what_is_there(world, method):
    made = world.here / "wd" / "made"
    (made / "deep").mkdir(parents=True)
    (made / "deep" / "a b").write_text("x")
    (world.there / "out").mkdir()
    (world.there / "out" / "older").write_text("older")
    out = Directory(world.url("/out/"))
    method.stage([replace(outgoing(made, out.url), file=out)]).result(50)
    assert (world.there / "out" / "deep" / "a b").read_text() == "x"
    assert (world.there / "out" / "older").read_text() == "older"
    found = world.here / "wd" / "found"
    method.stage([replace(incoming(out.url, found), file=out)]).result(50)
    assert visible(found) == ["a b", "deep", "older"]
    assert visible(world.here / "wd") == ["a b", "a b", "deep", "deep", "found", "made", "older"]
    gone = Directory(world.url("/none"))
    assert "No such file" in refused(method, replace(incoming(gone.url, world.here / "wd" / "x"), file=gone))
    assert not (world.here / "wd" / "x").exists()
    never = replace(outgoing(world.here / "wd" / "never", out.url), file=out)
    assert "did not make this directory" in refused(method, never)


def test_the_files_of_a_pattern_go_out_by_one_transfer(world, method):
    made = world.here / "wd" / "plots"
    made.mkdir(parents=True)
    for name in ("a.png", "b.png", "c.txt"):
        (made / name).write_text(name)
    pattern = Glob(world.url("/plots/*.png"))
    method.stage([replace(outgoing(made, "x"), file=pattern)]).result(50)
    assert visible(world.there) == ["a.png", "b.png", "plots"]
    assert len(world.globus.transfers()) == 1

"""ftp both ways against pyftpdlib, with transfers cut in the middle."""

from __future__ import annotations

import os
import pickle
import resource
import socket
from pathlib import Path

import pytest

from flow_core.errors import StagingError
from flow_core.files import Directory, File, Glob
from flow_core.interfaces.call import NodeContext
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging import ftp_listing
from flow_staging.ftp import FTPInTaskStaging, FTPSeparateTaskStaging
from flow_staging.transfer.retry import Control, RetryPolicy

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer, SilentFtpServer
from staging_servers import QUICK, incoming, outgoing, same, visible


@pytest.fixture
def wd(tmp_path):
    path = tmp_path / "wd"
    path.mkdir()
    return path


@pytest.fixture
def method():
    staging = FTPSeparateTaskStaging(retry=QUICK)
    yield staging
    staging.close()


def go(method: FTPSeparateTaskStaging, *transfers) -> None:
    method.stage(list(transfers)).result(50)


def refused(method: FTPSeparateTaskStaging, *transfers) -> str:
    with pytest.raises(StagingError) as caught:
        go(method, *transfers)
    assert "task 7" in str(caught.value)
    assert caught.value.url in str(caught.value)
    return str(caught.value)


def test_a_file_arrives(method, ftp, root, wd, payload):
    (root / "sub").mkdir()
    (root / "sub" / "with space").write_bytes(payload)
    go(method, incoming(ftp.url("/sub/with%20space"), wd / "a"))
    assert (wd / "a").read_bytes() == payload


def test_an_empty_file_goes_both_ways(method, ftp, root, wd):
    (root / "a").write_bytes(b"")
    go(method, incoming(ftp.url("/a"), wd / "a"))
    go(method, outgoing(wd / "a", ftp.url("/b")))
    assert visible(root) == ["a", "b"]


@pytest.mark.parametrize("politely", [True, False])
def test_a_file_cut_twice_on_its_way_in_goes_on_where_it_stopped(method, ftp, root, wd, payload, politely):
    (root / "a").write_bytes(payload)
    ftp.stopped_politely = politely
    ftp.cuts.extend([1_000_000, 1_000_000])
    go(method, incoming(ftp.url("/a"), wd / "a"))
    assert (wd / "a").read_bytes() == payload
    rests = [int(command[5:]) for command in ftp.commands if command.startswith("REST")]
    assert len(rests) == 2
    assert 0 < rests[0] < rests[1]


@pytest.mark.parametrize("politely", [True, False])
def test_a_file_cut_twice_on_its_way_out_goes_on_where_it_stopped(method, ftp, root, wd, payload, politely):
    (wd / "a").write_bytes(payload)
    ftp.stopped_politely = politely
    ftp.cuts.extend([1_000_000, 1_000_000])
    go(method, outgoing(wd / "a", ftp.url("/a")))
    assert (root / "a").read_bytes() == payload
    assert visible(root) == ["a"]
    rests = [int(command[5:]) for command in ftp.commands if command.startswith("REST")]
    assert len(rests) == 2
    assert 0 < rests[0] < rests[1]


def test_directories_for_an_output_are_made(method, ftp, root, wd):
    (wd / "a").write_bytes(b"x")
    go(method, outgoing(wd / "a", ftp.url("/deep/down/a")))
    assert (root / "deep" / "down" / "a").read_bytes() == b"x"


def test_a_server_without_dates_is_asked_for_the_whole_again(root, wd, payload, method):
    (root / "a").write_bytes(payload)
    ftp = FtpServer(root, dates=False)
    ftp.cuts.append(1_000_000)
    go(method, incoming(ftp.url("/a"), wd / "a"))
    assert (wd / "a").read_bytes() == payload
    assert not any(command.startswith("REST") for command in ftp.commands)
    ftp.close()


def test_a_digest_of_the_server_is_checked_both_ways(root, wd, payload, method):
    ftp = FtpServer(root, hashes=True)
    (root / "a").write_bytes(payload)
    go(method, incoming(ftp.url("/a"), wd / "a"))
    go(method, outgoing(wd / "a", ftp.url("/b")))
    assert (root / "b").read_bytes() == payload
    assert sum(command.startswith("XSHA256") for command in ftp.commands) == 2
    ftp.close()


def test_a_wrong_digest_leaves_nothing_on_either_side(root, wd, payload, method):
    ftp = FtpServer(root, hashes=True, lie=True)
    (root / "a").write_bytes(payload)
    assert "sha256 digest" in refused(method, incoming(ftp.url("/a"), wd / "a"))
    assert visible(wd) == []
    (wd / "b").write_bytes(payload)
    assert "sha256 digest" in refused(method, outgoing(wd / "b", ftp.url("/b")))
    assert visible(root) == ["a"]
    ftp.close()


def test_an_output_replaces_an_older_one(method, ftp, root, wd):
    (root / "a").write_bytes(b"old")
    (wd / "a").write_bytes(b"new")
    go(method, outgoing(wd / "a", ftp.url("/a")))
    assert (root / "a").read_bytes() == b"new"


def test_a_login_in_the_url_is_used(method, ftp, root, wd):
    (root / "a").write_bytes(b"x")
    go(method, incoming(ftp.url("/a", "me:p%40ss@"), wd / "a"))
    assert "USER me" in ftp.commands


def test_a_refused_login_is_named_without_the_password(method, ftp, wd):
    said = refused(method, incoming(ftp.url("/a", "me:wrong@"), wd / "a"))
    assert "refuses the login" in said
    assert "wrong" not in said


def test_a_missing_file_is_named_and_asked_for_once(method, ftp, wd):
    assert "no such file" in refused(method, incoming(ftp.url("/none"), wd / "a"))
    assert sum(command.startswith("RETR") for command in ftp.commands) <= 1
    assert visible(wd) == []


def test_an_output_without_the_right_to_write_is_named(method, ftp, root, wd):
    (wd / "a").write_bytes(b"x")
    assert "550" in refused(method, outgoing(wd / "a", ftp.url("/a", "reader:r@")))
    assert visible(root) == []


def test_an_output_that_the_app_did_not_make_is_named(method, ftp, wd):
    assert "did not make" in refused(method, outgoing(wd / "none", ftp.url("/a")))


def test_a_refused_connection_is_named(method, wd):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "Connection refused" in refused(method, incoming(f"ftp://127.0.0.1:{port}/a", wd / "a"))


@pytest.mark.parametrize("path", ["", "/", "/dir/", "/a%0d%0aDELE%20b"])
def test_urls_that_name_no_file_are_refused(method, ftp, wd, path):
    refused(method, incoming(ftp.url(path), wd / "a"))
    assert "DELE b" not in ftp.commands


def test_a_file_that_did_not_change_is_not_fetched_again(method, ftp, root, wd, payload):
    (root / "a").write_bytes(payload)
    go(method, incoming(ftp.url("/a"), wd / "a"))
    go(method, incoming(ftp.url("/a"), wd / "b"))
    assert (wd / "b").read_bytes() == payload
    assert sum(command.startswith("RETR") for command in ftp.commands) == 1


def test_a_server_that_always_cuts_is_given_up_and_nothing_is_left(ftp, root, wd, payload):
    method = FTPSeparateTaskStaging(retry=RetryPolicy(tries=3, first_delay_s=0.01))
    (wd / "a").write_bytes(payload)
    ftp.cuts.extend([10] * 50)
    assert "tried 3 times" in refused(method, outgoing(wd / "a", ftp.url("/a")))
    ftp.cuts.clear()
    assert visible(root) == []
    method.close()


def test_a_big_file_goes_both_ways_in_constant_memory(method, ftp, root, wd, big_file):
    os.link(big_file, root / "big")
    ftp.cuts.append(40 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    go(method, incoming(ftp.url("/big"), wd / "big"))
    go(method, outgoing(wd / "big", ftp.url("/back")))
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert same(root / "back", big_file)
    assert grown_kb < 32 << 10


def test_the_step_brings_in_before_the_function_and_out_after_it(ftp, root, wd, payload):
    (root / "a").write_bytes(payload)
    method = FTPInTaskStaging(retry=QUICK)
    step = pickle.loads(pickle.dumps(method.step([incoming(ftp.url("/a"), Path("a"))])))
    out = pickle.loads(pickle.dumps(method.step([outgoing(Path("b"), ftp.url("/b"))])))
    where = NodeContext(working_dir=str(wd))
    ftp.cuts.append(1_000_000)

    def function() -> int:
        (wd / "b").write_bytes((wd / "a").read_bytes()[::-1])
        return 42

    assert out.run(lambda: step.run(function, where), where) == 42
    assert (root / "b").read_bytes() == payload[::-1]


def test_the_step_publishes_nothing_of_a_failed_function(ftp, root, wd):
    def function() -> None:
        (wd / "b").write_bytes(b"half")
        raise ValueError("app")

    step = FTPInTaskStaging(retry=QUICK).step([outgoing(wd / "b", ftp.url("/b"))])
    with pytest.raises(ValueError, match="app"):
        step.run(function, NodeContext())
    assert visible(root) == []


def test_an_output_that_leads_out_of_the_working_directory_is_refused(ftp, root, wd, tmp_path):
    (tmp_path / "private").write_bytes(b"secret")
    (wd / "b").symlink_to(tmp_path / "private")
    step = FTPInTaskStaging(retry=QUICK).step([outgoing(Path("b"), ftp.url("/b"))])
    with pytest.raises(StagingError, match="out of the working directory"):
        step.run(lambda: None, NodeContext(working_dir=str(wd)))
    assert visible(root) == []


def test_what_killed_tries_left_is_removed_by_the_next_but_not_what_others_make(method, ftp, root, wd):
    (wd / "a").write_bytes(b"a")
    go(method, outgoing(wd / "a", ftp.url("/dir/a")))
    temporary = [line.split()[1] for line in ftp.commands if line.startswith("STOR")][-1]
    mine, _, rest = temporary.rpartition("-")
    target, _, _task = mine.rpartition("-")
    left = {
        f"{mine}-0123456789ab.part": False,  # of an earlier try of this task
        f"{target}-8-{rest}": True,  # of another task
        "dir/.flow-0123456789ab-3-0123456789ab.part": False,  # of whatever, of long ago
        "dir/.flow-0123456789ab-4-0123456789ab.part": True,
        "dir/mine.part": True,
    }
    for name in left:
        (root / name).write_bytes(b"half")
    for name in ("dir/.flow-0123456789ab-3-0123456789ab.part", "dir/mine.part"):
        os.utime(root / name, (1, 1))
    go(method, outgoing(wd / "a", ftp.url("/dir/a")))
    assert {name: (root / name).exists() for name in left} == left
    assert (root / "dir" / "a").read_bytes() == b"a"


def test_outputs_of_one_task_appear_together_or_not_at_all(method, ftp, root, wd):
    (root / "b").mkdir()  # a directory where a file is to go
    (root / "b" / "kept").write_bytes(b"")
    for name in ("a", "b", "c"):
        (wd / name).write_bytes(b"new")
    ftp.cuts.append(1)
    policy = RetryPolicy(tries=1)
    once = FTPSeparateTaskStaging(retry=policy, threads=1)
    with pytest.raises(StagingError):
        go(once, *[outgoing(wd / name, ftp.url(f"/{name}")) for name in ("c", "a")])
    once.close()
    assert visible(root) == ["b", "kept"]
    go(method, *[outgoing(wd / name, ftp.url(f"/{name}")) for name in ("a", "c")])
    assert visible(root) == ["a", "b", "c", "kept"]


def test_a_missing_output_keeps_the_others_of_the_task_from_being_published(ftp, root, wd):
    step = FTPInTaskStaging(retry=QUICK).step(
        [outgoing(Path(name), ftp.url(f"/{name}")) for name in ("one", "two", "missing")]
    )

    def function() -> None:
        for name in ("one", "two"):
            (wd / name).write_bytes(b"x")

    with pytest.raises(StagingError, match="did not make"):
        step.run(function, NodeContext(working_dir=str(wd)))
    assert visible(root) == []


@pytest.fixture
def robbed(root, monkeypatch):
    """The parts of the first upload vanish just before they are published."""
    from flow_staging.ftp_upload import FtpUpload

    publish = FtpUpload.publish

    def after_robbery(self: FtpUpload) -> None:
        monkeypatch.setattr(FtpUpload, "publish", publish)
        for part in root.glob(".flow-*"):
            part.unlink()
        publish(self)

    monkeypatch.setattr(FtpUpload, "publish", after_robbery)


def test_an_upload_whose_part_vanished_is_sent_again(method, ftp, root, wd, robbed):
    (wd / "a").write_bytes(b"a")
    go(method, outgoing(wd / "a", ftp.url("/a")))
    assert (root / "a").read_bytes() == b"a"
    assert visible(root) == ["a"]


def test_an_older_file_of_the_same_size_is_not_taken_for_what_vanished(method, ftp, root, wd, robbed):
    (root / "a").write_bytes(b"old")
    (wd / "a").write_bytes(b"new")
    go(method, outgoing(wd / "a", ftp.url("/a")))
    assert (root / "a").read_bytes() == b"new"


def test_parts_of_several_outputs_that_vanished_are_sent_again(ftp, root, wd, robbed):
    """They are published when all were sent, by another thread than those that sent them."""
    names = ("a", "b", "c")
    step = FTPInTaskStaging(retry=QUICK).step([outgoing(Path(name), ftp.url(f"/{name}")) for name in names])
    step.run(lambda: [(wd / name).write_bytes(b"x") for name in names], NodeContext(working_dir=str(wd)))
    assert visible(root) == list(names)
    assert all((root / name).read_bytes() == b"x" for name in names)


@pytest.fixture
def silent():
    server = SilentFtpServer()
    yield server
    server.close()


def test_a_cancelled_download_leaves_its_server(silent, tmp_path):
    staging = FTPSeparateTaskStaging()
    future = staging.stage([incoming(f"ftp://127.0.0.1:{silent.port}/a", tmp_path / "a")])
    assert silent.hanging.acquire(timeout=20)
    future.cancel()
    assert silent.left.acquire(timeout=20)
    with pytest.raises(StagingError, match="stopped before it was complete"):
        future.result(20)
    assert visible(tmp_path) == []
    staging.close()


def test_a_cancelled_upload_leaves_its_server_and_takes_away_what_it_sent(silent, tmp_path):
    (tmp_path / "a").write_bytes(b"")
    os.truncate(tmp_path / "a", silent.SIZE)
    staging = FTPSeparateTaskStaging()
    future = staging.stage([outgoing(tmp_path / "a", f"ftp://127.0.0.1:{silent.port}/a")])
    assert silent.hanging.acquire(timeout=20)
    future.cancel()
    assert silent.left.acquire(timeout=20)
    with pytest.raises(StagingError, match="stopped before it was complete"):
        future.result(20)
    assert len(silent.deleted) == 1
    assert silent.deleted[0].startswith(".flow-")
    staging.close()


ODD = ["a b.txt", "deep/er/100%.txt", "deep/#1?.txt", "deep/ \N{SNOWMAN}", ".hidden"]


def sets(file: File, path: Path, direction: Direction) -> Transfer:
    return Transfer(file, path, direction, 7, "here")


def tree(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def fill(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


@pytest.mark.parametrize("lists", ["by MLSD", "by names"])
@pytest.mark.parametrize("name", ["/out%20dir", "/out%20dir/", "/", "//out"])
def test_a_directory_goes_out_and_comes_in(method, ftp, root, wd, monkeypatch, lists, name):
    if lists == "by names":
        monkeypatch.setattr(ftp_listing, "features", lambda ftp: "")
    fill(wd / "made", ODD)
    go(method, sets(Directory(ftp.url(name)), wd / "made", Direction.OUT))
    go(method, sets(Directory(ftp.url(name)), wd / "found", Direction.IN))
    assert tree(wd / "found") == {name: name for name in ODD}


@pytest.mark.parametrize("lists", ["by MLSD", "by names"])
def test_links_to_files_come_with_a_directory_and_what_is_not_there_is_an_error(
    method, ftp, root, wd, monkeypatch, lists
):
    if lists == "by names":
        monkeypatch.setattr(ftp_listing, "features", lambda ftp: "")
    fill(root, ["dir/a", "other"])
    (root / "dir" / "link").symlink_to("../other")
    (root / "dir" / "broken").symlink_to("../none")
    (root / "dir" / "empty").mkdir()
    go(method, sets(Directory(ftp.url("/dir")), wd / "found", Direction.IN))
    assert tree(wd / "found") == {"a": "dir/a", "link": "other"}
    for gone in ("/none", "/other", "/dir/empty"):
        assert "nothing below this directory" in refused(
            method, sets(Directory(ftp.url(gone)), wd / "none", Direction.IN)
        )
    go(method, incoming(ftp.url("/other"), wd / "x"))  # the session is where it was


def test_the_files_of_a_pattern_go_out_and_are_looked_at(method, ftp, root, wd):
    fill(wd / "made", ["a.png", "b.png", "c.txt"])
    pattern = Glob(ftp.url("/plots/*.png"))
    go(method, sets(pattern, wd / "made", Direction.OUT))
    assert tree(root) == {"plots/a.png": "a.png", "plots/b.png": "b.png"}
    files = [pattern, Directory(ftp.url("/plots"))]
    before = method.look(files).result(20)
    assert all(before)
    (root / "plots" / "a.png").write_text("another, longer one")
    assert not set(before) & set(method.look(files).result(20))


def test_versions_in_a_list_are_those_of_the_files(method, ftp, root):
    fill(root, ["d/a", "d/b"])
    mover = method._mover
    listed = mover.names(Directory(ftp.url("/d")), Control(20))
    assert listed == {name: mover.look(File(ftp.url(f"/d/{name}")), Control(20)) for name in "ab"}

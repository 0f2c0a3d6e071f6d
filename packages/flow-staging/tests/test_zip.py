"""Members of zip archives, in and out, by many at once, and killed on the way."""

from __future__ import annotations

import concurrent.futures
import os
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from flow_core.errors import StagingError
from flow_core.files import Directory, File, Glob
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging import zip as zip_module, zip_archives
from flow_staging.transfer.failures import PermanentTransferError
from flow_staging.transfer.retry import Pace
from flow_staging.zip import Member, ZipFileStaging


@pytest.fixture
def method():
    staging = ZipFileStaging(timeout_s=40)
    yield staging
    staging.close()


def incoming(url: str, path: Path) -> Transfer:
    return Transfer(File(url), path, Direction.IN, 7, "here")


def outgoing(path: Path, url: str, task: int = 7) -> Transfer:
    return Transfer(File(url), path, Direction.OUT, task, "here")


def go(method: ZipFileStaging, *transfers: Transfer) -> None:
    method.stage(list(transfers)).result(50)


def refused(method: ZipFileStaging, *transfers: Transfer) -> str:
    with pytest.raises(StagingError, match="task 7 on executor here") as caught:
        go(method, *transfers)
    return str(caught.value)


def members(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name) for name in opened.namelist()}


def test_a_member_goes_out_and_comes_in(method, tmp_path):
    url = f"zip://{tmp_path}/a.zip/dir/x.txt"
    (tmp_path / "x").write_bytes(b"hello" * 1000)
    go(method, outgoing(tmp_path / "x", url))
    go(method, incoming(url, tmp_path / "wd" / "y"))
    assert (tmp_path / "wd" / "y").read_bytes() == b"hello" * 1000
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "wd", "x"]


@pytest.mark.parametrize("form", ["zip://{}/a.zip/x", "zip:{}/a.zip/x", "ZIP://{}/a.zip/x", "zip:{}/a%2Ezip/x"])
def test_the_forms_of_the_url(form, tmp_path):
    assert Member.of(form.format(tmp_path)) == Member(tmp_path / "a.zip", "x")


def test_a_relative_archive_is_meant_from_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Member.of("zip:sub/a.zip/x.zip/y") == Member(tmp_path / "sub" / "a.zip", "x.zip/y")


@pytest.mark.parametrize(
    "url",
    [
        "zip:/a.zip/../x",
        "zip:/a.zip//etc/passwd",
        "zip:/a.zip/x/%2E%2E/y",
        "zip:/a.zip/./x",
        "zip:/a.zip/x/",
        "zip:/a.zip/..\\x",
        "zip:/a.zip/C:/x",
        "zip:/a.zip/",
        "zip:/a.zip",
        "zip:/a.tar/x",
        "zip:///a.zip/x%00",
        "zip://host/a.zip/x",
    ],
)
def test_names_that_lead_elsewhere_or_nowhere_are_refused(url):
    with pytest.raises(PermanentTransferError, match=r"zip URL|not allowed"):
        Member.of(url)


def test_an_unsafe_member_fails_the_transfer_by_name(method, tmp_path):
    assert "'..' are not allowed" in refused(method, incoming(f"zip://{tmp_path}/a.zip/../x", tmp_path / "x"))


def test_a_new_content_replaces_an_old_one_of_the_same_name(method, tmp_path):
    for content in (b"old", b"newer"):
        (tmp_path / "x").write_bytes(content)
        go(method, outgoing(tmp_path / "x", f"zip://{tmp_path}/a.zip/x"))
    assert members(tmp_path / "a.zip") == {"x": b"newer"}


def test_members_of_others_are_kept(method, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("theirs", b"theirs")
    (tmp_path / "x").write_bytes(b"ours")
    go(method, outgoing(tmp_path / "x", f"zip://{tmp_path}/a.zip/ours"))
    assert members(tmp_path / "a.zip") == {"theirs": b"theirs", "ours": b"ours"}


def test_all_members_of_a_task_go_in_or_none(method, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    go(method, outgoing(tmp_path / "x", f"zip://{tmp_path}/a.zip/first"))
    before = (tmp_path / "a.zip").read_bytes()
    url = f"zip://{tmp_path}/a.zip/"
    assert "did not make" in refused(
        method, outgoing(tmp_path / "x", url + "second"), outgoing(tmp_path / "none", url + "third")
    )
    assert (tmp_path / "a.zip").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "x"]


def test_a_failed_first_member_leaves_no_archive(method, tmp_path):
    refused(method, outgoing(tmp_path / "none", f"zip://{tmp_path}/a.zip/x"))
    assert os.listdir(tmp_path) == []


def test_what_is_missing_or_broken_is_named(method, tmp_path):
    out = tmp_path / "out"
    assert "no such file" in refused(method, incoming(f"zip://{tmp_path}/a.zip/x", out))
    (tmp_path / "a.zip").write_bytes(b"not a zip archive")
    assert "is no zip archive" in refused(method, incoming(f"zip://{tmp_path}/a.zip/x", out))
    (tmp_path / "x").write_bytes(b"x")
    assert "is no zip archive" in refused(method, outgoing(tmp_path / "x", f"zip://{tmp_path}/a.zip/x"))
    assert (tmp_path / "a.zip").read_bytes() == b"not a zip archive"
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("y", b"y" * 100)
    assert "no member 'x'" in refused(method, incoming(f"zip://{tmp_path}/b.zip/x", out))
    content = bytearray((tmp_path / "b.zip").read_bytes())
    content[40] ^= 1
    (tmp_path / "b.zip").write_bytes(content)
    assert "Bad CRC-32" in refused(method, incoming(f"zip://{tmp_path}/b.zip/y", out))
    assert not out.exists()


def test_a_symbolic_link_in_an_archive_is_not_taken_out(method, tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert "symbolic link" in refused(method, incoming(f"zip://{tmp_path}/a.zip/link", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_thousand_members_from_fifty_tasks(method, tmp_path):
    contents = {f"m{n}": os.urandom(200) for n in range(1000)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    futures = []
    for task in range(50):
        names = [f"m{n}" for n in range(task * 20, task * 20 + 20)]
        futures.append(
            method.stage([outgoing(tmp_path / name, f"zip://{tmp_path}/a.zip/{name}", task) for name in names])
        )
    for future in concurrent.futures.as_completed(futures, 50):
        future.result()
    assert members(tmp_path / "a.zip") == contents
    go(method, *[incoming(f"zip://{tmp_path}/a.zip/{name}", tmp_path / "back" / name) for name in contents])
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == contents


def test_several_processes_fill_one_archive(tmp_path):
    code = f"""
import sys
from pathlib import Path
from flow_core.files import Directory, File, Glob
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging.zip import ZipFileStaging
here, me = Path({str(tmp_path)!r}), sys.argv[1]
(here / me).write_bytes(me.encode() * 100)
method = ZipFileStaging()
for n in range(20):
    url = File(f"zip://{{here}}/a.zip/{{me}}/{{n}}")
    method.stage([Transfer(url, here / me, Direction.OUT, n, "x")]).result(40)
"""
    running = [subprocess.Popen([sys.executable, "-c", code, me]) for me in "pqr"]
    assert [process.wait(50) for process in running] == [0, 0, 0]
    assert members(tmp_path / "a.zip") == {f"{me}/{n}": me.encode() * 100 for me in "pqr" for n in range(20)}


def test_an_archive_is_made_where_its_link_leads(method, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    (tmp_path / "link.zip").symlink_to("elsewhere/real.zip")
    go(method, outgoing(tmp_path / "x", f"zip://{tmp_path}/link.zip/x"))
    assert members(tmp_path / "elsewhere" / "real.zip") == {"x": b"x"}
    assert (tmp_path / "link.zip").is_symlink()


def test_a_link_in_a_circle_is_refused(method, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    (tmp_path / "a.zip").symlink_to("b.zip")
    (tmp_path / "b.zip").symlink_to("a.zip")
    assert "circle" in refused(method, outgoing(tmp_path / "x", f"zip://{tmp_path}/a.zip/x"))


@pytest.mark.parametrize(("written", "read"), [("a", "a"), ("link", "a"), ("a", "link")])
def test_an_archive_survives_a_writer_killed_in_the_middle(method, tmp_path, written, read):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link.zip").symlink_to("real/a.zip")
    urls = {"a": f"zip://{real}/a.zip", "link": f"zip://{tmp_path}/link.zip"}
    (tmp_path / "x").write_bytes(b"x")
    go(method, outgoing(tmp_path / "x", f"{urls['a']}/first"))
    code = f"""
import os, signal
from pathlib import Path
from flow_core.files import Directory, File, Glob
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging.transfer.retry import Control
from flow_staging.zip import ZipFileStaging
here = Path({str(tmp_path)!r})
(here / "big").write_bytes(os.urandom(3_000_000))
Control.check = lambda self: (here / "link.zip").stat().st_size > 1_500_000 and os.kill(os.getpid(), signal.SIGKILL)
url = File({urls[written] + "/big"!r})
ZipFileStaging().stage([Transfer(url, here / "big", Direction.OUT, 1, "x")]).result(40)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=40).returncode == -9
    assert (real / "a.zip").stat().st_size > 1_500_000
    go(method, incoming(f"{urls[read]}/first", tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b"x"
    go(method, outgoing(tmp_path / "big", f"{urls[read]}/big"))
    assert members(real / "a.zip") == {"first": b"x", "big": (tmp_path / "big").read_bytes()}
    assert sorted(os.listdir(tmp_path)) == ["big", "link.zip", "out", "real", "x"]
    assert os.listdir(real) == ["a.zip"]


def later(monkeypatch, seconds: float = 10.0) -> None:
    """Let it be later: an archive that has just changed is not kept open."""
    now = time.time_ns
    monkeypatch.setattr(zip_archives.time, "time_ns", lambda: now() + int(seconds * 1e9))


def test_the_directory_of_an_archive_is_read_once_for_many_members(method, tmp_path, monkeypatch):
    read: list[object] = []
    archive = zipfile.ZipFile

    def counted(*args, **options):
        read.append(args)
        return archive(*args, **options)

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        for number in range(20):
            made.writestr(f"m{number}", str(number))
    later(monkeypatch)
    monkeypatch.setattr("flow_staging.zip_archives.zipfile.ZipFile", counted)
    for number in range(20):
        go(method, incoming(f"zip://{tmp_path}/a.zip/m{number}", tmp_path / "wd" / str(number)))
        assert (tmp_path / "wd" / str(number)).read_text() == str(number)
    assert len(read) == 1


def test_an_archive_that_others_replace_or_change_is_read_anew(method, tmp_path):
    path = tmp_path / "a.zip"
    for number in range(4):
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as made:
            made.writestr("m", str(number))
        os.utime(tmp_path / "new.zip", (number, number))
        if number % 2:
            os.replace(tmp_path / "new.zip", path)
        else:
            path.write_bytes((tmp_path / "new.zip").read_bytes())
        go(method, incoming(f"zip://{path}/m", tmp_path / "wd" / "m"))
        assert (tmp_path / "wd" / "m").read_text() == str(number)
    go(method, outgoing(tmp_path / "wd" / "m", f"zip://{path}/more"))
    go(method, incoming(f"zip://{path}/more", tmp_path / "wd" / "more"))
    assert (tmp_path / "wd" / "more").read_text() == "3"


def folder(file: File, path: Path, direction: Direction) -> Transfer:
    return Transfer(file, path, direction, 7, "here")


ODD = ["a.txt", "deep/b 100%.txt", "deep/x!/c.txt", "d%20e"]


@pytest.mark.parametrize("where", ["zip:a.zip/data", "zip:a.zip/data/", "zip:./a.zip/", "zip:plain!/data"])
def test_a_directory_goes_out_and_comes_in_with_names_as_they_are(method, tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    made, found = tmp_path / "made", tmp_path / "found"
    for name in ODD:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(name)
    go(method, folder(Directory(where), made, Direction.OUT))
    go(method, folder(Directory(where), found, Direction.IN))
    assert {str(p.relative_to(found)): p.read_text() for p in found.rglob("*") if p.is_file()} == {n: n for n in ODD}
    single = Directory(where).member("deep/x!/c.txt")
    go(method, incoming(single.url, tmp_path / "single"))
    assert (tmp_path / "single").read_text() == "deep/x!/c.txt"


def test_the_files_of_a_pattern_go_out_and_nothing_else(method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "made"
    made.mkdir()
    for name in ("a.png", "b.png", "c.txt"):
        (made / name).write_text(name)
    pattern = Glob("zip:a.zip/plots/*.png")
    go(method, folder(pattern, made, Direction.OUT))
    assert members(tmp_path / "a.zip") == {"plots/a.png": b"a.png", "plots/b.png": b"b.png"}
    assert pattern.relative_to(str(tmp_path)).member("a.png").directory == str(tmp_path)
    before = method.look([pattern, Directory("zip:a.zip/plots"), File("zip:a.zip/plots/a.png")]).result(20)
    assert all(before)
    (made / "a.png").write_text("another")
    go(method, folder(pattern, made, Direction.OUT))
    after = method.look([pattern, Directory("zip:a.zip/plots"), File("zip:a.zip/plots/a.png")]).result(20)
    assert not set(before) & set(after)


def test_a_directory_without_members_and_one_without_files_are_errors(method, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("database/x", "x")
    assert "no member below" in refused(method, folder(Directory(f"zip:{tmp_path}/a.zip/data"), tmp_path, Direction.IN))
    (tmp_path / "empty").mkdir()
    transfer = folder(Directory(f"zip:{tmp_path}/a.zip/data"), tmp_path / "empty", Direction.OUT)
    assert "no file in it" in refused(method, transfer)
    assert members(tmp_path / "a.zip") == {"database/x": b"x"}


def test_a_member_that_leads_elsewhere_is_not_taken_out_with_its_directory(method, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data/../../evil", "x")
    transfer = folder(Directory(f"zip:{tmp_path}/a.zip/data"), tmp_path / "found", Direction.IN)
    assert "cannot be the name of a file here" in refused(method, transfer)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("way", ["in", "out"])
def test_a_member_that_moves_too_slowly_fails_and_names_the_option(tmp_path, monkeypatch, way):
    now = [0.0]

    def clock() -> float:
        now[0] += 400.0
        return now[0]

    monkeypatch.setattr(zip_module, "Pace", lambda policy: Pace(policy, clock))
    (tmp_path / "x").write_bytes(b"x" * 300_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "x", "x")
    url = f"zip:{tmp_path}/a.zip/x"
    transfer = incoming(url, tmp_path / "y") if way == "in" else outgoing(tmp_path / "x", f"{url}2")
    for slow in (ZipFileStaging(least_speed=1000), ZipFileStaging(least_speed=50)):
        if slow._speed.least_speed == 1000:
            assert "where least_speed=1000, least_speed_window_s=300 asks for more" in refused(slow, transfer)
        else:
            go(slow, transfer)
        slow.close()


def test_how_far_a_member_is_is_told(method, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", b"x" * 1000)
    moving = method.stage([incoming(f"zip:{tmp_path}/a.zip/x", tmp_path / "y")])
    moving.result(20)
    (far,) = moving.progress()
    assert (far.moved, far.total) == (1000, 1000)


def counting(monkeypatch) -> list[Path]:
    """Note which archives are opened."""
    seen: list[Path] = []
    really = zip_archives.opened

    def opened(path):
        seen.append(path)
        return really(path)

    monkeypatch.setattr(zip_archives, "opened", opened)
    return seen


@pytest.mark.parametrize("date_s", [0, 4e9], ids=["1970", "2096"])
def test_an_archive_of_any_date_is_opened_once_for_many_members(method, tmp_path, monkeypatch, date_s):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for number in range(5):
            made.writestr(str(number), str(number))
    os.utime(archive, (date_s, date_s))
    later(monkeypatch)
    seen = counting(monkeypatch)
    for number in range(5):
        go(method, incoming(f"zip:{archive}/{number}", tmp_path / "wd" / str(number)))
    assert seen == [archive]


def test_an_archive_that_was_written_again_under_its_old_date_and_size_is_opened_again(method, tmp_path, monkeypatch):
    archive = tmp_path / "a.zip"
    later(monkeypatch)
    seen = counting(monkeypatch)
    for content in ("old", "new"):
        with archive.open("r+b" if archive.exists() else "wb") as stream, zipfile.ZipFile(stream, "w") as made:
            made.writestr(zipfile.ZipInfo("x"), content)
        os.utime(archive, (1_000, 1_000))
        go(method, incoming(f"zip:{archive}/x", tmp_path / "wd" / "x"))
        assert (tmp_path / "wd" / "x").read_text() == content
    assert len(seen) == 2


def test_an_archive_that_changed_just_now_under_an_old_date_is_not_kept_open(method, tmp_path, monkeypatch):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("x", "x")
    os.utime(archive, (1_000, 1_000))
    seen = counting(monkeypatch)
    for _ in range(2):
        go(method, incoming(f"zip:{archive}/x", tmp_path / "wd" / "x"))
    assert len(seen) == 2

"""Files that another user has put where staging makes, keeps and looks for its own: none is used or written through."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from security_attacker import Attacker

import flow
from flow import Config, File, bash_app, python_app
from flow.executors import ThreadPoolExecutor
from flow_core.errors import AppException, BadStdStreamFile, StagingError
from flow_core.interfaces.staging import Direction, Transfer
from flow_core.staging.noop import NoOpFileStaging
from flow_staging import CachePolicy, HTTPSeparateTaskStaging, RetryPolicy, ZipFileStaging
from flow_staging.globus.login import Tokens, TokenStore
from flow_staging.transfer.failures import PermanentTransferError

QUICK = RetryPolicy(tries=2, first_delay_s=0.01, timeout_s=40)
PLANT = "import sys, os; open(sys.argv[1], 'wb').write(sys.argv[2].encode()); os.chmod(sys.argv[1], 0o666)"
LINK = "import sys, os; os.symlink(sys.argv[2], sys.argv[1])"


@pytest.fixture
def sticky(tmp_path: Path) -> Path:
    """A directory as /tmp: all may make files in it, and nobody remove those of others."""
    made = tmp_path / "shared"
    made.mkdir()
    made.chmod(0o1777)
    return made


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """The URL of a file with ``honest`` in it."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "page.txt").write_text("honest")
    os.utime(tmp_path / "served" / "page.txt", (1e9, 1e9))  # long enough ago to name a version
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/page.txt"
    server.shutdown()
    server.server_close()
    thread.join(10)


def by_name(path: Path, suffix: str) -> Path:
    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=6).hexdigest()
    return path.with_name(f".flow-{digest}-{suffix}")


def plant(attacker: Attacker, path: Path, content: str) -> None:
    assert attacker.run(PLANT, path, content) == ""
    assert path.stat().st_uid == attacker.uid


def bring(method: flow.Staging, url: str, path: Path) -> None:
    method.stage([Transfer(File(url), path, Direction.IN, 7, "here")]).result(50)


def put(method: flow.Staging, path: Path, url: str) -> None:
    method.stage([Transfer(File(url), path, Direction.OUT, 7, "here")]).result(50)


@pytest.fixture
def archive(sticky: Path) -> Path:
    path = sticky / "data.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("m", b"member")
    return path


@pytest.fixture
def zips() -> Iterator[ZipFileStaging]:
    method = ZipFileStaging(timeout_s=30)
    yield method
    method.close()


@pytest.mark.parametrize("content", ['{"end": 0}\n', '{"end": 0}\nPK by the attacker', "rubbish"])
def test_a_planted_journal_neither_empties_an_archive_nor_fills_it(
    archive: Path, zips: ZipFileStaging, attacker: Attacker, tmp_path: Path, content: str
) -> None:
    before = archive.read_bytes()
    plant(attacker, by_name(archive, "journal"), content)
    bring(zips, f"zip:{archive}/m", tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == b"member"
    with pytest.raises(StagingError, match=r"journal.*belongs to user 'flow-attacker'"):
        put(zips, tmp_path / "m", f"zip:{archive}/n")
    assert archive.read_bytes() == before


def test_a_journal_planted_as_a_link_is_not_written_through(
    archive: Path, zips: ZipFileStaging, attacker: Attacker, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    mine.chmod(0o644)
    temporary = by_name(archive, "journal.new")
    assert attacker.run(LINK, temporary, mine) == ""
    (tmp_path / "n").write_text("n")
    os.chown(archive.parent, attacker.uid, -1)
    put(zips, tmp_path / "n", f"zip:{archive}/n")
    assert attacker.run(LINK, by_name(archive, "journal"), mine) == ""
    with pytest.raises(StagingError, match="is a link and no journal"):
        put(zips, tmp_path / "n", f"zip:{archive}/o")
    assert mine.read_text() == "mine"
    with zipfile.ZipFile(archive) as made:
        assert sorted(made.namelist()) == ["m", "n"]


def test_an_archive_that_is_anothers_link_is_not_written_through(
    archive: Path, zips: ZipFileStaging, attacker: Attacker, tmp_path: Path
) -> None:
    before = archive.read_bytes()
    link = archive.with_name("other.zip")
    assert attacker.run(LINK, link, archive) == ""
    (tmp_path / "n").write_text("n")
    with pytest.raises(StagingError, match=r"symbolic link of user 'flow-attacker'.*data\.zip"):
        put(zips, tmp_path / "n", f"zip:{link}/n")
    assert archive.read_bytes() == before


def test_nothing_is_written_into_parts_of_another_user(
    sticky: Path, page: str, attacker: Attacker, tmp_path: Path
) -> None:
    slots = [by_name(sticky / "in.txt", f"{slot}.part") for slot in range(16)]
    for slot in slots:
        plant(attacker, slot, "planted")
    method = HTTPSeparateTaskStaging(retry=QUICK, cache=None)
    bring(method, page, sticky / "in.txt")
    method.close()
    assert (sticky / "in.txt").read_text() == "honest"
    assert (sticky / "in.txt").stat().st_uid == os.geteuid()
    assert {slot.read_text() for slot in slots} == {"planted"}
    assert len(os.listdir(sticky)) == 17


def test_a_part_of_our_own_that_another_has_open_is_not_taken_over(sticky: Path, page: str, attacker: Attacker) -> None:
    slot = by_name(sticky / "in.txt", "0.part")
    slot.write_text("left over")
    slot.chmod(0o666)
    held = attacker.start(
        "import sys, signal; f = open(sys.argv[1], 'r+'); print('open', flush=True); signal.pause()", slot
    )
    try:
        assert held.stdout is not None
        assert held.stdout.readline() == "open\n"
        old = slot.stat().st_ino
        method = HTTPSeparateTaskStaging(retry=QUICK, cache=None)
        bring(method, page, sticky / "in.txt")
        method.close()
        assert (sticky / "in.txt").stat().st_ino != old
    finally:
        held.kill()
        held.wait()
        held.communicate()


def test_a_link_of_another_at_the_place_of_an_input_is_replaced(
    sticky: Path, page: str, attacker: Attacker, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    os.chown(sticky, attacker.uid, -1)
    sticky.chmod(0o777)
    assert attacker.run(LINK, sticky / "in.txt", mine) == ""
    method = HTTPSeparateTaskStaging(retry=QUICK)
    bring(method, page, sticky / "in.txt")
    method.close()
    assert mine.read_text() == "mine"
    assert (sticky / "in.txt").read_text() == "honest"
    assert not (sticky / "in.txt").is_symlink()


@python_app
def write(outputs: list[File] = []) -> None:
    Path(outputs[0].filepath).write_text("written")


@bash_app
def say(stdout: str = "", stderr: str | None = None) -> str:
    return "echo written"


def test_a_link_of_another_at_the_place_of_an_output_is_not_written_through(
    sticky: Path, attacker: Attacker, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    assert attacker.run(LINK, sticky / "out.txt", mine) == ""
    with flow.load(Config([ThreadPoolExecutor()], run_dir=str(tmp_path / "runinfo"))):
        for update in (False, True):
            error = write(outputs=[File(str(sticky / "out.txt"), update=update)]).exception(50)
            assert isinstance(error, AppException)
            assert "symbolic link of user 'flow-attacker'" in str(error)
        error = say(stdout=str(sticky / "out.txt")).exception(50)
        assert isinstance(error, (AppException, BadStdStreamFile))
        assert "symbolic link of user 'flow-attacker'" in str(error)
        own = tmp_path / "own.txt"
        own.symlink_to(mine)
        write(outputs=[File(str(own))]).result(50)  # one's own leads where one wants it to
    assert mine.read_text() == "written"


TRAPS = {
    "pipe": ("import os, sys; os.mkfifo(sys.argv[1], 0o666)", "a pipe, a socket or a device of user 'flow-attacker'"),
    "hard link": ("import os, sys; os.link(sys.argv[2], sys.argv[1])", "a second name"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("trap", TRAPS)
def test_a_pipe_or_a_second_name_of_ones_own_file_is_not_written_to(
    sticky: Path, attacker: Attacker, tmp_path: Path, trap: str
) -> None:
    program, reason = TRAPS[trap]
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    hardlinks = Path("/proc/sys/fs/protected_hardlinks").read_text().strip()
    if trap == "hard link" and hardlinks != "0":
        os.link(mine, sticky / "out.txt")  # as a kernel that protects less, or another host, would let the other
    else:
        assert attacker.run(program, sticky / "out.txt", mine) == ""
    with flow.load(Config([ThreadPoolExecutor()], run_dir=str(tmp_path / "runinfo"))):
        for future in (
            say(stdout=str(sticky / "out.txt")),
            say(stdout=str(tmp_path / "said"), stderr=str(sticky / "out.txt")),
            write(outputs=[File(str(sticky / "out.txt"), update=True)]),
        ):
            error = future.exception(50)
            assert isinstance(error, (AppException, BadStdStreamFile))
            assert reason in str(error)
        own = tmp_path / "own.txt"
        os.link(mine, own)
        say(stdout=str(own)).result(50)  # where nobody else could have linked it
    assert mine.read_text().endswith("written\n")


@python_app(cache=True)
def read(inputs: list[File] = []) -> bytes:
    return Path(inputs[0].filepath).read_bytes()


@pytest.mark.timeout(60)
def test_a_pipe_at_the_place_of_an_input_is_not_waited_for(sticky: Path, attacker: Attacker, tmp_path: Path) -> None:
    assert attacker.run(TRAPS["pipe"][0], sticky / "in") == ""
    executor = ThreadPoolExecutor(storage_access=[NoOpFileStaging(), ZipFileStaging()])
    with flow.load(Config([executor], run_dir=str(tmp_path / "runinfo"))):
        for file in (File(str(sticky / "in"), sha256="0" * 64), File(f"zip:{sticky}/in!/member")):
            error = read(inputs=[file]).exception(30)
            assert "it is no plain file" in str(error)
    with pytest.raises(OSError, match="it is no plain file"):
        File(str(sticky / "in")).content_digest()


def test_files_of_tasks_are_not_put_into_a_directory_that_another_has_made(
    sticky: Path, page: str, attacker: Attacker, tmp_path: Path
) -> None:
    reserved = sticky / f".flow-staged-{os.getuid()}"
    assert attacker.run("import sys, os; os.mkdir(sys.argv[1]); os.chmod(sys.argv[1], 0o777)", reserved) == ""

    @python_app
    def read(inputs: list[File] = []) -> str:
        return Path(inputs[0].filepath).read_text()

    with flow.load(Config([ThreadPoolExecutor(working_dir=str(sticky))], run_dir=str(tmp_path / "runinfo"), retries=0)):
        error = read(inputs=[File(page)]).exception(50)
    assert isinstance(error, StagingError)
    assert "another user has made it" in str(error)
    assert "working_dir" in str(error)
    assert os.listdir(reserved) == []


# -- the cache


def test_a_cache_that_another_has_made_in_this_users_place_is_not_used(
    sticky: Path, page: str, attacker: Attacker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = sticky / str(os.getuid())
    assert attacker.run("import sys, os; os.mkdir(sys.argv[1]); os.chmod(sys.argv[1], 0o777)", place) == ""
    method = HTTPSeparateTaskStaging(retry=QUICK, cache=CachePolicy(directory=str(sticky)))
    for name in ("a", "b"):
        bring(method, page, tmp_path / name)
        assert (tmp_path / name).read_text() == "honest"
    method.close()
    assert os.listdir(place) == []
    told = [record.getMessage() for record in caplog.records if record.name == "flow.staging.cache"]
    assert len(told) == 1
    assert str(place) in told[0]


def test_entries_of_others_are_taken_only_if_their_owner_is_named(
    sticky: Path, page: str, attacker: Attacker, tmp_path: Path
) -> None:
    def fetched(name: str, **trust: object) -> str:
        method = HTTPSeparateTaskStaging(retry=QUICK, cache=CachePolicy(directory=str(sticky), **trust))  # type: ignore[arg-type]
        bring(method, page, tmp_path / name)
        method.close()
        return (tmp_path / name).read_text()

    assert fetched("first") == "honest"
    mine = sticky / str(os.getuid())
    (record,) = mine.glob("*.entry")
    said = json.loads(record.read_text())
    (data,) = mine.glob("*.data")
    data.write_text("poison")
    state = data.stat()
    said["versions"][0]["signature"] = {
        "size": state.st_size,
        "mtime_ns": state.st_mtime_ns,
        "ctime_ns": 0,
        "links": 99,
    }
    record.write_text(json.dumps(said))
    theirs = sticky / str(attacker.uid)
    mine.rename(theirs)
    for path in (theirs, *theirs.iterdir()):
        os.chown(path, attacker.uid, attacker.gid)
    assert fetched("untrusted") == "honest"
    mine.rename(tmp_path / "gone")
    assert fetched("other", trust_others=("nobody",)) == "honest"
    mine.rename(tmp_path / "gone too")
    assert fetched("trusted", trust_others=("flow-attacker",)) == "poison"  # this is what it means


def test_names_that_others_could_add_to_a_cache_are_prevented(tmp_path: Path, page: str, attacker: Attacker) -> None:
    place = tmp_path / "cache" / str(os.getuid())
    place.mkdir(parents=True)
    place.chmod(0o777)
    key = hashlib.blake2b(page.encode(), digest_size=16).hexdigest()
    plant(attacker, place / f"{key}.entry", "planted")
    method = HTTPSeparateTaskStaging(retry=QUICK, cache=CachePolicy(directory=str(tmp_path / "cache")))
    bring(method, page, tmp_path / "a")
    method.close()
    assert (tmp_path / "a").read_text() == "honest"
    assert (place / f"{key}.entry").read_text() == "planted"  # neither read nor written
    assert "PermissionError" in attacker.run(PLANT, place / "more", "planted")


# -- Globus


def test_a_login_to_globus_that_another_has_put_there_is_not_used(sticky: Path, attacker: Attacker) -> None:
    path = sticky / "tokens.json"
    plant(attacker, path, json.dumps({"client_id": "x", "access_token": "a", "refresh_token": "r", "expires_at": 1}))
    store = TokenStore(path)
    with pytest.raises(PermanentTransferError, match=r"belongs to user 'flow-attacker'.*FLOW_GLOBUS_TOKENS"):
        store.load()
    path.unlink()
    store.save(Tokens("x", "mine", "r", 1))
    assert store.load() == Tokens("x", "mine", "r", 1)
    assert "PermissionError" in attacker.run("import sys; open(sys.argv[1])", path)

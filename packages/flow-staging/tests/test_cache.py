"""What is kept of files: where, for how long, for whom, and in which version."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from flow_core.errors import ConfigurationError
from flow_core.remote.staged import reserved
from flow_staging.kept import clear, kept, place
from flow_staging.transfer.cache import CachePolicy, ContentCache
from flow_staging.transfer.cache_place import cache_root, own_root
from flow_staging.transfer.cache_record import Begun, Record, Signature, Version
from flow_staging.transfer.cache_room import contents
from flow_staging.transfer.failures import PermanentTransferError, TransientTransferError
from flow_staging.transfer.resume import Opened, Use, fetch
from flow_staging.transfer.retry import Control, RetryPolicy
from flow_staging.transfer.verify import Remote

ONCE = RetryPolicy(tries=1)
NOBODY = Use()


class Pages:
    """A source of one page; ``sizes`` are those that it has sent."""

    def __init__(self, body: bytes, version: str = '"v1"') -> None:
        self.body, self.version = body, version
        self.sent: list[int] = []
        self.asked = 0

    def open(self, offset: int, validator: str, known: str) -> Opened | None:
        self.asked += 1
        if known and known == self.version and not offset:
            return None
        start = offset if validator == self.version else 0
        pieces = [self.body[start:], b""]
        self.sent.append(len(pieces[0]))
        return Opened(Remote(len(self.body), None, self.version), start, lambda: pieces.pop(0), lambda: None)


def bring(source: object, path: Path, policy: CachePolicy, use: Use = NOBODY, url: str = "http://h/a") -> bytes:
    fetch(source, path, ONCE, Control(50), url=url, cache=policy, use=use)  # type: ignore[arg-type]
    return path.read_bytes()


@pytest.fixture
def policy(tmp_path: Path) -> CachePolicy:
    return CachePolicy(directory=str(tmp_path / "cache"))


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory on another file system than the temporary one."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm")) if os.path.isdir("/dev/shm") else None
    if folder is None or folder.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("no second file system here")
    yield folder
    shutil.rmtree(folder)


# -- where


def test_the_place_is_the_users_own_or_the_chosen_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    own, uid = tmp_path / "xdg" / "flow" / "files", str(os.getuid())
    assert place() == own
    assert cache_root(None, tmp_path / "a", None) == own
    assert cache_root(None, tmp_path / "not" / "yet" / "a", str(tmp_path)) == own
    assert cache_root(None, elsewhere / "a", None) == own
    assert cache_root(None, elsewhere / "a", str(elsewhere)) == elsewhere / ".flow-cache"
    monkeypatch.setenv("FLOW_CACHE", str(tmp_path / "shared"))
    assert cache_root(None, elsewhere / "a", str(elsewhere)) == place() == tmp_path / "shared" / uid
    assert cache_root("/chosen", elsewhere / "a", str(elsewhere)) == Path("/chosen") / uid
    monkeypatch.setenv("FLOW_CACHE", "relative")
    with pytest.raises(PermanentTransferError, match="FLOW_CACHE='relative' is no absolute path"):
        cache_root(None, tmp_path / "a", None)
    monkeypatch.setenv("FLOW_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, as its specification says
    assert own_root() == Path.home() / ".cache" / "flow" / "files"


def test_without_a_home_to_write_to_the_place_is_one_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = Path(tempfile.gettempdir()) / f"flow-cache-{os.getuid()}"
    (tmp_path / "file").touch()
    (tmp_path / "closed").mkdir(mode=0o500)
    for home in [tmp_path / "file"] if os.getuid() == 0 else [tmp_path / "file", tmp_path / "closed"]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        assert cache_root(None, tmp_path / "a", None) == temporary
        assert cache_root(None, tmp_path / "a", str(tmp_path)) == tmp_path / ".flow-cache"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert own_root() == temporary


@pytest.mark.parametrize(
    "wrong", [{"max_bytes": -1}, {"max_files": -1}, {"min_bytes": -1}, {"refresh": "always"}, {"directory": "relative"}]
)
def test_options_that_make_no_sense_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=rf"CachePolicy\({next(iter(wrong))}="):
        CachePolicy(**wrong)  # type: ignore[arg-type]


def test_files_of_tasks_are_links_of_what_is_kept(tmp_path: Path, policy: CachePolicy) -> None:
    source, folder = Pages(b"content"), Path(reserved(str(tmp_path)))
    paths = [folder / str(number) / "a" for number in range(3)]
    assert {bring(source, path, policy) for path in paths} == {b"content"}
    assert len({path.stat().st_ino for path in paths}) == 1
    assert source.sent == [7]


def test_a_file_at_a_place_of_the_users_is_no_file_of_a_task(tmp_path: Path, policy: CachePolicy) -> None:
    """In whatever order they come: what is written there in place changes none that others read."""
    source = Pages(b"content")
    task = Path(reserved(str(tmp_path)), "run")
    chosen = [tmp_path / "first", tmp_path / "second"]
    bring(source, chosen[0], policy)
    bring(source, task / "1" / "a", policy)
    bring(source, chosen[1], policy)
    bring(source, task / "2" / "a", policy)
    for path in chosen:
        with path.open("r+b") as stream:
            stream.write(b"CHANGED")
    assert [(task / number / "a").read_bytes() for number in ("1", "2")] == [b"content"] * 2
    assert bring(source, task / "3" / "a", policy) == b"content"


def test_across_file_systems_files_are_copies(elsewhere: Path, policy: CachePolicy) -> None:
    source, folder = Pages(b"content"), Path(reserved(str(elsewhere)))
    paths = [folder / str(number) / "a" for number in range(3)]
    assert {bring(source, path, policy) for path in paths} == {b"content"}
    assert len({path.stat().st_ino for path in paths}) == 3
    assert source.sent == [7]


def test_a_file_that_the_cache_has_no_room_for_is_brought_without_it(tmp_path: Path, elsewhere: Path) -> None:
    for number, target in enumerate((tmp_path, elsewhere)):
        for size in (None, 10_000):
            small = CachePolicy(max_bytes=5_000, directory=str(tmp_path / f"cache{number}{size}"))
            source = Pages(os.urandom(10_000))
            if size is None:
                source.open = unsized(source.open)  # type: ignore[method-assign]
            assert bring(source, target / f"a{size}", small) == source.body
            assert list(contents(Path(small.directory or "") / str(os.getuid()))) == []


def unsized(ask):  # type: ignore[no-untyped-def]
    def opened(offset: int, validator: str, known: str) -> Opened:
        found = ask(offset, validator, known)
        return Opened(Remote(None, None, found.remote.validator), found.offset, found.read, found.close)

    return opened


# -- for how long


def test_what_was_unused_for_longest_goes_first_and_what_is_in_use_stays(tmp_path: Path) -> None:
    policy = CachePolicy(max_bytes=350_000, directory=str(tmp_path / "cache"))
    root = Path(policy.directory or "") / str(os.getuid())
    sources = {name: Pages(os.urandom(100_000)) for name in "abcd"}

    def fetched(name: str) -> int:
        bring(sources[name], tmp_path / name, policy, url=name)
        return sources[name].asked

    for name in "abc":
        fetched(name)
        os.utime(newest(root), (1_000 + ord(name),) * 2)
    with ContentCache(root, policy).entry("a", Control(50)) as entry:  # someone uses the one that is next to go
        assert entry is not None
        fetched("d")
        assert entry.newest() is not None
    assert sum(one.bytes for one in contents(root)) <= 350_000
    assert sources["a"].sent == [100_000]
    fetched("a")
    assert sources["a"].sent == [100_000]
    fetched("b")
    assert sources["b"].sent == [100_000, 100_000]


def newest(root: Path) -> Path:
    return max(root.glob("*.entry"), key=lambda path: path.stat().st_ctime_ns)


def test_what_was_used_in_the_future_ages_from_when_that_is_seen(tmp_path: Path) -> None:
    policy = CachePolicy(max_files=4, directory=str(tmp_path / "cache"))
    root = Path(policy.directory or "") / str(os.getuid())
    bring(Pages(b"x"), tmp_path / "a", policy, url="ahead")  # while the clock was ahead
    ahead = newest(root)
    os.utime(ahead, (time.time() + 1e6,) * 2)
    bring(Pages(b"x"), tmp_path / "a", policy, url="0")
    assert ahead.stat().st_mtime <= time.time() + 600
    for number in range(1, 8):
        bring(Pages(b"x"), tmp_path / "a", policy, url=str(number))
    assert not ahead.exists()


@pytest.mark.parametrize("jump_s", [-1e9, -86_400.0, -3.0, 3.0, 86_400.0, 1e9])
def test_a_clock_that_jumps_while_a_file_comes_changes_nothing(
    tmp_path: Path, policy: CachePolicy, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    off = [0.0]
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + off[0])
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + int(off[0] * 1e9))
    pages, run = Pages(os.urandom(3 << 20)), Use(run="run", task_id=1)

    def jumping(offset: int, validator: str, known: str) -> Opened | None:
        opened = Pages.open(pages, offset, validator, known)
        if opened is None:
            return None
        read = opened.read

        def piece() -> bytes:
            off[0] = jump_s
            return bytes(read())

        return Opened(opened.remote, opened.offset, piece, opened.close)

    pages.open = jumping  # type: ignore[method-assign]
    place = tmp_path / reserved("wd").lstrip("/") / "run"
    for number in range(3):
        assert bring(pages, place / str(number) / "a", policy, run) == pages.body
        off[0] = (-1) ** number * jump_s
    assert (pages.asked, len(pages.sent)) == (1, 1)  # the run's version, whatever the time
    other = Use(run="other", task_id=1)
    assert bring(pages, place / "3" / "a", policy, other) == pages.body
    assert (pages.asked, len(pages.sent)) == (2, 1)  # asked whether it is still current
    # A write into what is kept is seen, by whatever clock it is dated.
    with (place / "0" / "a").open("r+b") as stream:
        stream.write(b"changed")
    assert bring(pages, place / "4" / "a", policy, run) == pages.body
    assert len(pages.sent) == 2


def test_the_number_of_files_is_bounded_too(tmp_path: Path) -> None:
    policy = CachePolicy(max_files=10, directory=str(tmp_path / "cache"))
    for number in range(30):
        bring(Pages(b"x"), tmp_path / "a", policy, url=str(number))
    assert 8 <= len(list(contents(Path(policy.directory or "") / str(os.getuid())))) <= 10


def test_people_see_what_is_kept_and_remove_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOW_CACHE", str(tmp_path / "cache"))
    assert kept() == []
    assert clear() == (0, 0)
    for name in "ab":
        bring(Pages(b"x" * 10_000), tmp_path / name, CachePolicy(), url=f"http://me:pw@h/{name}")
    os.utime(newest(place()), (1_000, 1_000))
    found = kept()
    assert {one.url for one in found} == {"http://me:***@h/a", "http://me:***@h/b"}
    assert found[0].used == 1_000
    assert all((one.versions, one.bytes >= 10_000) == (1, True) for one in found)
    assert clear(unused_s=3_600)[0] == 1
    with ContentCache(place(), CachePolicy()).entry(f"http://me:pw@h/{found[1].url[-1]}", Control(50)):
        assert clear() == (0, 0)
    count, freed = clear()
    assert (count, freed >= 10_000) == (1, True)
    assert (tmp_path / "a").read_bytes() == b"x" * 10_000
    assert [path.name for path in place().iterdir()] == ["CACHEDIR.TAG"]


# -- for whom


def test_of_urls_that_could_not_be_fetched_only_parts_are_shown(tmp_path: Path, policy: CachePolicy) -> None:
    def refusing(offset: int, validator: str, known: str) -> Opened | None:
        raise PermanentTransferError("there is no such file")

    source = type("Source", (), {"open": staticmethod(refusing)})()
    with pytest.raises(PermanentTransferError):
        bring(source, tmp_path / "wd" / "a", policy, url="http://h/absent")
    root = cache_root(policy.directory, tmp_path, None)
    (root / f"{'0' * 32}.entry").touch()  # as a process leaves it that is killed while it asks
    assert kept(root) == []
    with ContentCache(root, policy).entry("http://h/a", Control(50)) as entry:
        assert entry is not None
        assert [(one.url, one.versions, one.in_use) for one in kept(root)] == [("", 0, True)]
        part = entry.part()
        part.__enter__()
        entry.begins("http://h/a", Remote(3 << 20, validator='"v1"'))
        part.write(b"x" * (2 << 20))
        part.__exit__(TransientTransferError, TransientTransferError("cut"), None)
    assert [(one.url, one.versions, one.in_use) for one in kept(root)] == [("http://h/a", 0, False)]


def test_private_contents_are_for_the_user_alone(tmp_path: Path, policy: CachePolicy) -> None:
    root = Path(policy.directory or "") / str(os.getuid())
    for private, mode in ((True, 0), (False, 0o044)):
        bring(Pages(b"x"), tmp_path / f"{private}", policy, Use(private=private), url=f"{private}")
        before = os.umask(0o022)
        os.umask(before)
        newest_data = max(root.glob("*.data"), key=lambda path: path.stat().st_ctime_ns)
        assert newest_data.stat().st_mode & 0o077 == mode & ~before


def test_a_directory_that_is_somebody_elses_is_not_used(tmp_path: Path, policy: CachePolicy) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    root = Path(policy.directory or "") / "0"
    root.mkdir(parents=True)
    os.chown(root, 12_345, -1)
    assert bring(Pages(b"x"), tmp_path / "a", policy) == b"x"
    assert list(root.iterdir()) == []


def test_what_others_have_fetched_is_taken_only_if_they_are_trusted_and_the_server_has_it_still(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    shared = tmp_path / "cache"
    plain, trusting = (CachePolicy(directory=str(shared), trust_others=trust) for trust in (False, True))
    bring(Pages(b"theirs"), tmp_path / "a", plain)
    (shared / "0").rename(shared / "12345")
    for path in (shared / "12345", *(shared / "12345").iterdir()):
        os.chown(path, 12_345, -1)
    (tmp_path / "a").unlink()  # else the change of the owner looks like one of the content
    source = Pages(b"theirs")
    assert bring(source, tmp_path / "b", plain) == b"theirs"
    assert source.sent == [6]
    clear(shared / "0")
    assert bring(source, tmp_path / "c", trusting) == b"theirs"
    assert source.sent == [6]
    assert (tmp_path / "c").stat().st_uid == 0
    clear(shared / "0")
    source.body, source.version = b"newer", '"v2"'
    assert bring(source, tmp_path / "d", trusting) == b"newer"
    clear(shared / "0")
    (stolen,) = (shared / "12345").glob("*.data")
    os.chown(stolen, 12_346, -1)  # a link that a third one has put there
    source.body, source.version = b"theirs", '"v1"'
    assert bring(source, tmp_path / "e", trusting) == b"theirs"
    assert source.sent == [6, 5, 6]


# -- in which version


def test_a_run_keeps_its_version_while_others_have_newer_ones(tmp_path: Path, policy: CachePolicy) -> None:
    source = Pages(b"old")
    one, two = Use(run="one", task_id=1), Use(run="two", task_id=1)
    assert bring(source, tmp_path / "a", policy, one) == b"old"
    source.body, source.version = b"new", '"v2"'
    assert bring(source, tmp_path / "b", policy, two) == b"new"
    assert bring(source, tmp_path / "c", policy, one) == b"old"
    assert bring(source, tmp_path / "d", policy, Use(run="one", task_id=9, refresh="never")) == b"old"
    assert bring(source, tmp_path / "e", policy, Use(run="one", task_id=9, refresh="task")) == b"new"
    assert bring(source, tmp_path / "f", policy, Use(run="three", refresh="never")) == b"new"
    assert source.asked == 3
    assert bring(source, tmp_path / "g", policy) == b"new"
    assert source.asked == 4


def test_versions_that_nobody_has_seen_are_not_kept(tmp_path: Path, policy: CachePolicy) -> None:
    source = Pages(b"0")
    for number in range(5):
        source.body, source.version = b"%d" % number, f'"v{number}"'
        bring(source, tmp_path / "a", policy)
    assert len(list((Path(policy.directory or "") / str(os.getuid())).glob("*.data"))) == 1


def test_a_part_is_gone_on_with_only_if_it_is_of_the_same_version_and_boot(
    tmp_path: Path, policy: CachePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, some = os.urandom(3 << 20), 2 << 20
    for version, boot, sent in (('"v1"', None, 1 << 20), ('"v2"', None, 3 << 20), ('"v1"', "another", 3 << 20)):
        url = f"{version} {boot}"
        with pytest.raises(TransientTransferError):
            bring(Broken(body, some), tmp_path / "a", policy, url=url)
        if boot:
            monkeypatch.setattr("flow_staging.transfer.cache_entry.boot", lambda boot=boot: boot)
        source = Pages(body, version)
        assert bring(source, tmp_path / "a", policy, url=url) == body
        assert source.sent == [sent]


class Broken(Pages):
    """A source that breaks after so many bytes."""

    def __init__(self, body: bytes, after: int) -> None:
        super().__init__(body)
        self._after = after

    def open(self, offset: int, validator: str, known: str) -> Opened | None:
        pieces = [self.body[: self._after]]

        def read() -> bytes:
            if not pieces:
                raise TransientTransferError("it broke")
            return pieces.pop()

        return Opened(Remote(len(self.body), None, self.version), 0, read, lambda: None)


@given(st.binary(max_size=200))
def test_a_record_that_is_none_is_an_empty_one(data: bytes) -> None:
    with tempfile.TemporaryFile() as stream:
        stream.write(data)
        stream.flush()
        assert Record.read(stream.fileno(), os.fstat(stream.fileno()).st_size) == Record()


@given(
    st.text(max_size=20),
    st.lists(st.tuples(st.text("abc", min_size=1, max_size=3), st.text(max_size=5)), max_size=4),
    st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=4),
)
def test_a_record_is_read_as_it_was_written(url: str, versions: list[tuple[str, str]], pins: dict[str, str]) -> None:
    kept = [Version(name, validator, "", Signature(1, 2, 3, 4)) for name, validator in versions]
    record = Record(url, kept, {pin: (name, 5.0) for pin, name in pins.items()}, Begun("v", "b"))
    with tempfile.TemporaryFile() as stream:
        stream.write(b"x" * 10_000)
        stream.flush()
        record.length = 10_000
        record.write(stream.fileno())
        assert Record.read(stream.fileno(), os.fstat(stream.fileno()).st_size) == record

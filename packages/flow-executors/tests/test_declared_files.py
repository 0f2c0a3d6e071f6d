"""A manager gets, and puts, what a task has declared, and nothing else: the script's side does not believe it."""

import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from flow_core.errors import StagingError
from flow_core.remote.script_files import FilesByConnection, ScriptFile
from flow_executors.client.declared_files import Arrival, Listing, check_member
from flow_executors.wire.files import Entry, body_digest

pytestmark = pytest.mark.usefixtures("_here")


@pytest.fixture
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def step(inputs=(), outputs=(), directory=""):
    return FilesByConnection(directory, tuple(inputs), tuple(outputs))


def file(path, kind="file", **more):
    return ScriptFile(str(path), str(path), kind, **more)


def arrive(made, entries, contents, then=None):
    """Let a manager send what it likes; publish it."""
    arrival = Arrival(made, "1-x", 0o022)
    try:
        arrival.listed(entries)
        for number, content in enumerate(contents):
            if content is not None:
                arrival.begin(number, 0, len(content))
                arrival.write(memoryview(content))
                arrival.end(body_digest(content))
        if then is not None:
            then()
        arrival.publish()
    finally:
        arrival.abandon()


def left(folder):
    return [path for path in folder.rglob("*") if ".part" in path.name]


# -- what is served


def test_what_is_given_is_listed_with_its_size_and_nothing_beside_it(tmp_path):
    (tmp_path / "given").write_text("123")
    (tmp_path / "secret").write_text("no")
    listing = Listing(step([file(tmp_path / "given")], [file(tmp_path / "secret")]))
    assert [(entry.file, entry.member, entry.size) for entry in listing.entries] == [(0, "", 3)]
    assert os.read(listing.open(listing.entries[0]), 9) == b"123"


def test_an_output_is_read_only_where_it_is_to_be_updated(tmp_path):
    (tmp_path / "log").write_text("123")
    assert Listing(step((), [file(tmp_path / "log")])).entries == []
    assert len(Listing(step((), [file(tmp_path / "log", update=True)])).entries) == 1


def test_a_link_of_another_user_in_a_directory_is_not_followed(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root can give a link to another user")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to("/etc/shadow")
    os.chown(tmp_path / "tree/link", 4242, 4242, follow_symlinks=False)
    with pytest.raises(StagingError, match="symbolic link of user"):
        Listing(step([file(tmp_path / "tree", "directory")]))


def test_a_link_put_into_the_place_of_a_listed_member_is_not_followed(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root can give a link to another user")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/member").write_text("123")
    listing = Listing(step([file(tmp_path / "tree", "directory")]))
    (tmp_path / "tree/member").unlink()
    (tmp_path / "tree/member").symlink_to("/etc/shadow")
    os.chown(tmp_path / "tree/member", 4242, 4242, follow_symlinks=False)
    with pytest.raises(StagingError, match="symbolic link of user"):
        listing.open(listing.entries[-1])


def test_links_of_the_users_own_are_as_good_as_what_they_lead_to(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "far").write_text("123")
    (tmp_path / "tree/link").symlink_to(tmp_path / "far")
    listing = Listing(step([file(tmp_path / "tree", "directory")]))
    assert [(entry.member, entry.size) for entry in listing.entries if entry.type == "f"] == [("link", 3)]


def test_a_directory_in_a_circle_is_an_error_and_not_endless(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/up").symlink_to(tmp_path / "tree")
    with pytest.raises(StagingError, match="leads back"):
        Listing(step([file(tmp_path / "tree", "directory")]))


def test_pipes_and_devices_are_not_served(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StagingError, match="neither file nor directory"):
        Listing(step([file(tmp_path / "pipe")]))


def test_a_file_that_has_just_changed_has_no_sure_version(tmp_path):
    (tmp_path / "new").write_text("1")
    assert Listing(step([file(tmp_path / "new")])).entries[0].version == ""


# -- what is taken


def test_a_file_lands_at_its_place_with_its_permissions(tmp_path):
    arrive(step((), [file(tmp_path / "sub/made")]), [Entry(0, "", "f", 3, 0o4777)], [b"123"])
    assert (tmp_path / "sub/made").read_bytes() == b"123"
    assert (tmp_path / "sub/made").stat().st_mode & 0o7777 == 0o755


def test_nothing_is_seen_before_all_is_there(tmp_path):
    (tmp_path / "made").write_text("before")

    def look():
        assert (tmp_path / "made").read_text() == "before"

    arrive(step((), [file(tmp_path / "made")]), [Entry(0, "", "f", 5)], [b"after"], look)
    assert (tmp_path / "made").read_text() == "after"
    assert left(tmp_path) == []


@pytest.mark.parametrize("number", [-1, 0, 2, 99])
def test_what_is_no_output_is_not_taken(tmp_path, number):
    made = step([file(tmp_path / "given")], [file(tmp_path / "made")])
    with pytest.raises(StagingError, match="no output"):
        arrive(made, [Entry(number, "", "f", 1)], [b"1"])
    assert not (tmp_path / "given").exists()


MEMBERS = ["../evil", "a/../../evil", "/etc/evil", "a//b", "./a", "..", ".", "a/", "a\0b", "a/./b"]


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("kind", ["directory", "pattern", "file", "stream"])
def test_members_that_lead_out_are_refused(tmp_path, member, kind):
    made = step((), [file(tmp_path / "out", kind, pattern="**" if kind == "pattern" else "")])
    with pytest.raises(StagingError, match="does not lie in it"):
        arrive(made, [Entry(0, member, "f", 1)], [b"1"])
    assert not (tmp_path / "evil").exists()


@given(st.text(alphabet="a./\0", max_size=12), st.sampled_from(["directory", "pattern"]))
def test_whatever_a_member_is_called_it_lies_below_or_is_refused(member, kind):
    try:
        check_member(Entry(0, member, "f"), ScriptFile("out", "/top/out", kind, "**" if kind == "pattern" else ""))
    except StagingError:
        return
    assert os.path.normpath(os.path.join("/top/out", member)).startswith("/top/out/")


def test_what_does_not_match_a_pattern_is_refused(tmp_path):
    made = step((), [file(tmp_path / "plots", "pattern", pattern="*.png")])
    arrive(made, [Entry(0, "a.png", "f", 1)], [b"1"])
    with pytest.raises(StagingError, match="does not lie in it"):
        arrive(made, [Entry(0, "run.sh", "f", 1)], [b"1"])
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["a.png"]


def test_a_link_inside_a_directory_does_not_lead_an_upload_out(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/link").symlink_to(tmp_path / "home")
    made = step((), [file(tmp_path / "out", "directory")])
    with pytest.raises(StagingError, match="is not written"):
        arrive(made, [Entry(0, "link/keys", "f", 1)], [b"1"])
    assert list((tmp_path / "home").iterdir()) == []
    assert left(tmp_path) == []


def test_a_link_at_the_place_of_a_member_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "keys").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/member").symlink_to(tmp_path / "keys")
    arrive(step((), [file(tmp_path / "out", "directory")]), [Entry(0, "member", "f", 1)], [b"1"])
    assert (tmp_path / "keys").read_text() == "mine"
    assert (tmp_path / "out/member").read_text() == "1"


def test_a_link_of_another_user_at_the_place_of_an_output_is_refused(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root can give a link to another user")
    (tmp_path / "made").symlink_to(tmp_path / "keys")
    os.chown(tmp_path / "made", 4242, 4242, follow_symlinks=False)
    with pytest.raises(StagingError, match="symbolic link of user"):
        arrive(step((), [file(tmp_path / "made")]), [Entry(0, "", "f", 1)], [b"1"])
    assert not (tmp_path / "keys").exists()


def test_a_new_directory_is_there_at_once_and_whole(tmp_path):
    entries = [Entry(0, "", "d"), Entry(0, "a", "d"), Entry(0, "a/one", "f", 1), Entry(0, "two", "f", 1)]
    contents = [None, None, b"1", b"2"]
    made = step((), [file(tmp_path / "out", "directory")])

    def look():
        assert not (tmp_path / "out").exists()

    arrive(made, entries, contents, look)
    assert (tmp_path / "out/a/one").read_text() == "1"
    assert left(tmp_path) == []


def test_what_was_in_a_directory_stays(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").write_text("old")
    arrive(step((), [file(tmp_path / "out", "directory")]), [Entry(0, "new", "f", 1)], [b"1"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["new", "old"]


def test_a_stream_is_added_or_replaced_as_its_mode_says(tmp_path):
    for mode in ("a", "a", "w"):
        made = step((), [file(tmp_path / f"log-{mode}", "stream", mode=mode)])
        arrive(made, [Entry(0, "", "f", 2)], [b"1\n"])
    assert (tmp_path / "log-a").read_text() == "1\n1\n"
    assert (tmp_path / "log-w").read_text() == "1\n"


def test_a_device_is_written_to_and_stays_one():
    arrive(step((), [file("/dev/null", "stream", mode="w")]), [Entry(0, "", "f", 1)], [b"1"])
    assert Path("/dev/null").is_char_device()


def test_a_changed_body_a_short_one_and_a_missing_one_are_refused(tmp_path):
    made = step((), [file(tmp_path / "made")])
    arrival = Arrival(made, "1-x", 0o022)
    arrival.listed([Entry(0, "", "f", 3)])
    with pytest.raises(StagingError, match="other bytes"):
        arrival.begin(0, 0, 2)
    arrival.begin(0, 0, 3)
    arrival.write(memoryview(b"124"))
    with pytest.raises(StagingError, match="changed on its way"):
        arrival.end(body_digest(b"123"))
    with pytest.raises(StagingError, match="before it had sent all"):
        arrival.publish()
    arrival.abandon()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("entries", [[Entry(0, "", "f", 1)] * 2])
def test_one_file_twice_is_refused(tmp_path, entries):
    with pytest.raises(StagingError, match="twice"):
        arrive(step((), [file(tmp_path / "made")]), entries, [b"1", b"1"])

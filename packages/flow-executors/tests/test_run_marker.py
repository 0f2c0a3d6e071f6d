"""By its marker a node finds out whether it sees the run's directory, and nothing else passes for that."""

import os
import stat

import pytest

from flow_executors.common.run_marker import make_marker, sees_marker


@pytest.fixture
def marker(tmp_path):
    return make_marker(tmp_path)


def test_who_sees_the_directory_sees_the_marker(marker):
    assert sees_marker(marker.path, marker.digest)


def test_a_marker_is_private_and_its_digest_does_not_tell_what_is_in_it(marker, tmp_path):
    assert stat.S_IMODE((tmp_path / "marker").stat().st_mode) == 0o600
    assert marker.digest not in (tmp_path / "marker").read_bytes().hex()
    assert marker.digest not in repr(marker.path)


def test_two_markers_differ(tmp_path):
    first = make_marker(tmp_path)
    assert make_marker(tmp_path).digest != first.digest
    assert not sees_marker(first.path, first.digest)


def test_a_directory_of_the_same_name_is_not_the_runs(marker, tmp_path):
    (tmp_path / "marker").write_bytes(os.urandom(32))
    assert not sees_marker(marker.path, marker.digest)


@pytest.mark.parametrize("what", ["nothing", "link", "pipe", "directory", "longer"])
def test_what_is_no_marker_is_none(marker, tmp_path, what):
    path = tmp_path / "marker"
    content = path.read_bytes()
    path.unlink()
    if what == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to("elsewhere")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    elif what == "longer":
        path.write_bytes(content + b"x")
    assert not sees_marker(marker.path, marker.digest)


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "other").write_text("mine")
    (tmp_path / "marker").symlink_to("other")
    marker = make_marker(tmp_path)
    assert (tmp_path / "other").read_text() == "mine"
    assert sees_marker(marker.path, marker.digest)


def test_it_is_removed_at_the_end_and_again_without_a_word(marker, tmp_path):
    marker.remove()
    marker.remove()
    assert not (tmp_path / "marker").exists()

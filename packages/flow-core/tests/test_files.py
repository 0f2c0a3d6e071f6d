"""Files by path and URL."""

from __future__ import annotations

import copy
import pickle
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from flow_core.errors import ConfigurationError
from flow_core.files import File, masked


@pytest.mark.parametrize(
    ("url", "scheme", "netloc", "path", "filename"),
    [
        ("a.txt", "file", "", "a.txt", "a.txt"),
        ("/data/a b.txt", "file", "", "/data/a b.txt", "a b.txt"),
        ("file:///data/a%20b.txt", "file", "", "/data/a b.txt", "a b.txt"),
        ("file:/data/a", "file", "", "/data/a", "a"),
        ("file://localhost/data/a", "file", "localhost", "/data/a", "a"),
        ("http://host:80/x/a.txt?v=1", "http", "host:80", "/x/a.txt", "a.txt"),
        ("HTTPS://host/a", "https", "host", "/a", "a"),
        ("ftp://user@host/d/", "ftp", "user@host", "/d/", "d"),
        ("globus://037f054a-15cf-11e8/unsorted.txt", "globus", "037f054a-15cf-11e8", "/unsorted.txt", "unsorted.txt"),
        ("strange name: with://no scheme", "file", "", "strange name: with://no scheme", "no scheme"),
    ],
)
def test_names_are_taken_apart(url: str, scheme: str, netloc: str, path: str, filename: str) -> None:
    file = File(url)
    assert (file.url, file.scheme, file.netloc, file.path, file.filename) == (url, scheme, netloc, path, filename)


def test_a_local_file_opens_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    file = File(tmp_path / "a")
    with open(file) as stream:
        assert stream.read() == "x"
    assert str(file) == file.filepath == str(tmp_path / "a")


def test_a_remote_file_that_is_not_here_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"http://host/a has no local path.*inputs="):
        str(File("http://host/a"))


def test_copies_have_places_of_their_own() -> None:
    file = File("http://host/a")
    there = file.at("/w/a")
    assert (there.filepath, file.local_path, there.clean_copy()) == ("/w/a", None, file)


def test_a_file_url_of_another_host_is_refused_with_the_path_that_was_meant() -> None:
    with pytest.raises(ConfigurationError, match=r"'file:///data/x\.txt' for the path /data/x\.txt"):
        File("file://data/x.txt")


@pytest.mark.parametrize("wrong", ["", 5, None, b"a", "file:relative", "file://"])
def test_names_that_are_none_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError):
        File(wrong)


@given(st.text(min_size=1), st.one_of(st.none(), st.text(min_size=1)))
def test_files_travel_and_compare_by_value(path: str, local_path: str | None) -> None:
    try:
        file = File("/" + path, local_path=local_path)
    except (ConfigurationError, ValueError):
        return
    for twin in (pickle.loads(pickle.dumps(file)), copy.deepcopy(file), eval(repr(file))):
        assert twin == file
        assert hash(twin) == hash(file)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/a", "http://h/a"),
        ("http://me@h/a", "http://me@h/a"),
        ("http://me:pw@h:80/a", "http://me:***@h:80/a"),
        ("ftp://me:p:w@x@[::1]:21/a", "ftp://me:***@[::1]:21/a"),
        ("ftp://:pw@h/a:b@c", "ftp://:***@h/a:b@c"),
        ("https://h/a:b@c?id=1&X-Amz-Signature=ab&sig=cd#e", "https://h/a:b@c?id=1&X-Amz-Signature=***&sig=***#e"),
        ("https://h/a?access_token=ab&design=cd", "https://h/a?access_token=***&design=cd"),
        ("/a/b://me:pw@h", "/a/b://me:pw@h"),
        ("a:b@c", "a:b@c"),
        ("", ""),
    ],
)
def test_urls_are_shown_without_passwords_and_signatures(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_a_file_keeps_its_password_and_does_not_show_it() -> None:
    file = File("ftp://me:pw@h/a")
    assert pickle.loads(pickle.dumps(file)).url == "ftp://me:pw@h/a"
    assert repr(file) == "File('ftp://me:***@h/a')"
    with pytest.raises(ValueError, match=r"ftp://me:\*\*\*@h/a has no local path"):
        str(file)


def test_the_content_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(data)
    assert File(tmp_path / "a").content_digest() == blake2b(data, digest_size=16).hexdigest()

"""Files by path and URL."""

from __future__ import annotations

import copy
import os
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
        ("file:///data/a#1?b.txt", "file", "", "/data/a#1?b.txt", "a#1?b.txt"),
        ("FILE:/data/%FF", "file", "", "/data/\udcff", "\udcff"),
        ("http://h:80?x=/a", "http", "h:80", "", ""),
        ("http://h/a%20b.txt#c", "http", "h", "/a%20b.txt", "a b.txt"),
        ("http://h/%2E%2E", "http", "h", "/%2E%2E", "%2E%2E"),
        ("http://h/a%0Ab", "http", "h", "/a%0Ab", "a%0Ab"),
        ("ftp://me:p@h/d/out#1?.txt", "ftp", "me:p@h", "/d/out#1?.txt", "out#1?.txt"),
        ("s3://b/d/a%20b?c", "s3", "b", "/d/a%20b?c", "a%20b?c"),
        ("s3://b/a.txt?versionId=x1", "s3", "b", "/a.txt?versionId=x1", "a.txt"),
        ("zip:/d/a.zip/b%20c#1", "zip", "", "/d/a.zip/b%20c#1", "b c#1"),
        ("ZIP:a.zip/b", "zip", "", "a.zip/b", "b"),
        ("my+own://h/a?q#f", "my+own", "h", "/a", "a"),
        ("a b#1?%20.txt", "file", "", "a b#1?%20.txt", "a b#1?%20.txt"),
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
    file = File("http://me:pw@host/a")
    for ask in (os.fspath, lambda file: file.filepath):
        with pytest.raises(ValueError, match=r"http://me:\*\*\*@host/a has no local path.*inputs="):
            ask(file)


def test_str_says_what_a_file_is() -> None:
    assert str(File("http://me:pw@host/a")) == "http://me:***@host/a"
    assert str(File("http://host/a", local_path="/w/a")) == "/w/a"
    assert str(File("zip:a.zip/b")) == "zip:a.zip/b"
    assert str(File("a")) == "a"


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


@pytest.mark.parametrize(
    ("slip", "advice"),
    [
        ("~/a", r"os.path.expanduser\('~/a'\), or './~/a'"),
        ("~", "expanduser"),
        ("~me/a", "expanduser"),
        (r"C:\data\a", "Windows"),
        ("c:/data/a", "Windows"),
        (r"\\server\share\a", "Windows"),
        ("file:///C:/data/a", "Windows"),
        ("http:/host/a", "write 'http://host/a' for the URL, or './http:/host/a'"),
        ("S3:bucket/a", "write 'S3://bucket/a'"),
        ("a\0b", "zero byte"),
        ("file:///a%00b", "zero byte"),
    ],
)
def test_slips_are_refused_with_what_was_meant(slip: str, advice: str) -> None:
    with pytest.raises(ConfigurationError, match=advice):
        File(slip)
    if not slip.startswith("file:"):
        with pytest.raises(ConfigurationError, match=advice):
            File("http://h/a", local_path=slip)


@pytest.mark.parametrize("name", ["~a", "a~/b", "./~/a", "./C:/a", "./http:/host/a", "C:a", "a:b", "-a", " a", "*"])
def test_odd_names_that_mean_themselves_are_taken(name: str) -> None:
    assert File(name).path == name


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
        os.fspath(file)


def test_the_content_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(data)
    assert File(tmp_path / "a").content_digest() == blake2b(data, digest_size=16).hexdigest()


SHA = "0123456789ABCDEF" * 4


def test_a_digest_is_part_of_what_a_file_is(tmp_path: Path) -> None:
    file = File("http://h/a", sha256=SHA)
    assert file.digest == f"sha256:{SHA.lower()}"
    assert file == File("http://h/a", digest=f"SHA256:{SHA}")
    assert file != File("http://h/a")
    assert file != File("http://h/a", digest="md5:" + "0" * 32)
    assert repr(file) == f"File('http://h/a', digest='sha256:{SHA.lower()}')"
    for twin in (pickle.loads(pickle.dumps(file)), copy.copy(file), file.clean_copy(), file.at("/x").clean_copy()):
        assert twin == file
        assert twin.digest == file.digest
    assert File("a", sha256=SHA).relative_to(str(tmp_path)).digest == file.digest


@pytest.mark.parametrize(
    "options",
    [
        {"sha256": "abc"},
        {"sha256": SHA[:-1] + "g"},
        {"sha256": SHA.encode()},
        {"sha256": f"sha256:{SHA}"},
        {"digest": SHA},
        {"digest": "crc32:00000000"},
        {"digest": f"md5:{SHA}"},
        {"digest": 5},
        {"sha256": SHA, "digest": f"sha256:{SHA}"},
    ],
)
def test_what_is_no_digest_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"File\('http://me:\*\*\*@h/a'\).*sha256="):
        File("http://me:secret@h/a", **options)

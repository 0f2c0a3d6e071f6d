"""Every row of the table in docs/file-names.md: what a name written so names, and what its file is called here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from urllib3.util import parse_url

from flow_core.errors import ConfigurationError
from flow_core.files import Directory, File
from flow_core.interfaces.staging import Direction, Staging
from flow_staging import ftp_session, s3
from flow_staging.fsspec_files import FsspecStaging
from flow_staging.ftp import FTPSeparateTaskStaging
from flow_staging.globus.transfer import GlobusStaging, _path_of
from flow_staging.http import HTTPSeparateTaskStaging, _check_fragment
from flow_staging.transfer.failures import PermanentTransferError, redacted
from flow_staging.zip import Member, ZipFileStaging

PAGE = Path(__file__).resolve().parents[3] / "docs" / "file-names.md"
ROWS = [
    tuple(cell.strip().replace("`", "") for cell in line.strip().strip("|").split(" | "))
    for line in PAGE.read_text().splitlines()
    if re.match(r"\| (path|`\w+:`) \|", line)
]


def named(written: str) -> str:
    """Return what a method moves, as the table shows it."""
    file = File(written)
    if file.scheme == "ftp":
        return ftp_session.FtpAddress.of(written).path
    if file.scheme == "globus":
        return _path_of(file)
    if file.scheme == "s3":
        address = s3.S3Address.of(written)
        return f"{address.key}, version {address.version}" if address.version else address.key
    if file.scheme == "zip":
        member = Member.of(written)
        return f"{member.archive.relative_to(Path.cwd())}, {member.name}"
    if file.scheme == "http":
        try:
            _check_fragment(written)
        except PermanentTransferError:
            return "refused"
        return parse_url(written).request_uri
    return file.path


def test_the_table_is_read() -> None:
    assert len(ROWS) >= 20
    assert {row[0] for row in ROWS} == {"path", "file:", "http:", "ftp:", "s3:", "zip:", "globus:"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_name_means_what_the_table_says(row: tuple[str, ...]) -> None:
    _, written, names, local = row
    assert named(written) == names
    if names != "refused":
        assert File(written).filename == local


def test_an_archive_ends_at_no_directory(tmp_path: Path) -> None:
    (tmp_path / "d.zip").mkdir()
    member = Member.of(f"zip:{tmp_path}/d.zip/a.zip/b.zip/m")
    assert (member.archive, member.name) == (tmp_path / "d.zip" / "a.zip", "b.zip/m")
    with pytest.raises(PermanentTransferError, match="archive!/member"):
        Member.of(f"zip:{tmp_path}/d.zip/a.jar/m")


@pytest.mark.parametrize("url", ["zip:a.zip/%FF", "zip:!/m", "zip:a.jar!/", "zip:a.jar!/../m"])
def test_members_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(PermanentTransferError):
        Member.of(url)


def test_ftp_names_and_logins_are_bytes() -> None:
    address = ftp_session.FtpAddress.of("ftp://m%C3%BCe:p%FF#?ss@h:2121/a%FF/ü")
    assert (address.user.encode("latin-1"), address.password.encode("latin-1")) == ("müe".encode(), b"p\xff#?ss")
    assert address.path.encode("latin-1") == b"a\xff/" + "ü".encode()
    assert (address.host, address.port) == ("h", 2121)


@pytest.mark.parametrize("url", ["ftp://h/a\nb", "ftp://h/a%0Ab", "ftp://h/", "ftp:///a", "ftp://h:x/a", "ftp://h?x/a"])
def test_ftp_urls_that_name_no_file_are_refused(url: str) -> None:
    with pytest.raises(PermanentTransferError):
        ftp_session.FtpAddress.of(url)


NAMES = st.text(st.characters(exclude_characters="/\0\r\n", exclude_categories=["Cs"]), min_size=1)


@given(NAMES)
def test_any_name_goes_raw_to_s3_and_quoted_to_ftp(name: str) -> None:
    from urllib.parse import quote

    raw = f"s3://bucket/d/{name}?versionId="
    assert s3.S3Address.of(raw) == s3.S3Address("bucket", f"d/{name}")
    path = ftp_session.FtpAddress.of(f"ftp://h/{quote(name)}").path
    assert path.encode("latin-1").decode() == name


@given(NAMES)
def test_what_a_file_is_called_here_is_one_component(name: str) -> None:
    for url in (f"http://h/{name}", f"ftp://h/{name}", f"s3://b/{name}", f"zip:a.zip/{name}"):
        try:
            called = File(url).filename
        except ConfigurationError:
            continue
        assert "/" not in called


def test_messages_show_whole_names_and_no_passwords() -> None:
    assert redacted("ftp://me:p#?w@h/out#1?.txt") == "ftp://me:***@h/out#1?.txt"
    assert redacted("s3://b/a?versionId=1") == "s3://b/a?versionId=1"
    assert redacted("http://me:pw@h/a?sig=1") == "http://me:***@h/a?sig=..."


NAMELESS = [
    *("http://", "http:///x", "https:///a/b", "http://:80/x", "http://me:secret@/x", "http://me:secret@h:99999/x"),
    *("http://me:secret@h:abc/x", "http://me:secret@[::1/x", "http://me:secret@a b/x"),
    *("ftp://", "ftp:///x", "ftps://:21/x", "ftp://h:abc/x", "ftp://h", "ftp://h/d/"),
    *("s3://", "s3:///k", "s3://b", "s3://b/", "s3://b:80/k"),
    *("globus://", "globus:///x", "globus://name/x", "globus://7d2dc622-2edb-11e8-b8be-0ac6873fc732/"),
    *("zip:", "zip:a.zip", "zip:/x.zip/", "zip:none/a"),
    *("gs://", "gs:///x", "gs://b", "gs://b/", "abfs://", "abfs://c", "sftp://", "sftp:///x", "sftp://h", "smb:///s/x"),
    *("webdav://", "memory://", "local://", "hdfs://"),
]


@pytest.fixture(scope="module")
def methods() -> Iterator[list[Staging]]:
    made: list[Staging] = [
        HTTPSeparateTaskStaging(),
        FTPSeparateTaskStaging(),
        ZipFileStaging(),
        FsspecStaging(["gs", "abfs", "sftp", "smb", "webdav", "memory", "local", "hdfs"]),
        s3.S3Staging(),
        GlobusStaging(endpoint_uuid="7d2dc622-2edb-11e8-b8be-0ac6873fc732"),
    ]
    yield made
    for method in made:
        method.close()


@pytest.mark.parametrize("url", NAMELESS)
def test_urls_that_name_no_file_are_refused_before_anything_is_moved(methods: list[Staging], url: str) -> None:
    file = File(url)
    method = next(each for each in methods if each.can_stage_in(file))
    wrong = method.wrong_with(file, Direction.IN)
    assert wrong
    assert "secret" not in wrong


@pytest.mark.parametrize("url", ["gs://b", "gs://b/", "abfs://c/", "sftp://h", "webdav://", "memory://"])
def test_all_of_a_bucket_or_server_is_a_directory(methods: list[Staging], url: str) -> None:
    file = Directory(url)
    method = next(each for each in methods if each.can_stage_in(file))
    assert method.wrong_with(file, Direction.IN) == ""


def test_a_host_may_be_an_option() -> None:
    method = FsspecStaging("sftp", storage_options={"sftp": {"host": "h"}})
    assert method.wrong_with(File("sftp:///x"), Direction.IN) == ""
    method.close()

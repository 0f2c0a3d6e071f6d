"""Servers that another user runs: they get no secret that is not for them, and cannot fill this user's disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import pytest
from security_attacker import Attacker
from security_servers import FTP, WEB, serving

import flow
from flow import Config, File, python_app
from flow.executors import ThreadPoolExecutor
from flow_core.errors import StagingError
from flow_core.files import Directory
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging import (
    CachePolicy,
    FsspecStaging,
    FTPSeparateTaskStaging,
    HTTPSeparateTaskStaging,
    RetryPolicy,
    S3Staging,
    SizeLimits,
)

QUICK = RetryPolicy(tries=3, first_delay_s=0.01, connect_timeout_s=20, stall_timeout_s=20, timeout_s=50)


def bring(method: flow.Staging, url: str, path: Path) -> None:
    try:
        method.stage([Transfer(File(url), path, Direction.IN, 7, "here")]).result(55)
    finally:
        method.close()


def test_headers_and_logins_go_to_no_server_that_a_table_of_urls_or_a_redirect_names(
    attacker: Attacker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine trusted.invalid login me password sesame\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving(attacker, WEB) as thief, serving(attacker, WEB, thief.url("/plain")) as trusted:
        headers = {trusted.url("/"): {"Authorization": "Bearer sesame", "X-Api-Key": "sesame"}}
        bring(HTTPSeparateTaskStaging(headers=headers, retry=QUICK), trusted.url("/redirect"), tmp_path / "a")
        assert trusted.told()[1]["X-Api-Key"] == "sesame"
        bring(HTTPSeparateTaskStaging(headers=headers, retry=QUICK), thief.url("/plain"), tmp_path / "b")
        with_login = trusted.url("/redirect").replace("://", "://me:sesame@")
        bring(HTTPSeparateTaskStaging(retry=QUICK), with_login, tmp_path / "c")
        for _ in range(3):
            _, sent = thief.told()
            assert "sesame" not in str(sent)
            assert "Authorization" not in sent
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "netrc"]


BELOW = SizeLimits(max_bytes=4 << 20)


@pytest.fixture
def cache(tmp_path: Path) -> CachePolicy:
    return CachePolicy(directory=str(tmp_path / "cache"))


def left(tmp_path: Path) -> list[str]:
    """What lies below a directory with content in it, but for the cache's own tag."""
    return [path.name for path in tmp_path.rglob("*") if path.is_file() and path.name != "CACHEDIR.TAG"]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("page", ["endless", "huge", "bomb"])
def test_a_body_without_end_stops_at_the_limit_and_leaves_nothing(
    attacker: Attacker, tmp_path: Path, cache: CachePolicy, page: str, kept: bool
) -> None:
    method = HTTPSeparateTaskStaging(retry=QUICK, limits=BELOW, cache=cache if kept else None)
    with serving(attacker, WEB) as server:
        with pytest.raises(StagingError, match=rf"/{page}.*limit of 4,194,304.*SizeLimits\(max_bytes"):
            bring(method, server.url(f"/{page}"), tmp_path / "a")
        server.left()
    assert left(tmp_path) == []


def test_what_a_server_sends_packed_is_refused_by_its_ratio_without_any_option(
    attacker: Attacker, tmp_path: Path
) -> None:
    with serving(attacker, WEB) as server:
        with pytest.raises(StagingError, match=r"/bomb.*packed bytes stand for.*SizeLimits\(max_ratio"):
            bring(HTTPSeparateTaskStaging(retry=QUICK, cache=None), server.url("/bomb"), tmp_path / "a")
        server.left()
    assert left(tmp_path) == []


def test_a_file_that_the_disk_has_no_room_for_is_refused_before_it_comes(attacker: Attacker, tmp_path: Path) -> None:
    with serving(attacker, WEB) as server:
        with pytest.raises(StagingError, match=r"/huge.*1,125,899,906,842,624 bytes are to come.*keep_free_bytes"):
            bring(HTTPSeparateTaskStaging(retry=QUICK, cache=None), server.url("/huge"), tmp_path / "a")
        server.left()
    assert left(tmp_path) == []


@pytest.mark.parametrize("page", ["less", "growing"])
def test_a_server_that_lies_about_sizes_fails_the_file(
    attacker: Attacker, tmp_path: Path, cache: CachePolicy, page: str
) -> None:
    method = HTTPSeparateTaskStaging(retry=QUICK, cache=cache)
    with serving(attacker, WEB) as server, pytest.raises(StagingError, match=rf"/{page}.*(announced|before the end)"):
        bring(method, server.url(f"/{page}"), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_bytes_after_the_announced_end_are_no_part_of_the_file(attacker: Attacker, tmp_path: Path) -> None:
    with serving(attacker, WEB) as server:
        bring(HTTPSeparateTaskStaging(retry=QUICK, cache=None), server.url("/more"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"x" * 10


# -- ftp


def test_an_ftp_server_cannot_send_us_to_another_host(attacker: Attacker, tmp_path: Path) -> None:
    with serving(attacker, FTP, "bounce", "127.0.0.2") as server:
        # it says 127.0.0.2; its own address is taken, where it listens, too
        bring(FTPSeparateTaskStaging(retry=QUICK, cache=None), server.url("/a", "ftp"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"plain"


def test_an_ftp_server_that_sends_more_than_its_size_is_left_at_once(attacker: Attacker, tmp_path: Path) -> None:
    with serving(attacker, FTP, "endless", 10) as server:
        with pytest.raises(StagingError, match=r"ftp://.*and more where 10 were announced"):
            bring(FTPSeparateTaskStaging(retry=QUICK, cache=None), server.url("/a", "ftp"), tmp_path / "a")
        server.left()
    assert left(tmp_path) == []


def test_an_ftp_file_beyond_the_limit_is_refused_by_its_size(attacker: Attacker, tmp_path: Path) -> None:
    with (
        serving(attacker, FTP, "endless", 1 << 40) as server,
        pytest.raises(StagingError, match=r"1,099,511,627,776 bytes.*limit of 4,194,304"),
    ):
        bring(FTPSeparateTaskStaging(retry=QUICK, cache=None, limits=BELOW), server.url("/a", "ftp"), tmp_path / "a")
    assert left(tmp_path) == []


def test_an_ftp_answer_without_end_is_not_read_to_its_end(attacker: Attacker, tmp_path: Path) -> None:
    with serving(attacker, FTP, "babble") as server, pytest.raises(StagingError, match="more than 1000 lines"):
        bring(FTPSeparateTaskStaging(retry=QUICK, cache=None), server.url("/a", "ftp"), tmp_path / "a")


# -- names and contents


@pytest.mark.parametrize("name", ["..", ".", "%2e%2e", "..%2f..%2fetc%2fpasswd", "a%00b", "%0d%0aevil", "%1b[31mred"])
def test_names_in_urls_lead_nowhere_and_break_no_line_of_the_log(attacker: Attacker, tmp_path: Path, name: str) -> None:
    @python_app
    def place(inputs: list[File] = []) -> tuple[str, int]:
        return inputs[0].filepath, os.path.getsize(inputs[0].filepath)

    with serving(attacker, WEB) as server:
        run = tmp_path / "runinfo"
        here = ThreadPoolExecutor(storage_access=[HTTPSeparateTaskStaging(retry=QUICK)])
        with flow.load(Config([here], run_dir=str(run))):
            path, size = place(inputs=[File(server.url(f"/plain/{name}"))]).result(50)
            missing = place(inputs=[File(server.url(f"/less/a{name}"))])
            assert missing.exception(50) is not None
    assert size == 5
    assert Path(os.path.normpath(path)).is_relative_to(run / "000")
    log = (run / "000" / "flow.log").read_text()
    assert "\x1b" not in log
    assert all(line[:2].isdigit() or line.startswith((" ", "Traceback")) for line in log.splitlines() if line)


def test_what_a_server_says_writes_no_line_of_the_log_and_tells_terminals_nothing(
    attacker: Attacker, tmp_path: Path
) -> None:
    @python_app
    def read(inputs: list[File] = []) -> None:
        pass

    run = tmp_path / "runinfo"
    methods = [HTTPSeparateTaskStaging(retry=QUICK), FTPSeparateTaskStaging(retry=QUICK)]
    with (
        serving(attacker, WEB) as web,
        serving(attacker, FTP, "shout") as ftp,
        flow.load(Config([ThreadPoolExecutor(storage_access=methods)], run_dir=str(run))),
    ):
        errors = [read(inputs=[File(url)]).exception(50) for url in (web.url("/shout"), ftp.url("/a", "ftp"))]
    assert "404" in str(errors[0])
    assert "gone / 2026-01-01" in str(errors[1])
    for text in (*map(str, errors), (run / "000" / "flow.log").read_text()):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "\n2026-01-01" not in (run / "000" / "flow.log").read_text()


def test_only_a_digest_can_tell_that_a_server_sends_another_files_bytes(attacker: Attacker, tmp_path: Path) -> None:
    with serving(attacker, WEB) as server:
        bring(HTTPSeparateTaskStaging(retry=QUICK, cache=None), server.url("/plain/wanted"), tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == b"plain"
        wanted = File(server.url("/plain/wanted"), sha256=hashlib.sha256(b"wanted").hexdigest())
        method = HTTPSeparateTaskStaging(retry=QUICK, cache=None)
        with pytest.raises(StagingError, match="sha256"):
            method.stage([Transfer(wanted, tmp_path / "b", Direction.IN, 7, "here")]).result(55)
        method.close()
    assert left(tmp_path) == ["a"]


@pytest.mark.parametrize("kept", [False, True])
def test_a_bucket_that_lies_fills_no_disk_and_a_digest_finds_another_keys_bytes(
    attacker: Attacker, tmp_path: Path, cache: CachePolicy, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    pytest.importorskip("boto3")
    for name, value in (("ID", "x"), ("KEY", "y")):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID" if name == "ID" else "AWS_SECRET_ACCESS_KEY", value)

    def method() -> S3Staging:
        options = {"retry": QUICK, "limits": BELOW, "cache": cache if kept else None, "region": "us-east-1"}
        return S3Staging(endpoint_url=server.url(""), **options)  # type: ignore[arg-type]

    with serving(attacker, WEB) as server:
        for bucket in ("endless", "huge", "bomb"):
            with pytest.raises(StagingError, match=rf"s3://{bucket}/key.*limit of 4,194,304.*max_bytes"):
                bring(method(), f"s3://{bucket}/key", tmp_path / "a")
            server.left()
        bring(method(), "s3://plain/key", tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == b"plain"
        digest = hashlib.sha256(b"wanted").hexdigest()
        transfer = Transfer(File("s3://plain/key", sha256=digest), tmp_path / "b", Direction.IN, 7, "here")
        staging = method()
        with pytest.raises(StagingError, match="sha256"):
            staging.stage([transfer]).result(55)
        staging.close()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("status", ["301", "307", "301h", "400h"])
def test_a_bucket_that_says_it_has_moved_sends_the_signature_to_nobody_else(
    attacker: Attacker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    with serving(attacker, WEB) as thief, serving(attacker, WEB, thief.url("/plain")) as trusted:
        method = S3Staging(endpoint_url=trusted.url(""), region="us-east-1", retry=QUICK, cache=None)
        with pytest.raises(StagingError):
            bring(method, f"s3://moved/{status}", tmp_path / "work" / "a")
        assert trusted.told()[0].startswith("/moved/")
        bring(HTTPSeparateTaskStaging(retry=QUICK, cache=None), thief.url("/last"), tmp_path / "b")
        assert thief.told()[0] == "/last"  # so nothing came before
    assert not (tmp_path / "work" / "a").exists()


LISTINGS = [
    ("many", r"has 6,000 files or more, beyond the limit of 5,000.*max_files"),
    ("idle", "the listing of the bucket does not end"),
    ("climb", "cannot be the name of a file here"),
    ("root", "cannot be the name of a file here"),
    ("zero", "cannot be the name of a file here|500 Internal"),
]


@pytest.mark.parametrize(("bucket", "reason"), LISTINGS)
def test_the_listing_of_a_bucket_leads_nowhere_else_and_is_not_read_without_end(
    attacker: Attacker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str, reason: str
) -> None:
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    with serving(attacker, WEB) as server:
        method = S3Staging(
            endpoint_url=server.url(""), region="us-east-1", retry=QUICK, limits=SizeLimits(max_files=5000), cache=None
        )
        transfer = Transfer(Directory(f"s3://{bucket}/p"), tmp_path / "work" / "in", Direction.IN, 7, "here")
        with pytest.raises(StagingError, match=reason):
            method.stage([transfer]).result(55)
        method.close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("deep", r"beyond the limit of 100.*max_files"),
        ("climb", "it is a directory"),
        ("up", "there is nothing below this directory"),
        ("root", "it is a directory"),
        ("packed", "it is a directory"),
    ],
)
def test_directories_of_a_server_lead_nowhere_else_and_are_not_followed_without_end(
    attacker: Attacker, tmp_path: Path, kind: str, reason: str
) -> None:
    pytest.importorskip("webdav4")
    with serving(attacker, WEB) as server:
        method = FsspecStaging(
            "webdav",
            storage_options={"webdav": {"base_url": server.url("/")}},
            retry=QUICK,
            limits=SizeLimits(max_files=100),
            cache=None,
        )
        transfer = Transfer(Directory(f"webdav://{kind}/in"), tmp_path / "a" / "b" / "in", Direction.IN, 7, "here")
        with pytest.raises(StagingError, match=reason):
            method.stage([transfer]).result(55)
        method.close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_listing_of_an_ftp_server_is_not_read_without_end(attacker: Attacker, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"12345")
    method = FTPSeparateTaskStaging(retry=QUICK)
    with serving(attacker, FTP, "list") as server:
        out = File(server.url("/dir/out", "ftp"))
        for _ in range(2):
            transfer = Transfer(out, tmp_path / "out", Direction.OUT, 7, "here")
            with contextlib.suppress(StagingError):
                method.stage([transfer]).result(55)
        server.left()
    method.close()


LIES = [
    ("/coded/2", "only gzip and deflate can be unpacked"),
    ("/coded/50", "only gzip and deflate can be unpacked"),
    ("/headers", "more than 100 headers"),
    ("/header", "more than 65536 bytes"),
    ("/chunk", "more than 65536 bytes"),
    ("/away", "file scheme is not of the web"),
    ("/circle", "more than 30 redirects"),
    ("/later", "longer than the transfer may take"),
]


@pytest.mark.parametrize(("path", "reason"), LIES)
def test_what_a_server_says_of_an_answer_costs_little_and_leads_nowhere(
    attacker: Attacker, tmp_path: Path, path: str, reason: str
) -> None:
    with (
        serving(attacker, WEB) as server,
        pytest.raises(StagingError, match=reason),
    ):
        bring(HTTPSeparateTaskStaging(retry=QUICK, cache=None), server.url(path), tmp_path / "work" / "a")
    assert not [found for found in tmp_path.rglob("*") if found.is_file()]


def test_a_server_does_not_choose_the_name_of_a_file(attacker: Attacker, tmp_path: Path) -> None:
    with serving(attacker, WEB) as server:
        bring(HTTPSeparateTaskStaging(retry=QUICK, cache=None), server.url("/named"), tmp_path / "deep" / "work" / "a")
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert found == [tmp_path / "deep" / "work" / "a"]

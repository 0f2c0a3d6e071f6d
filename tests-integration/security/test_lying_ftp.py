"""Servers of ftp that another user runs, and that lie: no transfer hangs, and none leads elsewhere."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from security_attacker import Attacker
from security_ftp import FTP_LIES
from security_servers import Running, serving

from flow_core.errors import StagingError
from flow_core.files import Directory, File
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging import FTPSeparateTaskStaging, RetryPolicy

ONCE = RetryPolicy(tries=1, connect_timeout_s=20, stall_timeout_s=20, timeout_s=50)
SHORT = RetryPolicy(
    tries=1, connect_timeout_s=0.5, stall_timeout_s=0.5, timeout_s=50, least_speed=1000, least_speed_window_s=0.5
)
LISTS = {"FEAT": "211-has\r\n MLST size*;\r\n211 end"}


@contextmanager
def lying(
    attacker: Attacker, said: dict[str, str], data: str = "plain", at: str = "127.0.0.1", pem: str = "", **how: object
) -> Iterator[Running]:
    with serving(attacker, FTP_LIES, json.dumps(said), json.dumps(data), json.dumps(how), at, pem) as server:
        yield server


def fetched(url: str, path: Path, retry: RetryPolicy = ONCE, ca: Path | None = None) -> str:
    """Return why a file could not be fetched; empty if it could."""
    method = FTPSeparateTaskStaging(retry=retry, cache=None, ca_bundle=None if ca is None else str(ca))
    file = Directory(url) if url.endswith("/dir") else File(url)
    try:
        method.stage([Transfer(file, path, Direction.IN, 7, "here")]).result(55)
    except StagingError as error:
        return str(error)
    finally:
        method.close()
    return ""


def said_of(server: Running, until: str) -> list[str]:
    """Return the commands that came, up to one of them."""
    commands: list[str] = []
    while not commands or commands[-1] != until:
        commands.append(server.told()[0])
    return commands


@pytest.mark.parametrize("port", ["0,22", "0,0", "255,256", "999,999", "3,255"])
def test_an_ftp_server_has_us_talk_to_no_other_service(attacker: Attacker, tmp_path: Path, port: str) -> None:
    with lying(attacker, {"PASV": f"227 (127,0,0,1,{port})"}) as server:
        assert "only 1024 to 65535 are taken" in fetched(server.url("/a", "ftp"), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", ["229 (|||22|)", "229 (|||70000|)", "229 (|||x|)", "229 (|1|10.0.0.1|-1|)"])
def test_an_ftp_server_of_ipv6_has_us_talk_to_no_other_service(attacker: Attacker, tmp_path: Path, answer: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with lying(attacker, {"EPSV": answer}, at="::1") as server:
        reason = fetched(f"ftp://[::1]:{server.port}/a", tmp_path / "a")
    assert "only 1024 to 65535 are taken" in reason or "no port for data" in reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["BANNER", "USER", "TYPE", "SIZE", "RETR"])
def test_an_ftp_answer_that_drips_is_not_waited_for(attacker: Attacker, tmp_path: Path, where: str) -> None:
    with lying(attacker, {where: ""} if where == "RETR" else {}, drip=[where]) as server:
        reason = fetched(server.url("/a", "ftp"), tmp_path / "a", SHORT)
        assert "an answer took longer than 0.5 s" in reason
        said_of(server, "left")


@pytest.mark.parametrize("where", ["BANNER", "SIZE"])
def test_an_ftp_answer_with_a_line_without_end_is_refused(attacker: Attacker, tmp_path: Path, where: str) -> None:
    with lying(attacker, {}, line=[where]) as server:
        assert "a line of more than 8192 bytes" in fetched(server.url("/a", "ftp"), tmp_path / "a")
        said_of(server, "left")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"slow": True}, "too slow"),
        ({"silent": True}, "timed out"),
        ({"line": []}, "a line of more than 8192 bytes"),
    ],
)
@pytest.mark.parametrize("lists", [True, False])
def test_a_listing_that_drips_or_has_no_end_of_a_line_is_given_up(
    attacker: Attacker, tmp_path: Path, how: dict[str, object], reason: str, lists: bool
) -> None:
    with lying(attacker, LISTS if lists else {}, **how) as server:
        assert reason in fetched(server.url("/dir", "ftp"), tmp_path / "dir", SHORT)
        said_of(server, "left")


def test_a_file_that_drips_is_given_up(attacker: Attacker, tmp_path: Path) -> None:
    with lying(attacker, {"SIZE": "213 1000000"}, slow=True) as server:
        assert "too slow" in fetched(server.url("/a", "ftp"), tmp_path / "a", SHORT)
        said_of(server, "left")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["-5", "²", "9" * 5000, "0x5", ""])
def test_an_ftp_size_that_is_none_fails_the_file_and_says_so(attacker: Attacker, tmp_path: Path, size: str) -> None:
    with lying(attacker, {"SIZE": f"213 {size}"}) as server:
        assert "is no size of a file" in fetched(server.url("/a", "ftp"), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_an_ftp_transfer_that_begins_with_a_size_of_thousands_of_digits_fails(
    attacker: Attacker, tmp_path: Path
) -> None:
    with lying(attacker, {"150": f"150 coming ({'9' * 5000} bytes)"}) as server:
        assert "what is no size" in fetched(server.url("/a", "ftp"), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../climbed", "/etc/passwd", "a/../../b", "a\rDELE b", "a\0b"])
@pytest.mark.parametrize("lists", [True, False])
def test_names_in_an_ftp_listing_lead_nowhere_and_are_no_commands(
    attacker: Attacker, tmp_path: Path, name: str, lists: bool
) -> None:
    line = f"type=file;size=5;modify=20230102030405; {name}\r\n" if lists else f"{name}\r\n"
    with lying(attacker, LISTS if lists else {}, data=line) as server:
        reason = fetched(server.url("/dir", "ftp"), tmp_path / "deep" / "dir")
        assert "in it cannot be the name of a file here" in reason
        assert "\r" not in reason
        assert "\0" not in reason
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_sizes_in_an_ftp_listing_that_are_none_are_asked_for(attacker: Attacker, tmp_path: Path) -> None:
    lines = "".join(
        f"type=file;size={size};modify=20230102030405; {name}\r\n"
        for name, size in [("a", "²"), ("b", "-1"), ("c", "9" * 5000)]
    )
    with lying(attacker, {**LISTS, "RETR": "550 gone"}, data=lines) as server:
        assert "the server answered 550 gone" in fetched(server.url("/dir", "ftp"), tmp_path / "dir")
        assert "SIZE" in said_of(server, "RETR")


@pytest.mark.parametrize("lists", [True, False])
def test_names_that_an_ftp_server_lists_after_an_upload_are_no_commands(
    attacker: Attacker, tmp_path: Path, lists: bool
) -> None:
    (tmp_path / "out").write_bytes(b"12345")
    names = [".flow-x\rDELE b.part", ".flow-x/../../b.part", "../b.part"]
    lines = "".join(f"modify=20000101000000; {name}\r\n" if lists else f"{name}\r\n" for name in names)
    method = FTPSeparateTaskStaging(retry=ONCE)
    with lying(attacker, {} if lists else {"MLSD": "502 unknown"}, data=lines) as server:
        out = File(server.url("/dir/out", "ftp"))
        method.stage([Transfer(out, tmp_path / "out", Direction.OUT, 7, "here")]).result(55)
        assert "DELE" not in said_of(server, "RNTO")
    method.close()


# -- TLS


@pytest.fixture
def pem(authority: Path, tmp_path: Path) -> Iterator[Path]:
    """Certificate and key of the server, where its user can read them."""
    made = tmp_path / "server.pem"
    made.write_text((authority / "server.pem").read_text() + (authority / "server.key").read_text())
    made.chmod(0o644)
    yield made
    made.unlink()


@pytest.mark.parametrize(
    ("said", "how", "reason"),
    [
        ({"AUTH": "502 no TLS here"}, {}, "the server offers no TLS"),
        ({"AUTH": "234 go on\r\n230 in\r\n200 private"}, {}, "more than its answer before TLS began"),
        ({"PROT": "536 in clear only"}, {}, "the server answered 536"),
        ({"PROT": "200 private"}, {"plain": True}, "TLS"),
    ],
)
def test_nothing_comes_in_clear_where_tls_was_asked_for(
    attacker: Attacker,
    authority: Path,
    pem: Path,
    tmp_path: Path,
    said: dict[str, str],
    how: dict[str, object],
    reason: str,
) -> None:
    with lying(attacker, said, pem=str(pem), **how) as server:
        got = fetched(
            server.url("/a", "ftpes").replace("://", "://me:sesame@"), tmp_path / "a", ca=authority / "ca.pem"
        )
        assert reason in got
        assert "sesame" not in got
    assert not (tmp_path / "a").exists()


def test_a_liar_that_tells_the_truth_is_believed(
    attacker: Attacker, authority: Path, pem: Path, tmp_path: Path
) -> None:
    with lying(attacker, {}, pem=str(pem)) as server:
        assert fetched(server.url("/a", "ftpes"), tmp_path / "a", ca=authority / "ca.pem") == ""
    with lying(attacker, LISTS, data="type=file;size=5;modify=20230102030405; name\r\n") as server:
        assert fetched(server.url("/dir", "ftp"), tmp_path / "dir") != ""  # its files hold the listing, not five bytes
        assert "RETR" in said_of(server, "RETR")
    assert (tmp_path / "a").read_bytes() == b"plain"

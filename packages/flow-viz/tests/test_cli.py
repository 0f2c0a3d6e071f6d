"""The command line of flow-visualize."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from flow_monitor.testing.made import make_database
from flow_monitor.testing.synthetic import SyntheticRun
from flow_viz import formatting
from flow_viz.cli import default_endpoint, main


def test_help_tells_of_the_tunnel(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert "ssh -L" in out
    assert "8080" in out


@pytest.mark.parametrize("arguments", [["mysql://x/y"], ["--listen", "203.0.113.1", "--port", "1"]])
def test_what_cannot_be_served_is_said_in_a_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert capsys.readouterr().err.startswith("flow-visualize: ")


def test_a_port_in_use_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["--port", str(taken.getsockname()[1])]) == 1
    assert "--port" in capsys.readouterr().err


def test_a_bad_port_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--port", "70000"])
    assert "70000" in capsys.readouterr().err


def test_the_default_database_is_of_runinfo_then_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_endpoint() == "sqlite:///runinfo/monitoring.db"
    (tmp_path / "monitoring.db").touch()
    assert default_endpoint() == "sqlite:///monitoring.db"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 s"), (0.25, "250 ms"), (5.04, "5.0 s"), (90, "1 min 30 s"), (7260, "2 h 01 min"), (1e6, "11 d 13 h")],
)
def test_durations_read_well(value: float, text: str) -> None:
    assert formatting.seconds(value) == text


def test_absurd_times_are_shown_as_unknown() -> None:
    assert formatting.moment(1 << 62) != ""
    assert formatting.moment(None) == formatting.moment(0) == formatting.moment(-(1 << 90))


@contextmanager
def served(tmp_path: Path, *options: str, **variables: str) -> Iterator[tuple[str, str]]:
    """Serve a database; yield the address that was printed, and all that was said."""
    database = make_database(tmp_path, SyntheticRun(run_id="r", tasks=10, samples=0))
    command = [sys.executable, "-m", "flow_viz.cli", str(database), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}) as server:
        try:
            assert server.stdout is not None
            said = ""
            while (found := re.search(r"Open (\S+)", said)) is None:
                line = server.stdout.readline()
                assert line, said
                said += line
            yield found[1], said
        finally:
            server.terminate()
            server.wait(30)
        assert server.returncode == 0


@contextmanager
def told_at_start(directory: Path, *arguments: str) -> Iterator[tuple[str, str]]:
    """Serve from a directory; yield the address, and the first line on standard error."""
    command = [sys.executable, "-m", "flow_viz.cli", *arguments, "--port", "0", "--no-token"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=directory, text=True, **pipes) as server:  # type: ignore[call-overload]
        try:
            server.stdout.readline()
            yield server.stdout.readline().split()[1], server.stderr.readline()
        finally:
            server.terminate()
            server.communicate(timeout=30)


def test_a_database_that_is_not_there_is_told_with_what_to_do_and_shown_when_it_is(tmp_path: Path) -> None:
    with told_at_start(tmp_path) as (address, told):
        assert "flow-visualize: there is no file runinfo/monitoring.db: " in told
        assert "Config(monitoring=MonitoringHub())" in told
        assert f"Looked for from {tmp_path}: start this where the script runs, or name the database" in told
        assert status_of(f"{address}api/workflows", None) == 503
        (tmp_path / "runinfo").mkdir()
        make_database(tmp_path / "runinfo", SyntheticRun(run_id="r", tasks=1, samples=0))
        assert status_of(f"{address}api/workflows", None) == 200


@pytest.mark.parametrize("named", ["junk.db", "absent.db"])
def test_a_database_that_is_named_and_none_is_told(tmp_path: Path, named: str) -> None:
    (tmp_path / "junk.db").write_text("no database" * 100)
    with told_at_start(tmp_path, named) as (_, told):
        assert named in told
        assert "start this where" not in told
        assert "The pages show it as soon as it can be read" in told


@pytest.mark.parametrize("listen", ["0.0.0.0", "127.0.0.1"])
def test_a_token_is_demanded_and_printed(tmp_path: Path, listen: str) -> None:
    with served(tmp_path, "--listen", listen) as (address, said):
        found = re.search(r":(\d+)/\?token=(\S+)", address)
        assert found is not None, said
        assert ("site's policy" in said) is (listen == "0.0.0.0")
        assert ("in clear" in said) is (listen == "0.0.0.0")
        for token, status in ((None, 401), ("wrong", 401), (found[2], 200)):
            assert status_of(f"http://127.0.0.1:{found[1]}/api/workflows", token) == status


def test_the_token_of_the_environment_is_the_one(tmp_path: Path) -> None:
    with served(tmp_path, FLOW_VIZ_TOKEN="chosen-token") as (address, _):
        assert address.endswith("?token=chosen-token")
        for token, status in ((None, 401), ("chosen-toke", 401), ("chosen-token", 200)):
            assert status_of(f"{address.partition('?')[0]}api/workflows", token) == status


def test_without_a_token_only_local_names_are_answered(tmp_path: Path) -> None:
    with served(tmp_path, "--no-token") as (address, _):
        assert "token" not in address
        assert status_of(f"{address}api/workflows", None) == 200
        assert status_of(f"{address}api/workflows", None, host="pages.example.org") == 403


@pytest.mark.parametrize(
    ("options", "variables", "named"),
    [
        (["--no-token", "--listen", "0.0.0.0"], {}, "--no-token"),
        ([], {"FLOW_VIZ_TOKEN": "short"}, "FLOW_VIZ_TOKEN"),
        (["--keyfile", "key.pem"], {}, "--certfile"),
        (["--certfile", "missing.pem"], {}, "missing.pem"),
    ],
)
def test_what_leaves_the_door_open_is_refused(
    options: list[str],
    variables: dict[str, str],
    named: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(options) == 1
    assert named in capsys.readouterr().err


def test_pages_are_served_with_tls(tmp_path: Path) -> None:
    certificate = tmp_path / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(tmp_path / "key.pem"), "-out",
         str(certificate), "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    trusting = ssl.create_default_context(cafile=str(certificate))
    with served(tmp_path, "--certfile", str(certificate), "--keyfile", str(tmp_path / "key.pem")) as (address, _):
        assert address.startswith("https://")
        page, token = address.split("?token=")
        assert status_of(f"{page}api/workflows", token, context=trusting) == 200
        request = urllib.request.Request(address)
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trusting), _NoRedirect())
        with pytest.raises(urllib.error.HTTPError) as moved:
            opener.open(request, timeout=20)
        with moved.value:
            assert "Secure" in moved.value.headers["Set-Cookie"]


def test_requests_that_never_end_hold_up_nobody(tmp_path: Path) -> None:
    with served(tmp_path, "--no-token") as (address, _), ExitStack() as stack:
        port = int(address.rstrip("/").rpartition(":")[2])
        for _ in range(150):
            stalled = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            stalled.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        assert status_of(f"{address}api/workflows", None) == 200


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:  # type: ignore[override]
        return None


def status_of(
    address: str, token: str | None, *, host: str | None = None, context: ssl.SSLContext | None = None
) -> int:
    request = urllib.request.Request(address, headers={} if token is None else {"Authorization": f"Bearer {token}"})
    if host is not None:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code

"""The command line of flow-visualize."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from flow_monitor.testing.made import make_database
from flow_monitor.testing.synthetic import SyntheticRun
from flow_viz import auth, shown
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
    ("address", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.8.8.8", True), ("0.0.0.0", False), ("host", False)],
)
def test_loopback_is_told_from_the_rest(address: str, loopback: bool) -> None:
    assert auth.is_loopback(address) is loopback


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 s"), (0.25, "250 ms"), (5.04, "5.0 s"), (90, "1 min 30 s"), (7260, "2 h 01 min"), (1e6, "11 d 13 h")],
)
def test_durations_read_well(value: float, text: str) -> None:
    assert shown.seconds(value) == text


def test_absurd_times_are_shown_as_unknown() -> None:
    assert shown.moment(1 << 62) != ""
    assert shown.moment(None) == shown.moment(0) == shown.moment(-(1 << 90))


def test_an_address_that_others_reach_demands_the_token_it_prints(tmp_path: Path) -> None:
    database = make_database(tmp_path, SyntheticRun(run_id="r", tasks=10, samples=0))
    command = [sys.executable, "-m", "flow_viz.cli", str(database), "--listen", "0.0.0.0", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            said = "".join(next(server.stdout) for _ in range(3))
            found = re.search(r":(\d+)/\?token=(\S+)", said)
            assert found is not None, said
            assert "site's policy" in said
            address = f"http://127.0.0.1:{found[1]}/api/workflows"
            for token, status in ((None, 401), ("wrong", 401), (found[2], 200)):
                assert status_of(address, token) == status
        finally:
            server.terminate()


def status_of(address: str, token: str | None) -> int:
    request = urllib.request.Request(address, headers={} if token is None else {"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code

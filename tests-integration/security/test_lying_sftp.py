"""An sftp server that lies about its directories: names lead nowhere, and no listing is read without end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from security_servers import Running, running
from security_sftp import SFTP_LIES

from flow_core.errors import StagingError
from flow_core.files import Directory
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging import FsspecStaging, RetryPolicy

paramiko = pytest.importorskip("paramiko")
pytest.importorskip("fsspec")
ONCE = RetryPolicy(tries=1, connect_timeout_s=20, stall_timeout_s=20, timeout_s=50)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("keys")
    made = [home / "first", home / "second"]
    for path in made:
        paramiko.RSAKey.generate(2048).write_private_key_file(str(path))
    return made


@contextmanager
def lying(key: Path, names: list[str] | None) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, "-c", SFTP_LIES, str(key), json.dumps(names)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with running(process) as server:
        yield server


def fetched(server: Running, key: Path, tmp_path: Path) -> str:
    """Return why a directory could not be fetched from a server of which this key is known."""
    known = tmp_path / "known_hosts"
    host_key = paramiko.RSAKey.from_private_key_file(str(key))
    known.write_text(f"[127.0.0.1]:{server.port} ssh-rsa {host_key.get_base64()}\n")
    known.chmod(0o600)
    options = {"username": "me", "password": "sesame", "known_hosts": str(known), "allow_agent": False}
    method = FsspecStaging(
        "sftp", storage_options={"sftp": {**options, "look_for_keys": False}}, retry=ONCE, cache=None
    )
    place = Directory(f"sftp://127.0.0.1:{server.port}/dir")
    try:
        method.stage([Transfer(place, tmp_path / "deep" / "dir", Direction.IN, 7, "here")]).result(55)
    except StagingError as error:
        return str(error)
    finally:
        method.close()
    return ""


@pytest.mark.parametrize("name", ["../climbed", "/etc/passwd", "a/../../b", "a\0b"])
def test_names_that_an_sftp_server_lists_lead_nowhere(keys: list[Path], tmp_path: Path, name: str) -> None:
    with lying(keys[0], [name]) as server:
        assert fetched(server, keys[0], tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["known_hosts"]


def test_an_sftp_server_that_says_nothing_of_a_name_fails_the_directory(keys: list[Path], tmp_path: Path) -> None:
    with lying(keys[0], ["bare"]) as server:
        assert "says nothing of 'bare'" in fetched(server, keys[0], tmp_path)


def test_the_listing_of_an_sftp_server_is_not_read_without_end(
    keys: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flow_staging.fsspec_sftp.MOST_NAMES", 2000)  # a million takes minutes
    with lying(keys[0], None) as server:
        assert "more than 2,000 names" in fetched(server, keys[0], tmp_path)


def test_an_sftp_server_of_another_key_gets_no_password(keys: list[Path], tmp_path: Path) -> None:
    with lying(keys[0], []) as server:
        assert "does not match" in fetched(server, keys[1], tmp_path)

"""What all tests of all packages share."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

_numbers = itertools.count()


def pytest_configure() -> None:
    """Take Ctrl-C as ever, also where a shell runs the tests in its background, and has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests from the user's own cache, and from those of each other: servers of theirs have the same names."""
    monkeypatch.delenv("FLOW_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / f"cache-{next(_numbers)}"))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a CA (``ca.pem``), and a server's key and certificate for 127.0.0.1 made by it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    home = tmp_path_factory.mktemp("authority")
    (home / "ext").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=home, check=True, capture_output=True, timeout=30)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj")
    openssl("req", "-x509", *new, "/CN=Test CA", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
    openssl("req", *new, "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl("x509", "-req", "-in", "server.csr", *signed, "-out", "server.pem")
    return home


# What the search for a Python on a node calls, and what unpacks an environment there.
_NODE_TOOLS = "bash uname tail mkdir mktemp sha256sum tar gzip mv rm cat sh chmod"


@pytest.fixture
def tools_of_node(tmp_path: Path) -> Path:
    """Return a directory to be all of PATH: that of a node without any Python."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in _NODE_TOOLS.split():
        folders = [Path(folder, tool) for folder in os.environ["PATH"].split(os.pathsep)]
        (tools / tool).symlink_to(next(path for path in folders if path.exists()))
    return tools

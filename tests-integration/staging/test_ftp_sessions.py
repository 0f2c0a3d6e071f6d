"""Sessions with ftp servers that are kept from file to file."""

from __future__ import annotations

import os

import pytest

from flow_core.errors import StagingError
from flow_core.interfaces.call import NodeContext
from flow_staging.ftp import FTPInTaskStaging, FTPSeparateTaskStaging

pytest.importorskip("pyftpdlib")

from staging_ftp import FtpServer
from staging_servers import QUICK, incoming, outgoing, visible


@pytest.fixture
def method():
    staging = FTPSeparateTaskStaging(retry=QUICK, threads=1)
    yield staging
    staging.close()


def go(method: FTPSeparateTaskStaging, *transfers) -> None:
    method.stage(list(transfers)).result(50)


def logins(ftp: FtpServer) -> list[str]:
    return [command.partition(" ")[2] for command in ftp.commands if command.startswith("USER")]


def test_files_of_one_login_come_and_go_by_one_session(method, ftp, root, tmp_path):
    for n in range(5):
        (root / str(n)).write_text(f"{n}")
        go(method, incoming(ftp.url(f"/{n}"), tmp_path / str(n)))
        assert (tmp_path / str(n)).read_text() == f"{n}"
        go(method, outgoing(tmp_path / str(n), ftp.url(f"/new/deep/{n}")))
        go(method, incoming(ftp.url(f"/new/deep/{n}"), tmp_path / f"back-{n}"))  # the session has not moved
    with pytest.raises(StagingError, match="550"):
        go(method, incoming(ftp.url("/none"), tmp_path / "none"))
    go(method, incoming(ftp.url("/0"), tmp_path / "0"))
    assert logins(ftp) == ["anonymous"]
    assert visible(root / "new" / "deep") == ["0", "1", "2", "3", "4"]


def test_each_login_has_sessions_of_its_own(method, ftp, root, tmp_path):
    (root / "a").write_text("a")
    for number, login in enumerate(("", "reader:r@", "", "reader:r@", "me:p%40ss@")):
        go(method, incoming(ftp.url("/a", login), tmp_path / str(number)))
    assert logins(ftp) == ["anonymous", "reader", "me"]
    with pytest.raises(StagingError, match="530"):
        go(method, incoming(ftp.url("/a", "reader:wrong@"), tmp_path / "no"))


def test_a_server_that_has_left_is_logged_into_again(ftp, root, tmp_path):
    """At the first try already: the session is asked before it is used."""
    once = FTPSeparateTaskStaging(retry=type(QUICK)(tries=1, timeout_s=40))
    (root / "a").write_text("a")
    for n in range(3):
        go(once, incoming(ftp.url("/a"), tmp_path / str(n)))
        ftp.leave()
    assert logins(ftp) == ["anonymous"] * 3
    once.close()


def test_a_transfer_that_broke_leaves_no_session_to_others(method, ftp, root, tmp_path, payload):
    (root / "a").write_bytes(payload)
    ftp.cuts.append(1_000_000)
    go(method, incoming(ftp.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload
    assert len(logins(ftp)) == 2


def test_closing_the_method_ends_the_sessions(method, ftp, root, tmp_path):
    (root / "a").write_text("a")
    for _ in range(2):
        go(method, incoming(ftp.url("/a"), tmp_path / "a"))
        method.close()
    assert len(logins(ftp)) == 2


def test_a_forked_process_takes_no_session_of_its_parent(ftp, root, tmp_path):
    (root / "a").write_text("a")
    staging = FTPInTaskStaging(retry=QUICK)

    def fetch(name: str) -> bool:
        step = staging.step([incoming(ftp.url("/a"), tmp_path / name)])
        return step.run(lambda: (tmp_path / name).read_text() == "a", NodeContext()) is True

    assert fetch("parent")
    child = os.fork()
    if child == 0:
        os._exit(0 if fetch("child") else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert fetch("parent-again")
    assert len(logins(ftp)) == 2

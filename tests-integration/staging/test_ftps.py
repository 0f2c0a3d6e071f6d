"""ftp over TLS against Debian's vsftpd: asked for (ftpes), and from the first byte on (ftps)."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from staging_servers import QUICK, incoming, outgoing, same, visible
from staging_services import missing, need_programs, started

import flow_core as flow
from flow_core import File
from flow_core.errors import ConfigurationError, StagingError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.interfaces.call import NodeContext
from flow_core.staging.noop import NoOpFileStaging
from flow_staging import FTPInTaskStaging, FTPSeparateTaskStaging

pytestmark = pytest.mark.services


@pytest.fixture(scope="module", params=["ftps", "ftpes"])
def server(request, authority):
    need_programs("vsftpd.sh", "vsftpd")
    if os.geteuid() != 0:
        missing("the right to start vsftpd (root)", "vsftpd.sh")
    directory = Path(tempfile.mkdtemp(prefix="flow-vsftpd-"))
    (directory / "server.pem").write_text(
        (authority / "server.key").read_text() + (authority / "server.pem").read_text()
    )
    if request.param == "ftps":
        (directory / "implicit").touch()
    try:
        with started("vsftpd.sh", directory) as (port,):
            yield directory / "root", f"{request.param}://127.0.0.1:{port}"
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def method(authority):
    staging = FTPSeparateTaskStaging(retry=QUICK, ca_bundle=str(authority / "ca.pem"))
    yield staging
    staging.close()


def refused(method, *transfers) -> str:
    with pytest.raises(StagingError, match="task 7") as caught:
        method.stage(list(transfers)).result(50)
    return str(caught.value)


def test_files_go_out_and_come_back(server, method, tmp_path, big_file):
    root, url = server
    method.stage([outgoing(big_file, f"{url}/pub/new/dir/big")]).result(50)
    method.stage([incoming(f"{url}/pub/new/dir/big", tmp_path / "back")]).result(50)
    assert same(tmp_path / "back", big_file)
    assert visible(root / "pub" / "new") == ["big", "dir"]


def test_many_files_share_sessions(server, method, tmp_path):
    root, url = server
    for number in range(30):
        (tmp_path / str(number)).write_text(str(number))
    out = [outgoing(tmp_path / str(number), f"{url}/pub/many/{number}") for number in range(30)]
    method.stage(out).result(50)
    method.stage([incoming(f"{url}/pub/many/{number}", tmp_path / f"b{number}") for number in range(30)]).result(50)
    assert [(tmp_path / f"b{number}").read_text() for number in range(30)] == [str(number) for number in range(30)]
    assert len(visible(root / "pub" / "many")) == 30


def test_names_and_missing_files_are_as_without_tls(server, method, tmp_path):
    _, url = server
    (tmp_path / "a").write_text("x")
    method.stage([outgoing(tmp_path / "a", f"{url}/pub/odd/out#1?.txt")]).result(50)
    assert File(f"{url}/pub/odd/out#1?.txt").filename == "out#1?.txt"
    method.stage([incoming(f"{url}/pub/odd/out#1?.txt", tmp_path / "b")]).result(50)
    assert (tmp_path / "b").read_text() == "x"
    assert "550" in refused(method, incoming(f"{url}/pub/none", tmp_path / "c"))


def test_a_certificate_that_is_not_trusted_is_refused_at_once(server, tmp_path):
    _, url = server
    method = FTPSeparateTaskStaging(retry=QUICK)
    said = refused(method, incoming(f"{url}/pub/a", tmp_path / "a"))
    assert "ca_bundle" in said
    assert "tried" not in said
    method.close()


def test_a_certificate_of_another_host_is_refused(server, method, tmp_path):
    _, url = server
    said = refused(method, incoming(f"{url.replace('127.0.0.1', 'localhost')}/pub/a", tmp_path / "a"))
    assert "localhost" in said
    assert "not trusted" in said


def test_a_server_without_tls_gets_no_login_and_no_file(tmp_path):
    need_programs("vsftpd.sh", "vsftpd")
    if os.geteuid() != 0:
        missing("the right to start vsftpd (root)", "vsftpd.sh")
    directory = Path(tempfile.mkdtemp(prefix="flow-vsftpd-"))
    method = FTPSeparateTaskStaging(retry=QUICK)
    try:
        with started("vsftpd.sh", directory) as (port,):
            said = refused(method, incoming(f"ftpes://127.0.0.1:{port}/pub/a", tmp_path / "a"))
            assert "no TLS" in said
            said = refused(method, incoming(f"ftps://127.0.0.1:{port}/pub/a", tmp_path / "a"))
            assert "ftpes://" in said
    finally:
        method.close()
        shutil.rmtree(directory)


def test_a_server_that_wants_tls_is_named_to_who_asks_without(server, method, tmp_path):
    _, url = server
    if url.startswith("ftpes"):
        said = refused(method, incoming(f"{url.replace('ftpes', 'ftp')}/pub/a", tmp_path / "a"))
        assert "530" in said or "encrypt" in said.lower()


def test_a_task_brings_and_makes_files_over_tls(server, authority, tmp_path, monkeypatch):
    root, url = server
    monkeypatch.chdir(tmp_path)

    @flow.python_app
    def double(inputs=(), outputs=()):
        Path(outputs[0]).write_text(Path(inputs[0]).read_text() * 2)

    (root / "pub" / "in.txt").write_text("ab")
    for made in (FTPSeparateTaskStaging, FTPInTaskStaging):
        method = made(retry=QUICK, ca_bundle=(authority / "ca.pem").read_text())
        executor = ThreadPoolExecutor(storage_access=[NoOpFileStaging(), method])
        with flow.load(flow.Config(executors=[executor])):
            name = f"pub/out-{made.__name__}.txt"
            double(inputs=[File(f"{url}/pub/in.txt")], outputs=[File(f"{url}/{name}")]).outputs[0].result(40)
        assert (root / name).read_text() == "abab"


def test_a_wrong_bundle_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="ca_bundle"):
        FTPSeparateTaskStaging(ca_bundle="/nowhere.pem")


def test_on_the_node_the_certificates_travel(server, authority, tmp_path):
    root, url = server
    (root / "pub" / "x").write_text("x")
    method = FTPInTaskStaging(retry=QUICK, ca_bundle=str(authority / "ca.pem"))
    step = method.step([incoming(f"{url}/pub/x", Path("x"))])
    where = NodeContext(executor="here", working_dir=str(tmp_path))
    assert step.run(lambda: (tmp_path / "x").read_text(), where) == "x"
    method.close()

"""Files to web servers by PUT."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import pytest
from staging_servers import QUICK, WebServer, answer, outgoing, visible

import flow_core as flow
from flow_core import File
from flow_core.errors import NoStagingError, StagingError
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.interfaces.call import NodeContext
from flow_core.staging.noop import NoOpFileStaging
from flow_staging import HTTPInTaskStaging, HTTPSeparateTaskStaging, RetryPolicy


@pytest.fixture
def method():
    staging = HTTPSeparateTaskStaging(retry=QUICK, upload=True)
    yield staging
    staging.close()


@pytest.fixture
def other():
    server = WebServer()
    yield server
    server.close()


def send(method, path: Path, url: str) -> None:
    method.stage([outgoing(path, url)]).result(50)


def refused(method, path: Path, url: str) -> str:
    with pytest.raises(StagingError, match="task 7") as caught:
        send(method, path, url)
    assert url.partition("@")[2] in str(caught.value) if "@" in url else url in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("size", [0, 5, 3 << 20])
def test_a_file_is_sent_whole_and_replaces_the_older(method, web, tmp_path, size):
    for content in (b"a" * size, b"b" * size):
        (tmp_path / "f").write_bytes(content)
        send(method, tmp_path / "f", web.url("/d/f%20g"))
        assert web.pages["/d/f%20g"].body == content
    assert [headers["Content-Length"] for _, headers in web.seen] == [str(size)] * 2


def test_a_broken_connection_is_tried_again_from_the_first_byte(method, web, tmp_path, payload):
    def cut(handler, _start, _status):
        handler.rfile.read(1_000_000)
        handler.close_connection = True
        handler.connection.close()
        return True

    (tmp_path / "f").write_bytes(payload)
    web.puts.extend([cut, cut, answer(503, Retry_After="0")])
    send(method, tmp_path / "f", web.url("/f"))
    assert web.pages["/f"].body == payload
    assert len(web.seen) == 4


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (202, "202"),
        (302, "302"),
        (401, "login"),
        (403, "forbids"),
        (405, "takes no files by PUT"),
        (409, "directory is not there"),
        (413, "too large"),
        (418, "418"),
        (507, "no room"),
    ],
)
def test_what_a_server_refuses_is_named_and_not_tried_again(method, web, tmp_path, status, said):
    (tmp_path / "f").write_bytes(b"x")
    web.puts.append(answer(status, Location=web.url("/elsewhere")))
    assert said in refused(method, tmp_path / "f", web.url("/f"))
    assert len(web.seen) == 1
    assert not web.pages


def test_a_server_that_never_answers_well_is_given_up(method, web, tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    web.puts.extend([answer(500)] * 9)
    assert "tried 4 times" in refused(method, tmp_path / "f", web.url("/f"))
    assert len(web.seen) == 4


def test_a_redirect_that_keeps_the_put_is_followed_without_secrets(web, other, tmp_path):
    bound = {web.url("/"): {"Authorization": "Bearer secret"}}
    method = HTTPSeparateTaskStaging(retry=QUICK, upload=True, headers=bound)
    (tmp_path / "f").write_bytes(b"content")
    web.puts.append(answer(307, Location=other.url("/there")))
    send(method, tmp_path / "f", web.url("/f"))
    assert other.pages["/there"].body == b"content"
    assert web.seen[0][1]["Authorization"] == "Bearer secret"
    assert "Authorization" not in other.seen[0][1]
    login = web.url("/g").replace("//", "//me:p%40ss@")
    plain = HTTPSeparateTaskStaging(retry=QUICK, upload=True)
    web.puts.append(answer(307, Location=other.url("/g")))
    send(plain, tmp_path / "f", login)
    assert web.seen[-1][1]["Authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert "Authorization" not in other.seen[-1][1]
    web.puts.append(answer(403))
    assert "p%40ss" not in refused(plain, tmp_path / "f", login)
    for each in (method, plain):
        each.close()


def test_a_certificate_that_is_not_trusted_is_refused(secure_web, authority, tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    unknown = HTTPSeparateTaskStaging(retry=QUICK, upload=True)
    assert "ca_bundle" in refused(unknown, tmp_path / "f", secure_web.url("/f"))
    known = HTTPSeparateTaskStaging(retry=QUICK, upload=True, ca_bundle=str(authority / "ca.pem"))
    send(known, tmp_path / "f", secure_web.url("/f"))
    assert secure_web.pages["/f"].body == b"x"
    for each in (known, unknown):
        each.close()


def test_an_upload_is_stopped_with_its_task(web, tmp_path, big_file):
    method = HTTPSeparateTaskStaging(retry=RetryPolicy(tries=2, stall_timeout_s=40, timeout_s=40), upload=True)
    begun, gone = threading.Event(), threading.Event()

    def hang(handler, _start, _status):
        begun.set()
        handler.server.closing.wait(30)
        gone.set()
        handler.close_connection = True
        return True

    web.puts.append(hang)
    moving = method.stage([outgoing(big_file, web.url("/f"))])
    assert begun.wait(30)
    moving.cancel()
    with pytest.raises(StagingError):
        moving.result(20)
    assert not gone.is_set()
    assert not web.pages
    method.close()


def test_a_file_goes_out_on_the_node(web, tmp_path):
    method = HTTPInTaskStaging(retry=QUICK, upload=True)
    step = method.step([outgoing(Path("f"), web.url("/f"))])
    where = NodeContext(executor="here", working_dir=str(tmp_path))
    assert step.run(lambda: (tmp_path / "f").write_text("made"), where) == 4
    assert web.pages["/f"].body == b"made"
    assert visible(tmp_path) == ["f"]
    method.close()


@flow.python_app(cache=True)
def write(journal, text, outputs=()):
    with open(journal, "a") as stream:
        stream.write("ran\n")
    with open(outputs[0], "w") as stream:
        stream.write(text)


def test_uploads_are_asked_for_and_looked_at_again(web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = ThreadPoolExecutor(label="plain", storage_access=[NoOpFileStaging(), HTTPSeparateTaskStaging(retry=QUICK)])
    upload = ThreadPoolExecutor(
        label="upload", storage_access=[NoOpFileStaging(), HTTPSeparateTaskStaging(retry=QUICK, upload=True)]
    )
    with flow.load(flow.Config(executors=[plain, upload])):
        with pytest.raises(NoStagingError, match="upload=True"):
            write.options(executors=["plain"])("j", "text", outputs=[File(web.url("/f"))])

        def ran() -> int:
            made = write.options(executors=["upload"])("journal", "text", outputs=[File(web.url("/f"))])
            assert made.outputs[0].result(30).url == web.url("/f")
            return len(Path("journal").read_text().split())

        assert [ran(), ran()] == [1, 1]
        assert web.pages["/f"].body == b"text"
        del web.pages["/f"]
        assert [ran(), ran()] == [2, 2]
    assert not Path("j").exists()

"""Connections that are kept from file to file: what they share, and what they never do."""

from __future__ import annotations

import base64
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from staging_servers import QUICK, Page, WebServer, answer, incoming

from flow_core.errors import StagingError
from flow_core.interfaces.call import NodeContext
from flow_staging.http import HTTPInTaskStaging, HTTPSeparateTaskStaging
from flow_staging.transfer.cache import CachePolicy
from flow_staging.transfer.retry import RetryPolicy

FEW = RetryPolicy(tries=1, connect_timeout_s=10, stall_timeout_s=10, timeout_s=40)
Answer = Callable[[socket.socket, int], bool]


@pytest.fixture
def method(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    staging = HTTPSeparateTaskStaging(retry=QUICK)
    staging.close()  # what other tests of this process have kept
    yield staging
    staging.close()


def bring(method: HTTPSeparateTaskStaging, url: str, path: Path) -> bytes:
    method.stage([incoming(url, path)]).result(50)
    return path.read_bytes()


class RawServer:
    """Speaks by a function over bare sockets: given the connection and its number of requests before, it says whether
    it goes on with the connection. Counts connections and requests."""

    def __init__(self, act: Answer) -> None:
        self._act = act
        self.connections = 0
        self.requests: list[bytes] = []
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        count = 0
        with client, client.makefile("rb") as lines:
            while line := lines.readline():
                head = [line]
                while (line := lines.readline()) not in (b"\r\n", b""):
                    head.append(line)
                self.requests.append(b"".join(head))
                if not self._act(client, count):
                    return
                count += 1

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for client in self._open:
            client.close()
        self._thread.join(5)


@contextmanager
def serving(act: Answer) -> Iterator[RawServer]:
    server = RawServer(act)
    try:
        yield server
    finally:
        server.close()


def say(client: socket.socket, body: bytes, *headers: bytes) -> bool:
    lines = (b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers)
    client.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    return True


def test_files_of_one_server_come_by_one_connection(method, tmp_path):
    with serving(lambda client, _count: say(client, b"x")) as server:
        for n in range(20):
            assert bring(method, server.url(f"/{n}"), tmp_path / str(n)) == b"x"
        assert server.connections == 1
        assert len(server.requests) == 20


def test_refusals_and_files_that_did_not_change_keep_the_connection(method, tmp_path):
    def act(client: socket.socket, count: int) -> bool:
        if count % 2:
            client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone")
            return True
        return say(client, b"x")

    with serving(act) as server:
        for n in range(3):
            bring(method, server.url(f"/{n}"), tmp_path / str(n))
            with pytest.raises(StagingError, match="404"):
                bring(method, server.url("/none"), tmp_path / "none")
        assert server.connections == 1


def test_a_server_that_closes_after_each_answer_is_asked_by_new_connections(method, tmp_path):
    with serving(lambda client, _count: say(client, b"x", b"Connection: close") and False) as server:
        for n in range(5):
            assert bring(method, server.url(f"/{n}"), tmp_path / str(n)) == b"x"
        assert server.connections == 5


@pytest.mark.parametrize("reset", [False, True])
def test_a_kept_connection_that_breaks_is_no_failed_try(tmp_path, reset):
    """The server closes as the second request comes, which the client cannot foresee."""

    def act(client: socket.socket, count: int) -> bool:
        if count:
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return False
        return say(client, b"x")

    method = HTTPSeparateTaskStaging(retry=FEW)
    with serving(act) as server:
        for n in range(4):
            assert bring(method, server.url(f"/{n}"), tmp_path / str(n)) == b"x"
        assert server.connections == 4
    method.close()


def test_a_new_connection_that_breaks_is_a_failed_try(tmp_path):
    method = HTTPSeparateTaskStaging(retry=FEW)
    with serving(lambda _client, _count: False) as server:
        with pytest.raises(StagingError, match="tried 1 times"):
            bring(method, server.url("/a"), tmp_path / "a")
        assert server.connections == 1
    method.close()


def test_a_server_that_left_while_nothing_was_asked_is_asked_anew(method, tmp_path):
    left = threading.Event()

    def act(client: socket.socket, _count: int) -> bool:
        say(client, b"x")
        client.shutdown(socket.SHUT_RDWR)
        left.set()
        return False

    with serving(act) as server:
        for n in range(3):
            left.clear()
            assert bring(method, server.url(f"/{n}"), tmp_path / str(n)) == b"x"
            assert left.wait(10)
        assert server.connections == 3


def test_a_transfer_that_was_given_up_half_way_leaves_nothing_for_the_next(method, web: WebServer, tmp_path):
    """What is left unread of one answer never passes for the next one."""
    web.pages["/packed"] = Page(b"y" * 3_000_000, headers={"Content-Encoding": "br"})
    web.pages["/a"] = Page(b"x" * 1000)
    for n in range(3):
        with pytest.raises(StagingError, match="br"):
            bring(method, web.url("/packed"), tmp_path / "packed")
        assert bring(method, web.url("/a"), tmp_path / str(n)) == b"x" * 1000


def test_the_login_of_one_url_goes_to_no_other(method, tmp_path):
    with serving(lambda client, _count: say(client, b"x")) as server:
        bring(method, server.url("/a").replace("://", "://me:p%40ss@"), tmp_path / "a")
        bring(method, server.url("/b"), tmp_path / "b")
        bring(method, server.url("/c").replace("://", "://you:other@"), tmp_path / "c")
        assert server.connections == 1
        sent = [_header(request, "authorization") for request in server.requests]
        assert sent == ["Basic " + _b64("me:p@ss"), None, "Basic " + _b64("you:other")]


def test_headers_of_one_method_go_with_no_file_of_another(method, tmp_path):
    with serving(lambda client, _count: say(client, b"x")) as server:
        headers = {server.url(""): {"X-Key": "secret"}, "*": {"accept": "text/x"}}
        other = HTTPSeparateTaskStaging(headers=headers, retry=QUICK)
        bring(other, server.url("/a"), tmp_path / "a")
        bring(method, server.url("/b"), tmp_path / "b")
        assert [_header(request, "x-key") for request in server.requests] == ["secret", None]
        assert _header(server.requests[0], "accept") == "text/x"
    other.close()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_secrets_follow_redirects_on_their_own_server_alone(web: WebServer, tmp_path, elsewhere):
    headers = {web.url("/"): {"X-Key": "secret"}, "*": {"User-Agent": "me"}}
    method = HTTPSeparateTaskStaging(headers=headers, retry=QUICK)
    target = WebServer() if elsewhere else web
    try:
        target.pages["/b"] = Page(b"x")
        web.pages["/a"] = Page(b"")
        web.pages["/a"].plan.append(answer(302, Location=target.url("/b"), Set_Cookie="ticket=1"))
        url = web.url("/a").replace("://", "://me:password@")
        assert bring(method, url, tmp_path / "a") == b"x"
        path, headers = target.seen[-1]
        assert path == "/b"
        assert headers.get("X-Key") == (None if elsewhere else "secret")
        assert headers.get("Authorization") == (None if elsewhere else "Basic " + _b64("me:password"))
        assert headers.get("User-Agent") == "me"
        assert headers.get("Cookie") == "ticket=1"  # cookies are of a host, whatever the port
        web.pages["/c"] = Page(b"y")
        bring(method, web.url("/c"), tmp_path / "c")
        assert "Cookie" not in web.seen[-1][1]
    finally:
        method.close()
        if elsewhere:
            target.close()


def test_redirects_may_be_relative_and_end_nowhere_or_in_a_circle(method, web: WebServer, tmp_path):
    web.pages["/deep/b"] = Page(b"x")
    for path, location in (("/a", "deep/b"), ("/circle", "/circle"), ("/file", "file:///etc/passwd")):
        web.pages[path] = Page(b"")
        web.pages[path].plan.extend([answer(302, Location=location)] * 100)
    assert bring(method, web.url("/a"), tmp_path / "a") == b"x"
    with pytest.raises(StagingError, match="in a circle"):
        bring(method, web.url("/circle"), tmp_path / "b")
    with pytest.raises(StagingError, match="not a URL that can be fetched"):
        bring(method, web.url("/file"), tmp_path / "c")


def test_logins_of_a_netrc_file_are_used_for_their_host(method, web: WebServer, tmp_path, monkeypatch):
    (tmp_path / "home" / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / "home" / ".netrc").chmod(0o600)
    web.pages["/a"] = Page(b"x")
    bring(method, web.url("/a"), tmp_path / "a")
    assert web.seen[-1][1]["Authorization"] == "Basic " + _b64("me:secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    bring(method, web.url("/a"), tmp_path / "b")
    assert "Authorization" not in web.seen[-1][1]


def test_a_proxy_of_the_environment_is_asked_with_its_login(method, tmp_path, monkeypatch):
    with serving(lambda client, _count: say(client, b"by proxy")) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:pa%3Ass@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "10.0.0.0/8,elsewhere.example")
        assert bring(method, "http://files.example/a", tmp_path / "a") == b"by proxy"
        assert bring(method, "http://files.example/b?c=d", tmp_path / "b") == b"by proxy"
        first, second = proxy.requests
        assert first.startswith(b"GET http://files.example/a HTTP/1.1\r\n")
        assert second.startswith(b"GET http://files.example/b?c=d HTTP/1.1\r\n")
        assert _header(first, "host") == "files.example"
        assert _header(first, "proxy-authorization") == "Basic " + _b64("user:pa:ss")
        assert proxy.connections == 1


@pytest.mark.parametrize("pattern", ["127.0.0.1", "127.0.0.0/8", "*"])
def test_servers_of_no_proxy_are_asked_without(method, web: WebServer, tmp_path, monkeypatch, pattern):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", pattern)
    web.pages["/a"] = Page(b"x")
    assert bring(method, web.url("/a"), tmp_path / "a") == b"x"


def test_https_goes_through_a_tunnel_of_the_proxy(method, secure_web, authority, tmp_path, monkeypatch):
    from staging_proxy import CuttingProxy

    secure_web.pages["/a"] = Page(b"x")
    through = CuttingProxy(secure_web.server_port)

    def tunnel(client: socket.socket, _count: int) -> bool:
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", through.port), 10) as far:
            back = threading.Thread(target=_pump, args=(far, client), daemon=True)
            back.start()
            _pump(client, far)
            back.join(10)
        return False

    method = HTTPSeparateTaskStaging(ca_bundle=str(authority / "ca.pem"), retry=QUICK)
    with serving(tunnel) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        for n in range(2):
            assert bring(method, secure_web.url("/a"), tmp_path / str(n)) == b"x"
        asked = proxy.requests
        assert asked[0].startswith(b"CONNECT 127.0.0.1:%d " % secure_web.server_port)
        assert len(asked) == 1
        method.close()
    through.close()


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_certificates_of_the_environment_are_trusted(method, secure_web, authority, tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, str(authority / "ca.pem"))
    secure_web.pages["/a"] = Page(b"x")
    assert bring(method, secure_web.url("/a"), tmp_path / "a") == b"x"


def test_a_bundle_that_is_not_there_is_named(method, secure_web, tmp_path, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(StagingError, match="REQUESTS_CA_BUNDLE="):
        bring(method, secure_web.url("/a"), tmp_path / "a")


def test_what_is_trusted_for_one_method_is_not_for_another(method, secure_web, authority, tmp_path):
    trusting = HTTPSeparateTaskStaging(ca_bundle=str(authority / "ca.pem"), retry=QUICK)
    secure_web.pages["/a"] = Page(b"x")
    assert bring(trusting, secure_web.url("/a"), tmp_path / "a") == b"x"
    with pytest.raises(StagingError, match="not trusted"):
        bring(method, secure_web.url("/a"), tmp_path / "b")
    trusting.close()


def test_a_forked_process_takes_no_connection_of_its_parent(tmp_path):
    with serving(lambda client, _count: say(client, b"x")) as server:
        staging = HTTPInTaskStaging(retry=FEW)

        def fetch(name: str) -> bool:
            step = staging.step([incoming(server.url(f"/{name}"), tmp_path / name)])
            return step.run(lambda: (tmp_path / name).read_bytes() == b"x", NodeContext()) is True

        assert fetch("parent")
        child = os.fork()
        if child == 0:
            os._exit(0 if fetch("child") and fetch("child-again") else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert fetch("parent-again")
        assert server.connections == 2


def test_closing_the_method_closes_what_is_kept(method, tmp_path):
    gone = threading.Event()

    def act(client: socket.socket, _count: int) -> bool:
        say(client, b"x")
        client.settimeout(20)
        if not client.recv(1):
            gone.set()
        return False

    with serving(act) as server:
        bring(method, server.url("/a"), tmp_path / "a")
        assert not gone.is_set()
        method.close()
        assert gone.wait(20)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    try:
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _header(request: bytes, name: str) -> str | None:
    for line in request.decode().split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip()
    return None


@pytest.mark.parametrize("allowed", [False, True])
def test_nothing_secret_goes_from_https_to_plain_http(secure_web, web, authority, tmp_path, monkeypatch, allowed):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    bound = {secure_web.url(""): {"X-Key": "secret"}, web.url(""): {"X-Other": "secret"}, "*": {"User-Agent": "me"}}
    method = HTTPSeparateTaskStaging(headers=bound, ca_bundle=str(authority / "ca.pem"), retry=QUICK, downgrade=allowed)
    web.pages["/b"] = Page(b"x")
    secure_web.pages["/a"] = Page(b"")
    secure_web.pages["/a"].plan.append(answer(302, Location=web.url("/b"), Set_Cookie="ticket=1"))
    if allowed:
        assert bring(method, secure_web.url("/a"), tmp_path / "a") == b"x"
        ((_, headers),) = web.seen
        assert headers["User-Agent"] == "me"
        assert not {"X-Key", "X-Other", "Authorization", "Cookie"} & set(headers)
    else:
        with pytest.raises(StagingError, match=r"from https to plain http.*downgrade=True"):
            bring(method, secure_web.url("/a"), tmp_path / "a")
        assert web.seen == []
    ((_, first),) = secure_web.seen
    assert first["X-Key"] == "secret"
    assert first["Authorization"].startswith("Basic ")
    method.close()


def test_a_record_of_the_cache_holds_no_secret(web, tmp_path):
    web.pages["/a"] = Page(b"x")
    cache = CachePolicy(directory=str(tmp_path / "cache"))
    method = HTTPSeparateTaskStaging(headers={web.url(""): {"X-Key": "sesame"}}, retry=QUICK, cache=cache)
    bring(method, web.url("/a?signature=sesame").replace("://", "://me:sesame@"), tmp_path / "a")
    method.close()
    (record,) = (tmp_path / "cache").rglob("*.entry")
    assert "127.0.0.1" in record.read_text()
    assert "sesame" not in record.read_text()

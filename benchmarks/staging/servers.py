"""The servers that the bars of data staging are measured with. All on this machine; each ends with its context."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

SERVICES = Path(__file__).resolve().parents[2] / "tests-integration" / "services"
NGINX = """
worker_processes 1; daemon off; pid {state}/pid; error_log {state}/error;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; keepalive_requests 10000000;
  client_body_temp_path {state}; proxy_temp_path {state}; fastcgi_temp_path {state}; uwsgi_temp_path {state};
  scgi_temp_path {state};
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def nginx(root: Path, state: Path) -> Iterator[str]:
    """Serve a directory; gives the URL of it."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        raise SystemExit("nginx is missing: apt-get install nginx-light")
    state.mkdir()
    port = free_port()
    (state / "conf").write_text(NGINX.format(state=state, root=root, port=port))
    command = [program, "-c", str(state / "conf"), "-p", str(state), "-e", str(state / "error")]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(state)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"{server.args!r} did not start")


@contextlib.contextmanager
def counting(body: bytes, tag: str | None) -> Iterator[tuple[str, Callable[[], int]]]:
    """Serve one file and count how often its body was sent; gives the URL and the count."""
    sent = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            nonlocal sent
            same = tag is not None and self.headers.get("If-None-Match") == tag
            self.send_response(304 if same else 200)
            if tag is not None:
                self.send_header("ETag", tag)
            if not same:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not same:
                sent += 1
                self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/file", lambda: sent
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def node_ssh(state: Path) -> Iterator[tuple[str, str, Callable[[], int]]]:
    """Run the sshd of the tests; gives the address, the ssh command for it, and how many logins there were."""
    script = str(SERVICES / "rsync.sh")
    started = subprocess.run(
        ["bash", script, "start", str(state)], stdout=subprocess.PIPE, check=True, timeout=60, stdin=subprocess.DEVNULL
    )
    try:
        address, port, key, known, user = started.stdout.decode().split()
        ssh = f"ssh -F none -p {port} -i {key} -o UserKnownHostsFile={known}"
        yield f"{user}@{address}", ssh, lambda: (state / "sshd.log").read_text().count("Accepted publickey")
    finally:
        subprocess.run(["bash", script, "stop", str(state)], timeout=60, check=False)


@contextlib.contextmanager
def moto(scratch: Path) -> Iterator[str]:
    """Run moto's S3; gives its endpoint, and sets credentials for it."""
    import os

    os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing", AWS_DEFAULT_REGION="us-east-1")
    log = scratch / "moto.log"
    code = "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"
    with log.open("wb") as stream:
        server = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + 60
        while (found := re.search(rb"Running on (http://\S+)", log.read_bytes())) is None:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"pip install 'moto[server,s3]' boto3\n{log.read_text()}")
            time.sleep(0.05)
        yield found[1].decode()
    finally:
        server.terminate()
        server.wait()


PLAIN = """
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
server = Server(("127.0.0.1", 0), partial(Handler, directory=sys.argv[1]))
print(server.server_port, flush=True)
server.serve_forever()
"""
STORE = """
import sys, threading, socket, time
body, delay_s = b"x" * int(sys.argv[1]), float(sys.argv[2])
answer = b"HTTP/1.1 200 OK\\r\\nETag: \\"%s\\"\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (b"v1", len(body), body)
def serve(client):
    with client, client.makefile("rb") as lines:
        while lines.readline():
            while lines.readline() not in (b"\\r\\n", b""):
                pass
            time.sleep(delay_s)
            client.sendall(answer)
listening = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listening.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""


@contextlib.contextmanager
def plain(root: Path) -> Iterator[str]:
    """Serve a directory by the server of the standard library, in a process of its own; gives the URL of it."""
    with _says_its_port([sys.executable, "-c", PLAIN, str(root)]) as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def far_store(size: int, delay_s: float) -> Iterator[str]:
    """Answer any GetObject with so many bytes after so long, as a store at some distance; gives its endpoint."""
    with _says_its_port([sys.executable, "-c", STORE, str(size), str(delay_s)]) as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _says_its_port(command: list[str]) -> Iterator[int]:
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


FTP = """
import sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
class Handler(FTPHandler):
    authorizer = DummyAuthorizer()
    def on_login(self, username):
        print("login", file=sys.stderr, flush=True)
Handler.authorizer.add_anonymous(sys.argv[1], perm="elradfmwMT")
FTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""


@contextlib.contextmanager
def ftp_server(root: Path) -> Iterator[tuple[str, Callable[[], int]]]:
    """Serve a directory by ftp; gives its URL and how many logins there were."""
    port, log = free_port(), Path(f"{root}.log")
    with log.open("wb") as stream:
        server = subprocess.Popen([sys.executable, "-c", FTP, str(root), str(port)], stderr=stream)
    try:
        _wait_for(port, server)
        yield f"ftp://127.0.0.1:{port}", lambda: log.read_text().splitlines().count("login")
    finally:
        server.terminate()
        server.wait()

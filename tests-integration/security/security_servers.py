"""Servers that another user runs, and that lie: each tells its port, and then what it was sent."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from security_attacker import Attacker

WEB = """
import http.server, json, sys, urllib.parse, zlib
WHERE = sys.argv[1] if len(sys.argv) > 1 else ""

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self):
        print(json.dumps([self.path, dict(self.headers)]), flush=True)
        getattr(self, "do_" + self.path.strip("/").split("?")[0].split("/")[0], self.do_plain)()
        self.close_connection = True
    def head(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
    def pour(self, piece):
        try:
            while True:
                self.wfile.write(piece)
        except OSError:
            print(json.dumps(["left", {}]), flush=True)
    def do_plain(self):
        self.head(200, Content_Length="5")
        self.wfile.write(b"plain")
    def do_redirect(self):
        self.head(302, Location=WHERE, Content_Length="0", Set_Cookie="stolen=1")
    def do_endless(self):
        self.head(200, Connection="close")
        self.pour(b"x" * 65536)
    def do_huge(self):
        self.head(200, Content_Length=str(1 << 50))
        self.pour(b"x" * 65536)
    def do_more(self):  # than it has announced
        self.head(200, Content_Length="10")
        self.pour(b"x" * 65536)
    def do_shout(self):
        self.wfile.write(b"HTTP/1.1 404 \\x1b]0;owned\\x07 \\xe2\\x80\\xae\\r\\nContent-Length: 0\\r\\n\\r\\n")
    def do_less(self):
        self.head(200, Content_Length="10")
        self.wfile.write(b"x")
    def do_bomb(self):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        self.head(200, Content_Encoding="gzip", Connection="close")
        try:
            for _ in range(4096):
                self.wfile.write(packer.compress(bytes(1 << 20)))
            self.wfile.write(packer.flush())
        except OSError:
            print(json.dumps(["left", {}]), flush=True)
    def do_growing(self):  # each part says that the file is larger than the one before
        asked = self.headers.get("Range", "bytes=0-")[6:].rstrip("-")
        start, size = int(asked), 2 << 20
        said = {"ETag": '"v"', "Content_Length": str(size)}
        if start:
            self.head(206, Content_Range=f"bytes {start}-{start + size - 1}/{start + 2 * size}", **said)
        else:
            self.head(200, ETag='"v"', Content_Length=str(2 * size))
        self.wfile.write(b"x" * size)

    def do_coded(self):  # as often as the name of the file says
        body, times = bytes(1 << 20), int(self.path.rpartition("/")[2])
        for _ in range(times):
            packer = zlib.compressobj(9, zlib.DEFLATED, 31)
            body = packer.compress(body) + packer.flush()
        self.head(200, Content_Encoding=", ".join(["gzip"] * times), Content_Length=str(len(body)))
        self.wfile.write(body)
    def do_headers(self):
        self.wfile.write(b"HTTP/1.1 200 OK\\r\\n")
        self.pour(b"X-A: y\\r\\n" * 1000)
    def do_header(self):
        self.wfile.write(b"HTTP/1.1 200 OK\\r\\nX-A: ")
        self.pour(b"y" * 65536)
    def do_chunk(self):
        self.head(200, Transfer_Encoding="chunked")
        self.pour(b"f" * 65536)
    def do_away(self):
        self.head(302, Location="file:///etc/passwd", Content_Length="0")
    def do_moved(self):  # as S3 says that a bucket is elsewhere; the region is to become a part of a host's name
        kind = self.path.strip("/").split("?")[0].split("/")[1]
        host = WHERE.split("//")[1].split("/")[0]
        region = f"{host}/x?" if kind.endswith("h") else "eu-west-9"
        self.head(int(kind[:3]), Location=WHERE, x_amz_bucket_region=region, Content_Length="0", Connection="close")
    do_HEAD = do_GET
    def do_circle(self):
        self.head(302, Location=self.path + "/x", Content_Length="0")
    def do_named(self):
        self.head(200, Content_Disposition='attachment; filename="../../named"', Content_Length="5")
        self.wfile.write(b"plain")
    def do_later(self):
        self.head(503, Retry_After="9" * 20, Content_Length="0")
    def do_listing(self):  # of a bucket: page after page, each with what comes behind the name of the bucket
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        page = int(asked.get("continuation-token", ["0"])[0])
        kind = self.path.strip("/").split("?")[0].split("/")[0]
        keys = {"many": [f"p/{page}-{n}" for n in range(1000)], "idle": ["p/dir/"], "climb": ["p/../../climbed"],
                "root": ["p//etc/passwd"], "zero": ["p/a&#0;b"], "elsewhere": ["other/key", "q"]}[kind]
        rows = "".join(f"<Contents><Key>{key}</Key><Size>5</Size><ETag>x</ETag></Contents>" for key in keys)
        more = kind in ("many", "idle")
        body = (f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>"
                f"<NextContinuationToken>{page + 1}</NextContinuationToken>{rows}</ListBucketResult>").encode()
        self.head(200, Content_Type="application/xml", Content_Length=str(len(body)), Connection="close")
        self.wfile.write(body)
    def do_PROPFIND(self):  # a directory of WebDAV: what its first part says
        print(json.dumps([self.path, {}]), flush=True)
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        here, kind = self.path.rstrip("/"), self.path.strip("/").split("/")[0]
        children = {"deep": ["/d0/", "/d1/"], "climb": ["/../../climbed"], "up": ["/../"], "root": ["//etc/passwd"],
                    "packed": ["/%2e%2e%2f%2e%2e%2fclimbed"]}.get(kind, [])
        if self.headers.get("Depth") == "0" or here.endswith("climbed"):
            children = []
        rows = "".join(
            f"<D:response><D:href>{name}</D:href><D:propstat><D:prop><D:resourcetype>"
            f"{'<D:collection/>' if name.endswith('/') else ''}</D:resourcetype><D:getcontentlength>5"
            "</D:getcontentlength></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
            for name in [here + "/", *(here + child for child in children)])
        body = f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{rows}</D:multistatus>'.encode()
        self.head(207, Content_Type="application/xml", Content_Length=str(len(body)))
        self.wfile.write(body)
    do_many = do_idle = do_climb = do_root = do_zero = do_elsewhere = do_listing

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""

FTP = """
import json, socket, sys, threading
MODE = sys.argv[1]
passive = socket.create_server(("127.0.0.1", 0))
high, low = divmod(passive.getsockname()[1], 256)
said = {"USER": "331 password", "PASS": "230 in", "TYPE": "200 binary", "NOOP": "200 here",
        "SIZE": "213 " + (sys.argv[2] if len(sys.argv) > 2 else "5"), "MDTM": "213 20230102030405"}
said.update(PWD='257 "/"', CWD="250 there")
said["PASV"] = "227 (" + (sys.argv[2].replace(".", ",") if MODE == "bounce" else "127,0,0,1") + f",{high},{low})"
if MODE == "bounce":
    del said["SIZE"]

def talk(control):
    with control, control.makefile("rb") as lines:
        control.sendall(b"220 here\\r\\n")
        for line in lines:
            command, _, name = line.decode().strip().partition(" ")
            print(json.dumps([command, {"name": name}]), flush=True)
            if MODE == "babble" and command == "TYPE":
                try:
                    while True:
                        control.sendall(b"200-and so on\\r\\n" * 1000)
                except OSError:
                    return
            if MODE == "shout" and command == "RETR":
                control.sendall(b"550-\\x1b[2J gone\\r\\n2026-01-01 a line of the log\\r\\n550 end\\r\\n")
            elif command == "STOR":
                data, _ = passive.accept()
                control.sendall(b"150 coming\\r\\n")
                with data:
                    while data.recv(65536):
                        pass
                control.sendall(b"226 done\\r\\n")
            elif command in ("MLSD", "NLST") and MODE == "list":
                data, _ = passive.accept()
                with data:
                    control.sendall(b"150 coming\\r\\n")
                    try:
                        while True:
                            data.sendall(b"modify=20200101000000; .flow-1.part\\r\\n" * 1000)
                    except OSError:
                        print(json.dumps(["left", {}]), flush=True)
                        return
            elif command == "RETR":
                data, _ = passive.accept()
                with data:
                    control.sendall(b"150 coming\\r\\n")
                    try:
                        if MODE == "endless":
                            while True:
                                data.sendall(b"x" * 65536)
                        data.sendall(b"plain")
                    except OSError:
                        print(json.dumps(["left", {}]), flush=True)
                        return
                control.sendall(b"226 done\\r\\n")
            else:
                control.sendall((said.get(command, "502 unknown") + "\\r\\n").encode())

def served(control):
    try:
        talk(control)
    except OSError:
        pass

listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True:
    threading.Thread(target=served, args=(listening.accept()[0],), daemon=True).start()
"""


class Running:
    """A server of the attacker's.

    Attributes:
        port: Where it listens on 127.0.0.1.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._lines = process.stdout
        self._said: queue.Queue[str] = queue.Queue()
        self.port = int(self._lines.readline())
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def url(self, path: str, scheme: str = "http") -> str:
        """Return a URL of it."""
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def told(self) -> tuple[str, dict[str, str]]:
        """Return the next thing that it was sent; waits for it."""
        what, with_ = json.loads(self._said.get(timeout=50))
        return what, with_

    def left(self) -> None:
        """Wait until it has noticed that the other side is gone."""
        while self.told()[0] != "left":
            pass

    def close(self) -> None:
        """Let go of what it told; the server has ended."""
        self._thread.join(20)
        self._lines.close()

    def _read(self) -> None:
        for line in self._lines:
            self._said.put(line)


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[Running]:
    """Wait until a server is up; end it."""
    made = None
    try:
        made = Running(process)
        yield made
    finally:
        process.kill()
        process.wait()
        if made is not None:
            made.close()


@contextmanager
def serving(attacker: Attacker, program: str, *arguments: object) -> Iterator[Running]:
    """Run a server as the attacker."""
    with running(attacker.start(program, *arguments)) as made:
        yield made

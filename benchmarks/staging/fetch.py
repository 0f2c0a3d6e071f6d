"""Fetch 100 files of 10 MB by http and s3, beside curl with 8 connections on the same server in the same run.

python benchmarks/staging/fetch.py [--files 100] [--mb 10] [--rounds 3] [--no-s3]

Prints medians and ratios; the bar is 1.3 for each line:

http        from a plain server that uses sendfile
s3          the same server answering GetObject, with the CRC-32 and the MD5 that Amazon states of such objects
s3 (moto)   moto's server, where installed, which spends most of the time itself
s3 (md5)    the plain server stating the MD5 only, as of objects stored by old clients: no bar, since curl checks
            nothing, and MD5 alone takes about 1.4 s of a core for a gigabyte
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from flow_core.files import File
from flow_core.interfaces.staging import Direction, Staging, Transfer
from flow_staging import HTTPSeparateTaskStaging, S3Staging

BAR, NO_BAR = 1.3, float("inf")
SERVER = """
import os, socket, sys, threading
from pathlib import Path

stated = Path(sys.argv[1] + ".stated")
stated = eval(stated.read_text()) if stated.exists() else {}

def serve(client):
    with client, client.makefile("rb") as lines:
        while request := lines.readline():
            while lines.readline() not in (b"\\r\\n", b""):
                pass
            name = request.split()[1].decode().rpartition("/")[2]
            with open(Path(sys.argv[1]) / name, "rb") as stream:
                head = stated.get(name, b'ETag: "v1"')
                size = os.fstat(stream.fileno()).st_size
                client.sendall(b"HTTP/1.1 200 OK\\r\\n%s\\r\\nContent-Length: %d\\r\\n\\r\\n" % (head, size))
                client.sendfile(stream)

listening = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listening.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""


def timed(work: Callable[[Path], None], scratch: Path, count: int, size: int) -> float:
    target = scratch / "target"
    target.mkdir()
    began = time.perf_counter()
    work(target)
    took = time.perf_counter() - began
    found = [path.stat().st_size for path in target.iterdir() if path.is_file()]
    assert sorted(found) == [size] * count, "not everything arrived"
    shutil.rmtree(target)
    return took


def by_curl(urls: list[str]) -> Callable[[Path], None]:
    def work(target: Path) -> None:
        lines = [f'url = "{url}"\noutput = "{target}/{n}"' for n, url in enumerate(urls)]
        subprocess.run(
            ["curl", "-sS", "--no-progress-meter", "--fail", "-Z", "--parallel-max", "8", "-K", "-"],
            input="\n".join(lines).encode(),
            check=True,
            timeout=300,
        )

    return work


def by_flow(make: Callable[[], Staging], urls: list[str]) -> Callable[[Path], None]:
    def work(target: Path) -> None:
        method = make()
        futures = [
            method.stage([Transfer(File(url), target / str(n), Direction.IN, n, "bench")]) for n, url in enumerate(urls)
        ]
        for future in futures:
            assert future is not None
            future.result(300)
        method.close()

    return work


def report(name: str, rounds: int, curl: Callable[[], float], flow: Callable[[], float], bar: float = BAR) -> None:
    curl()  # warms the server's page cache
    pairs = [(curl(), flow()) for _ in range(rounds)]
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = b / a
    word = "" if bar == NO_BAR else "ok" if ratio <= bar else "SLOW"
    print(f"{name:10} curl {a:6.2f} s   flow {b:6.2f} s   ratio {ratio:4.2f}   {word}".rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--mb", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-s3", action="store_true")
    options = parser.parse_args()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ[name] = "testing"
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    scratch = Path(tempfile.mkdtemp(prefix="flow-bench-"))
    os.environ["FLOW_CACHE"] = str(scratch / "cache")  # nothing of a run before, and nothing for the user's own
    try:
        from_plain(options, scratch)
        if not options.no_s3:
            from_moto(options, scratch)
    finally:
        shutil.rmtree(scratch)


def from_plain(options: argparse.Namespace, scratch: Path) -> None:
    """Fetch from the plain server, by http and by s3."""
    served, size = scratch / "served", options.mb * 1_000_000
    served.mkdir()
    for n in range(options.files):
        (served / str(n)).write_bytes(os.urandom(size))
    for name, method, stated in (
        ("http", http_method, None),
        ("s3", s3_method, ("crc32", "md5")),
        ("s3 (md5)", s3_method, ("md5",)),
    ):
        if method is s3_method and options.no_s3:
            continue
        say(served, stated)
        server = subprocess.Popen([sys.executable, "-c", SERVER, str(served)], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
            curl = by_curl([f"{endpoint}/bench/{n}" for n in range(options.files)])
            make, prefix = method(endpoint)
            flow = by_flow(make, [f"{prefix}/{n}" for n in range(options.files)])
            compare(name, options, scratch, curl, flow, NO_BAR if stated == ("md5",) else BAR)
        finally:
            server.kill()
            server.wait()
    shutil.rmtree(served)


def say(served: Path, digests: tuple[str, ...] | None) -> None:
    """Write down what the server is to state of each file; None: a version only."""
    lines: dict[str, bytes] = {}
    for path in served.iterdir() if digests else ():
        content = path.read_bytes()
        head = f'ETag: "{hashlib.md5(content).hexdigest()}"'
        if "crc32" in (digests or ()):
            crc = base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()
            head += f"\r\nx-amz-checksum-crc32: {crc}\r\nx-amz-checksum-type: FULL_OBJECT"
        lines[path.name] = head.encode()
    Path(f"{served}.stated").write_text(repr(lines))


def http_method(endpoint: str) -> tuple[Callable[[], Staging], str]:
    return HTTPSeparateTaskStaging, f"{endpoint}/bench"


def s3_method(endpoint: str) -> tuple[Callable[[], Staging], str]:
    return lambda: S3Staging(endpoint_url=endpoint), "s3://bench"


def compare(
    name: str,
    options: argparse.Namespace,
    scratch: Path,
    curl: Callable[[Path], None],
    flow: Callable[[Path], None],
    bar: float = BAR,
) -> None:
    count, size = options.files, options.mb * 1_000_000
    report(
        name,
        options.rounds,
        lambda: timed(curl, scratch, count, size),
        lambda: timed(flow, scratch, count, size),
        bar,
    )


def from_moto(options: argparse.Namespace, scratch: Path) -> None:
    try:
        import boto3
        import moto  # noqa: F401  # only its presence matters here
    except ImportError:
        print("s3 (moto)  skipped: pip install 'moto[server,s3]' boto3")
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    log = scratch / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=stream, stderr=stream)
    try:
        while not re.search(rb"Running on", log.read_bytes()):
            if server.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        endpoint, size = f"http://127.0.0.1:{port}", options.mb * 1_000_000
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="bench")
        for n in range(options.files):
            client.put_object(Bucket="bench", Key=str(n), Body=os.urandom(size))
        signed = [
            client.generate_presigned_url("get_object", Params={"Bucket": "bench", "Key": str(n)})
            for n in range(options.files)
        ]
        curl = by_curl(signed)
        make, prefix = s3_method(endpoint)
        flow = by_flow(make, [f"{prefix}/{n}" for n in range(options.files)])
        compare("s3 (moto)", options, scratch, curl, flow)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()

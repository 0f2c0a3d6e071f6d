"""Fetch 100 files of 10 MB by http and s3, beside curl with 8 connections on the same server in the same run.

python benchmarks/staging/fetch.py [--files 100] [--mb 10] [--rounds 3] [--no-s3]

Prints medians and ratios; the bar is 1.3 for both. Three servers: a plain one that uses sendfile, moto's for s3 where
installed (which spends most of the time itself, so curl asks it for the same objects).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from flow_core.files import File
from flow_core.interfaces.staging import Direction, Staging, Transfer
from flow_staging import HTTPSeparateTaskStaging, S3Staging

BAR = 1.3
SERVER = """
import os, socket, sys, threading
from pathlib import Path

def serve(client):
    with client, client.makefile("rb") as lines:
        while request := lines.readline():
            while lines.readline() not in (b"\\r\\n", b""):
                pass
            with open(Path(sys.argv[1]) / request.split()[1].decode().lstrip("/"), "rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                client.sendall(b"HTTP/1.1 200 OK\\r\\nETag: \\"v1\\"\\r\\nContent-Length: %d\\r\\n\\r\\n" % size)
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


def report(name: str, rounds: int, curl: Callable[[], float], flow: Callable[[], float]) -> None:
    curl()  # warms the server's page cache
    pairs = [(curl(), flow()) for _ in range(rounds)]
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = b / a
    print(f"{name:5} curl {a:6.2f} s   flow {b:6.2f} s   ratio {ratio:4.2f}   {'ok' if ratio <= BAR else 'SLOW'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--mb", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-s3", action="store_true")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="flow-bench-"))
    try:
        http(options, scratch)
        if not options.no_s3:
            s3(options, scratch)
    finally:
        shutil.rmtree(scratch)


def http(options: argparse.Namespace, scratch: Path) -> None:
    served, size = scratch / "served", options.mb * 1_000_000
    served.mkdir()
    for n in range(options.files):
        (served / str(n)).write_bytes(os.urandom(size))
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(served)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        urls = [f"http://127.0.0.1:{port}/{n}" for n in range(options.files)]
        curl, flow = by_curl(urls), by_flow(HTTPSeparateTaskStaging, urls)
        report(
            "http",
            options.rounds,
            lambda: timed(curl, scratch, options.files, size),
            lambda: timed(flow, scratch, options.files, size),
        )
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(served)


def s3(options: argparse.Namespace, scratch: Path) -> None:
    try:
        import boto3
        import moto  # noqa: F401  # only its presence matters here
    except ImportError:
        print("s3    skipped: pip install 'moto[server,s3]' boto3")
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ[name] = "testing"
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
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
        flow = by_flow(lambda: S3Staging(endpoint_url=endpoint), [f"s3://bench/{n}" for n in range(options.files)])
        report(
            "s3",
            options.rounds,
            lambda: timed(curl, scratch, options.files, size),
            lambda: timed(flow, scratch, options.files, size),
        )
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()

"""The bars of data staging, each beside its rival on the same server in the same run.

python benchmarks/staging/bars.py [--only http,one,big,rsync,s3,ftp,zip] [--files 10000] [--rounds 3] [--mb 3072]

http    that many files of 1 KiB, one a task, beside 8 threads with urllib3's pool of kept connections: threads and
        HighThroughputExecutor, from the server of the standard library and from nginx; bar 1.3 x, and 0.4 ms of the
        script's CPU a file
one     one file to 1,000 tasks (1 KiB), and to 50 (3 MiB, no ETag, or a weak one): the server counts its bodies; bar 1
big     one file of that many MiB beside curl; bar 1.1 x
rsync   100 files of 1 KB, one a task, beside one rsync of them all (bar 3 x); 20 MiB to 30 tasks: one rsync
s3      500 objects of 1 KB beside a loop over boto3's get_object, from moto and from servers that answer after
        5, 20 and 100 ms; bar 5 times as fast. Also 8 threads with boto3, which show what boto3 can do, and 4 processes,
        which show what the server can
ftp     200 files of 1 KB, one a task: logins that the server saw
zip     members of an archive of 70,000; bar 2 ms a member

Files go to TMPDIR; let that be in memory (/dev/shm) where disks are not to be measured. Needs nginx, curl, rsync, moto.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flow
from flow import File, python_app
from flow.config import Config
from flow.executors import HighThroughputExecutor, ThreadPoolExecutor
from flow_core.staging.defaults import default_staging

sys.path.insert(0, str(Path(__file__).parent))

from servers import counting, far_store, ftp_server, moto, nginx, node_ssh, plain  # needs the line above


def line(what: str, measured: str, bar: str, reached: bool | None) -> None:
    word = {True: "yes", False: "NO", None: ""}[reached]
    print(f"| {what} | {bar} | {measured} | {word} |", flush=True)


@python_app
def size(file):
    import os

    return os.path.getsize(file)


@contextlib.contextmanager
def loaded(kind: str, scratch: Path, *methods: object) -> Iterator[None]:
    """Load a run with one executor of two workers, and warm it up."""
    storage = [*methods, *default_staging] if methods else None
    common = {"label": "bench", "storage_access": storage}
    executor = (
        ThreadPoolExecutor(max_threads=2, **common)
        if kind == "threads"
        else HighThroughputExecutor(max_workers=2, **common)
    )
    os.environ["FLOW_CACHE"] = str(scratch / "cache")  # nothing of a run before, and nothing for the user's own
    kernel = flow.load(Config(executors=[executor], run_dir=str(scratch / "runinfo")))
    try:
        (scratch / "warm").write_text("1")
        for future in [size(File(str(scratch / "warm"))) for _ in range(200)]:
            future.result(60)
        yield
    finally:
        kernel.cleanup()
        flow.clear()


def run_tasks(urls: list[str], expected: int) -> tuple[float, float]:
    """Run one task a URL; return seconds, and seconds of CPU of this process."""
    began, cpu = time.perf_counter(), time.process_time()
    futures = [size(File(url)) for url in urls]
    assert all(future.result(600) == expected for future in futures), "not everything arrived"
    return time.perf_counter() - began, time.process_time() - cpu


def in_threads(urls: list[str], fetch: Callable[[str], bytes], target: Path, threads: int = 8) -> float:
    """Fetch and write each URL by threads; return seconds."""
    target.mkdir()
    left, lock = iter(enumerate(urls)), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number, url = next(left, (-1, ""))
            if number < 0:
                return
            (target / str(number)).write_bytes(fetch(url))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - began
    assert len(list(target.iterdir())) == len(urls)
    shutil.rmtree(target)
    return took


def http(options: argparse.Namespace, scratch: Path) -> None:
    served = scratch / "served"
    served.mkdir()
    for number in range(options.files):
        (served / f"{number:05}").write_bytes(os.urandom(1024))
    for name, server in (("the standard library's server", plain(served)), ("nginx", nginx(served, scratch / "nginx"))):
        with server as base:
            compare_http(name, [f"{base}/{number:05}" for number in range(options.files)], options, scratch)


def compare_http(server: str, urls: list[str], options: argparse.Namespace, scratch: Path) -> None:
    import urllib3

    for kind in ("threads", "HTEX"):
        ratios, cpus, rivals = [], [], []
        for _ in range(options.rounds):
            manager = urllib3.PoolManager(maxsize=8)
            cpu = time.process_time()
            rival = in_threads(urls, lambda url, kept=manager: kept.request("GET", url).data, scratch / "rival")
            rivals.append((time.process_time() - cpu) / len(urls) * 1e3)
            manager.clear()
            with loaded(kind, scratch / "run"):
                took, cpu = run_tasks(urls, 1024)
            shutil.rmtree(scratch / "run")
            ratios.append(took / rival)
            cpus.append(cpu / len(urls) * 1e3)
        ratio, cpu, theirs = statistics.median(ratios), statistics.median(cpus), statistics.median(rivals)
        what = f"{len(urls):,} x 1 KiB from {server}, {kind}"
        line(f"{what}, to 8 threads of urllib3", f"{ratio:.2f} x", "1.3 x", ratio <= 1.3)
        line(f"the same, CPU of the script a file (theirs {theirs:.2f} ms)", f"{cpu:.2f} ms", "0.4 ms", cpu <= 0.4)


def one(_options: argparse.Namespace, scratch: Path) -> None:
    for tag, length, tasks in (('"v"', 1 << 10, 1000), ('W/"v"', 3 << 20, 50), (None, 3 << 20, 50)):
        for kind in ("threads", "HTEX"):
            with counting(os.urandom(length), tag) as (url, bodies):
                with loaded(kind, scratch / f"{kind}-{tasks}-{tag is None}"):
                    run_tasks([url] * tasks, length)
                said = {None: "no ETag", 'W/"v"': "a weak ETag"}.get(tag, "an ETag")
                what = f"{length >> 10:,} KiB with {said} to {tasks:,} tasks, {kind}"
                line(what, f"{bodies()} bodies", "1 body", bodies() == 1)


def big(options: argparse.Namespace, scratch: Path) -> None:
    served = scratch / "served"
    served.mkdir()
    with (served / "big").open("wb") as stream:
        piece = os.urandom(1 << 20)
        for _ in range(options.mb):
            stream.write(piece)
    with nginx(served, scratch / "nginx") as base:
        ratios = []
        for round_ in range(options.rounds):
            began = time.perf_counter()
            subprocess.run(["curl", "-sSfo", scratch / "by-curl", f"{base}/big"], check=True, timeout=600)
            rival = time.perf_counter() - began
            (scratch / "by-curl").unlink()
            with loaded("threads", scratch / f"big{round_}"):
                took, _ = run_tasks([f"{base}/big"], options.mb << 20)
            shutil.rmtree(scratch / f"big{round_}")
            ratios.append(took / rival)
        ratio = statistics.median(ratios)
        line(f"{options.mb:,} MiB by http, to curl", f"{ratio:.2f} x", "1.1 x", ratio <= 1.1)
    shutil.rmtree(served)


def rsync(options: argparse.Namespace, scratch: Path) -> None:
    from flow.data_provider.rsync import RSyncStaging

    there = scratch / "there"
    there.mkdir()
    for number in range(100):
        (there / f"{number:03}").write_bytes(os.urandom(1000))
    (there / "big").write_bytes(os.urandom(20 << 20))
    with node_ssh(scratch / "ssh") as (address, ssh, logins):
        ratios = []
        for round_ in range(options.rounds):
            (scratch / "by-rsync").mkdir()
            names = "".join(f"{number:03}\n" for number in range(100))
            command = ["rsync", "-a", "--files-from=-", "-e", ssh, f"{address}:{there}/", str(scratch / "by-rsync")]
            began = time.perf_counter()
            subprocess.run(command, input=names.encode(), check=True, timeout=120)
            rival = time.perf_counter() - began
            shutil.rmtree(scratch / "by-rsync")
            with loaded("HTEX", scratch / f"rsync{round_}", RSyncStaging(address, ssh=ssh)):
                took, _ = run_tasks([str(there / f"{number:03}") for number in range(100)], 1000)
            ratios.append(took / rival)
        ratio = statistics.median(ratios)
        line("100 x 1 KB by rsync, HTEX, to one rsync of them", f"{ratio:.2f} x", "3 x", ratio <= 3)
        with loaded("HTEX", scratch / "rsync-big", RSyncStaging(address, ssh=ssh)):
            before = logins()
            run_tasks([str(there / "big")] * 30, 20 << 20)
            number = logins() - before
        line("20 MiB by rsync to 30 tasks of one node", f"{number} rsync", "1 rsync", number == 1)


def s3(options: argparse.Namespace, scratch: Path) -> None:
    keys = [f"{number:03}" for number in range(500)]
    with moto(scratch) as endpoint:
        client = s3_client(endpoint)
        client.create_bucket(Bucket="bench")
        for key in keys:
            client.put_object(Bucket="bench", Key=key, Body=os.urandom(1000))
        compare_s3("moto", endpoint, keys, options, scratch)
    for delay_s in (0.005, 0.02, 0.1):
        with far_store(1000, delay_s) as endpoint:
            compare_s3(f"a server that answers after {delay_s * 1e3:.0f} ms", endpoint, keys, options, scratch)


def s3_client(endpoint: str) -> Any:
    import boto3
    from botocore.config import Config as BotoConfig

    return boto3.client("s3", endpoint_url=endpoint, config=BotoConfig(max_pool_connections=32))


def compare_s3(server: str, endpoint: str, keys: list[str], options: argparse.Namespace, scratch: Path) -> None:
    from flow.data_provider.s3 import S3Staging

    client = s3_client(endpoint)

    def get(key: str) -> bytes:
        content: bytes = client.get_object(Bucket="bench", Key=key)["Body"].read()
        return content

    serial, threads, processes, ours = [], [], [], []
    for _ in range(options.rounds):
        serial.append(in_threads(keys, get, scratch / "serial", 1))
        threads.append(in_threads(keys, get, scratch / "threads"))
        processes.append(s3_in_processes(endpoint, keys, 4))
        with loaded("threads", scratch / "s3", S3Staging(endpoint_url=endpoint)):
            ours.append(run_tasks([f"s3://bench/{key}" for key in keys], 1000)[0])
        shutil.rmtree(scratch / "s3")
    times = statistics.median(a / b for a, b in zip(serial, ours, strict=True))
    most = statistics.median(a / b for a, b in zip(serial, threads, strict=True))
    line(f"500 x 1 KB from S3 ({server}), to a loop over boto3", f"{times:.1f} times as fast", "5", times >= 5)
    line("the same, boto3 in 8 threads: what boto3 can do", f"{most:.1f} times as fast", "", None)
    most = statistics.median(a / b for a, b in zip(serial, processes, strict=True))
    line("the same, boto3 in 4 processes: what the server can do", f"{most:.1f} times as fast", "", None)


S3_READER = """
import sys, boto3
client = boto3.client("s3", endpoint_url=sys.argv[1])
keys = sys.argv[2].split(",")
client.get_object(Bucket="bench", Key=keys[0])["Body"].read()
print("ready", flush=True)
sys.stdin.readline()
for key in keys:
    client.get_object(Bucket="bench", Key=key)["Body"].read()
print("done", flush=True)
"""


def s3_in_processes(endpoint: str, keys: list[str], count: int) -> float:
    """Read the objects by so many processes, each with a client of its own; return seconds, without their starts."""
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", S3_READER, endpoint, ",".join(keys[number::count])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        began = time.perf_counter()
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write("\n")
            reader.stdin.flush()
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "done\n"
        return time.perf_counter() - began
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


def ftp(_options: argparse.Namespace, scratch: Path) -> None:
    there = scratch / "ftp"
    there.mkdir()
    for number in range(200):
        (there / f"{number:03}").write_bytes(os.urandom(1000))
    with ftp_server(there) as (base, logins), loaded("threads", scratch / "ftp-run"):
        took, _ = run_tasks([f"{base}/{number:03}" for number in range(200)], 1000)
        line("200 x 1 KB by ftp, threads: logins", f"{logins()} in {took:.1f} s", "8", logins() <= 8)


def members(_options: argparse.Namespace, scratch: Path) -> None:
    import zipfile

    from flow.data_provider.zip import ZipFileStaging

    archive = scratch / "many.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for number in range(70_000):
            made.writestr(f"{number:05}", b"x" * 100)
    time.sleep(2.5)  # an archive that has just changed is opened anew each time
    with loaded("threads", scratch / "zip", ZipFileStaging()):
        run_tasks([f"zip:{archive}/00000"], 100)  # reads the directory
        took, _ = run_tasks([f"zip:{archive}/{number * 70:05}" for number in range(1000)], 100)
        line("a member of an archive of 70,000", f"{took:.2f} ms", "2 ms", took <= 2.0)


SECTIONS = {"http": http, "one": one, "big": big, "rsync": rsync, "s3": s3, "ftp": ftp, "zip": members}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mb", type=int, default=3072)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that no server stays
    print("| what | bar | measured | reached |\n| --- | --- | --- | --- |")
    for name in options.only.split(","):
        scratch = Path(tempfile.mkdtemp(prefix="flow-bars-"))
        scratch.chmod(0o755)
        try:
            SECTIONS[name](options, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()

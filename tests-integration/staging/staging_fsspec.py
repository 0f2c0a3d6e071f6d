"""Local servers for fsspec's file systems, each with what the test itself sees of its files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Served:
    """A directory of a server.

    Attributes:
        protocol: The scheme of its URLs.
        url: Its URL.
        options: What fsspec's file system is made with.
        content: Gives the content of a file in it.
        names: Gives the names of all files in it.
    """

    protocol: str
    url: str
    options: dict[str, Any]
    content: Callable[[str], bytes]
    names: Callable[[], list[str]]


def on_disk(protocol: str, url: str, options: dict[str, Any], root: Path) -> Served:
    """Return that of a server which shows a directory of this machine."""
    return Served(
        protocol,
        url,
        options,
        lambda name: (root / name).read_bytes(),
        lambda: sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()),
    )


@contextmanager
def webdav(root: Path) -> Iterator[Served]:
    """Serve a directory by wsgidav."""
    from cheroot.wsgi import Server
    from wsgidav.fs_dav_provider import FilesystemProvider
    from wsgidav.wsgidav_app import WsgiDAVApp

    (root / "top").mkdir()
    config = {
        "provider_mapping": {"/": FilesystemProvider(str(root))},
        "simple_dc": {"user_mapping": {"*": True}},
        "verbose": 0,
        "logging": {"enable": False},
    }
    server = Server(("127.0.0.1", 0), WsgiDAVApp(config))
    server.prepare()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        options = {"base_url": f"http://127.0.0.1:{server.bind_addr[1]}/"}
        yield on_disk("webdav", "webdav://top", options, root / "top")
    finally:
        server.stop()
        thread.join(20)


@contextmanager
def s3(port: int) -> Iterator[Served]:
    """Use a bucket of moto's server by s3fs."""
    import boto3

    endpoint = f"http://127.0.0.1:{port}"
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="fsspec")

    def keys() -> list[str]:
        listed = client.list_objects_v2(Bucket="fsspec", Prefix="top/").get("Contents", [])
        return sorted(each["Key"].removeprefix("top/") for each in listed)

    def content(name: str) -> bytes:
        body: bytes = client.get_object(Bucket="fsspec", Key=f"top/{name}")["Body"].read()
        return body

    for name in keys():
        client.delete_object(Bucket="fsspec", Key=f"top/{name}")
    options = {"endpoint_url": endpoint, "key": "testing", "secret": "testing"}
    yield Served("s3", "s3://fsspec/top", options, content, keys)
    client.close()


@contextmanager
def gcs(log: Path) -> Iterator[Served]:
    """Run the emulator of Google Cloud Storage, with one bucket, for gcsfs."""
    import urllib.request

    # Else gcsfs asks the service of another protocol, which no emulator has, for the kind of the bucket: a minute long.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    code = (
        "from gcp_storage_emulator.__main__ import main; main(['start', '--host=127.0.0.1', '--port=0', '--in-memory'])"
    )
    with _running([sys.executable, "-u", "-c", code], log) as server:
        endpoint = f"http://127.0.0.1:{_port_of(server)}"
        asked = urllib.request.Request(
            f"{endpoint}/storage/v1/b?project=test", b'{"name": "fsspec"}', {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(asked, timeout=20).close()
        options = {"endpoint_url": endpoint, "token": "anon", "project": "test"}
        yield Served("gs", "gs://fsspec/top", options, *_seen_by("gs", "fsspec/top", options))


@contextmanager
def azurite(scratch: Path) -> Iterator[Served]:
    """Run Azurite's blob service, with one container, for adlfs."""
    from azure.storage.blob import BlobServiceClient

    program = shutil.which("azurite-blob")
    assert program is not None
    log = scratch / "azurite.log"
    command = [
        program,
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        "0",
        "--location",
        str(scratch),
        "--skipApiVersionCheck",
    ]
    with _running([*command, "--disableTelemetry", "--silent"], log) as server:
        login = _AZURITE.format(port=_port_of(server))
        with BlobServiceClient.from_connection_string(login) as client:
            client.create_container("fsspec")
        options = {"connection_string": login}
        yield Served("abfs", "abfs://fsspec/top", options, *_seen_by("abfs", "fsspec/top", options))


# The account that the emulator has, with the key that its documentation states.
_AZURITE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6"
    "IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
)


def _seen_by(
    protocol: str, root: str, options: dict[str, Any]
) -> tuple[Callable[[str], bytes], Callable[[], list[str]]]:
    """Return what looks at a directory by a file system of its own."""
    import fsspec

    def fs() -> Any:
        return fsspec.filesystem(protocol, **options, skip_instance_cache=True)

    def names() -> list[str]:
        seen = fs()
        return sorted(path.removeprefix(f"{root}/") for path in seen.find(root)) if seen.exists(root) else []

    return lambda name: fs().cat_file(f"{root}/{name}"), names


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL)
    try:
        yield server
    finally:
        server.terminate()
        server.wait(20)


def _port_of(server: subprocess.Popen[bytes]) -> int:
    """Return the port on which a process listens, which the system has chosen."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        assert server.poll() is None, f"{server.args!r} has ended"
        sockets = set()
        for descriptor in Path(f"/proc/{server.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                if found := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor)):
                    sockets.add(found[1])
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in sockets:  # 0A is LISTEN
                return int(words[1].rpartition(":")[2], 16)
        time.sleep(0.05)
    raise AssertionError(f"{server.args!r} does not listen")

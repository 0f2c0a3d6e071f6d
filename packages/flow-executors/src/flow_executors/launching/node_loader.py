"""Brings one archive to a node, and prints the directory where it is unpacked. Runs there before Flow is there.

Standard library of Python 3.7 and later only, and of ours ``node_cache`` alone, which comes along. Its argument is what
``launch_line`` tells it, as JSON. An archive that came with the job is taken, else it is fetched from the script's
machine (``file_server``). Directories are named by digests, shared by all managers of the node, and removed when
nothing has used them for two weeks.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import time

from flow_core.remote.node_cache import cache_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO, NoReturn

_PIECE = 1 << 16  # bytes received at a time; only the magnitude matters
_KEPT_S = 14 * 86400  # seconds that what nothing uses is kept: runs of one project come within days
_CONNECT_S = 10  # seconds for each address of the script, all of which are tried
_SILENCE_S = 300  # the script may have to fetch wheels first
_MEND_S = 600  # seconds for conda-unpack, which rewrites thousands of files, on a file system of many nodes
_READY = ".flow-ready"


def fail(text: str) -> NoReturn:
    """End this process with a text for the job's standard error."""
    sys.exit(text)


def platform() -> list[Any]:
    """Return Python, machine, libc and its version, as ``node_bundle.Platform.as_list``."""
    try:
        libc = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        name, version = libc[0], [int(part) for part in libc[1].split(".")[:2]]
    except (ValueError, OSError, IndexError):
        name, version = "musl", [0, 0]
    return [".".join(map(str, sys.version_info[:2])), os.uname().machine, name, version]


def suits(needs: list[Any], mine: list[Any]) -> bool:
    """Tell whether what needs one platform runs on another."""
    return bool(needs[:3] == mine[:3] and needs[3] <= mine[3])


def received(sock: socket.socket, size: int) -> bytes:
    """Return so many bytes of a connection. Raises OSError."""
    parts = []
    while size:
        part = sock.recv(min(size, _PIECE))
        if not part:
            raise OSError("the connection broke")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def connected(told: dict[str, Any]) -> socket.socket:
    """Return a connection to the script's machine. Raises OSError."""
    said = []
    for address in told["addresses"]:
        try:
            return socket.create_connection((address, told["port"]), _CONNECT_S)
        except OSError as error:
            said.append(f"{address} ({error})")
    raise OSError(f"port {told['port']} of the script's machine does not answer at {', '.join(said)}")


def fetch(told: dict[str, Any], mine: list[Any], path: str) -> None:
    """Fetch an archive from the script into a file. Raises OSError."""
    try:
        with own(os.environ[told["secret"]]) as secret:
            lines = secret.read().split(b"\n")
    except OSError:  # a node of a job without a shared disk that does not run the job's script
        lines = base64.b64decode(os.environ.get(told["secret"] + "_BASE64", "")).split(b"\n")
        if len(lines) < 4:
            raise
    public, key = lines[2], hashlib.sha256(b"flow-files" + lines[3]).digest()
    with connected(told) as sock, open(path, "wb") as file:
        sock.settimeout(_SILENCE_S)
        nonces = received(sock, 24)[8:] + os.urandom(16)
        asked = json.dumps({"want": told["want"], "platform": mine}).encode()
        sign = hmac.new(key, b"c" + nonces + asked, "sha256").digest()
        sock.sendall(public + nonces[16:] + struct.pack("<H", len(asked)) + asked + sign)
        text = received(sock, struct.unpack("<I", received(sock, 4))[0])
        if not hmac.compare_digest(received(sock, 32), hmac.new(key, b"s" + nonces + text, "sha256").digest()):
            raise OSError("who answered is not the script")
        head = json.loads(text)
        if "error" in head:
            raise OSError(head["error"])
        left, count, whole = head["size"], 0, hashlib.sha256()
        while left:
            part = received(sock, min(left, _PIECE))
            stream = hashlib.shake_256(key + nonces + struct.pack("<Q", count)).digest(len(part))
            part = (int.from_bytes(part, "little") ^ int.from_bytes(stream, "little")).to_bytes(len(part), "little")
            whole.update(part)
            file.write(part)
            left, count = left - len(part), count + 1
        if whole.hexdigest() != head["sha256"]:
            raise OSError("what came is damaged")


def own(path: str) -> BinaryIO:
    """Open a plain file of this user's or root's. Raises OSError.

    Another user may have put one there, who could change it after it was looked at.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")  # a pipe would wait for its writer
    state = os.fstat(file.fileno())
    if stat.S_ISREG(state.st_mode) and state.st_uid in (0, os.geteuid()):
        return file
    file.close()
    raise OSError("it is another user's, or no plain file")


def digest(file: BinaryIO) -> str:
    """Return the SHA-256 of a file. Raises OSError."""
    whole = hashlib.sha256()
    for part in iter(lambda: file.read(1 << 20), b""):
        whole.update(part)
    file.seek(0)
    return whole.hexdigest()


def unpack(file: BinaryIO, place: str) -> None:
    """Unpack an archive into a directory that is marked once it is whole."""
    shutil.rmtree(place, ignore_errors=True)
    os.mkdir(place, 0o700)
    with tarfile.open(fileobj=file) as archive:
        if hasattr(tarfile, "fully_trusted_filter"):
            archive.extractall(place, filter="fully_trusted")
        else:
            archive.extractall(place)
    mender = os.path.join(place, "bin", "conda-unpack")
    if os.path.exists(mender):  # writes the place into what was packed elsewhere
        subprocess.run([os.path.join(place, "bin", "python"), mender], check=True, stdout=2, timeout=_MEND_S)
    with open(os.path.join(place, _READY), "w"):
        pass


def clean(parent: str, mine: str) -> None:
    """Remove what nothing has used for long."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        try:
            if path != mine and os.path.isdir(path) and os.stat(path).st_mtime < time.time() - _KEPT_S:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass


def bring(told: dict[str, Any], mine: list[Any]) -> str:
    """Return the directory of an archive, bringing it if it is not there."""
    try:
        parent = cache_directory(told["kind"])
    except OSError as error:
        return fail(f"no directory for Flow can be written: {error}")
    fitting = told["needs"] is None or suits(told["needs"], mine)
    name = told["sha256"] if fitting else hashlib.sha256(json.dumps([told["want"], mine]).encode()).hexdigest()
    place = os.path.join(parent, name[:32])
    with open(os.path.join(parent, ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: two managers may bring it at once
            pass
        if not os.path.exists(os.path.join(place, _READY)):
            make(told, mine, place, fitting)
            clean(parent, place)
        os.utime(place)
    return place


def make(told: dict[str, Any], mine: list[Any], place: str, fitting: bool) -> None:
    """Unpack what came with the job, else what is fetched; ends this process where neither can be had."""
    said = []
    pushed = os.environ.get(told["file"], "")
    if not fitting:
        said.append(f"the file that came with the job is for {told['needs']}, and this node is {mine}")
    elif pushed:
        try:
            with own(pushed) as file:
                if digest(file) == told["sha256"]:
                    return unpack(file, place)
            said.append(f"{pushed} is not what was sent")
        except (OSError, tarfile.TarError, subprocess.SubprocessError) as error:
            said.append(f"{pushed}: {error}")
    else:
        said.append("no file came with the job")
    if not told["port"]:
        fail("; ".join(said))
    handle, path = tempfile.mkstemp(prefix=".part-", dir=os.path.dirname(place))
    os.close(handle)
    try:
        fetch(told, mine, path)
        with own(path) as file:
            unpack(file, place)
    except (OSError, KeyError, IndexError, tarfile.TarError, struct.error, subprocess.SubprocessError) as error:
        fail("; ".join([*said, str(error)]))
    finally:
        os.unlink(path)
    return None


def main() -> None:
    """Do what the argument tells."""
    sys.stdout.write(bring(json.loads(sys.argv[1]), platform()) + "\n")


if __name__ == "__main__":
    main()

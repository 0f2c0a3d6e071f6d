"""Curve keys, one server key a run and executor, one key pair a block, and ZAP, which admits exactly the known keys.

Keys are files of mode 0600 under a 0700 directory. The secret of a block is what its managers need and nothing more:
the server's public key and the block's own pair. It is delivered as a file (``JobExtras.secrets``), never on a command
line. ZAP is ZeroMQ's authentication (RFC 27): frames in, frames out.
"""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from flow_core.folders import make_directory, plain_file
from flow_executors.errors import BadMessage, ExecutorError

# Characters of Z85 that stand for the 32 bytes of a Curve key.
KEY_SIZE = 40
SECRET_NAME = "flow_block_key"
"""Name under which a block's secret is delivered with its job."""
READERS_VARIABLE = "FLOW_BLOCK_MANAGERS"
"""Variable of a job: how many managers will read the secret of its block; 0 where that is not known."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A Curve key pair, both parts as 40 characters of Z85. The secret part never shows in a repr."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BlockSecret:
    """The keys with which a manager reaches its interchange, and no other process."""

    block: str
    server_public: bytes
    pair: KeyPair

    def to_bytes(self) -> bytes:
        """Return the content of the secret's file: four lines."""
        return b"\n".join((self.block.encode(), self.server_public, self.pair.public, self.pair.secret, b""))

    @classmethod
    def from_bytes(cls, data: bytes) -> BlockSecret:
        """Parse the content of the file.

        Raises:
            BadMessage: it is none.
        """
        lines = data.split(b"\n")
        if len(lines) < 4 or any(len(line) != KEY_SIZE for line in lines[1:4]):
            raise BadMessage("the file with the block's key is damaged: it must hold a name and three keys")
        return cls(lines[0].decode(errors="replace"), lines[1], KeyPair(lines[2], lines[3]))


def make_pair() -> KeyPair:
    """Make a new key pair.

    Raises:
        ExecutorError: the installed libzmq has no encryption.
    """
    try:
        public, secret = zmq.curve_keypair()
    except zmq.ZMQError as error:
        raise ExecutorError("libzmq was built without CurveZMQ: install the pyzmq wheel of PyPI") from error
    return KeyPair(public, secret)


def write_secret(path: Path, data: bytes) -> None:
    """Write a secret so that only its owner can read it; makes the directory with mode 0700."""
    make_directory(path.parent, 0o700)
    path.parent.chmod(0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(data)


def read_secret(path: Path) -> bytes:
    """Read a secret.

    Raises:
        ExecutorError: it cannot be read, or others than its owner could, or the owner is neither this user nor root.
    """
    try:
        with open(path, "rb", opener=plain_file) as file:
            status = os.fstat(file.fileno())
            if status.st_mode & 0o077:
                raise ExecutorError(f"{path} can be read by others (mode {status.st_mode & 0o777:o}): it must be 0600")
            if status.st_uid not in (0, os.geteuid()):
                raise ExecutorError(f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}: it is not used")
            return file.read(1 << 16)
    except FileNotFoundError as error:
        folder = path.parent.parent  # of the job's script, and of its directory of secrets
        if not folder.is_dir():
            raise ExecutorError(
                f"the key file {path} cannot be read: {os.uname().nodename} has no directory {folder}, so it does not "
                "share the disk of the host that submitted this job. With shared_disk=False, or 'auto', a job brings "
                "its key along (SlurmProvider, PBSProProvider, TorqueProvider, CondorProvider); else choose as "
                "script_dir of the provider's channel a directory that the nodes see, too"
            ) from error
        raise ExecutorError(
            f"the key file {path} is gone: it is removed when the block's managers have read it. A job that its "
            "scheduler starts again comes too late; its block is replaced"
        ) from error
    except OSError as error:
        raise ExecutorError(f"the key file {path} cannot be read: {error.strerror}") from error


def decoded(text: str) -> bytes:
    """Return a secret out of the text by which it came.

    Raises:
        BadMessage: it is none.
    """
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise BadMessage("the text with the block's key is damaged: it must be base64") from error


def used_up(path: Path, readers: int) -> None:
    """Remove a secret's file after the last of so many processes has read it; 0: it is not known how many will.

    Each reader leaves a file of its own beside it, so no two count as one. Where the directory cannot be written, as a
    mounted one of Kubernetes, all stays.
    """
    if readers < 1:
        return
    try:
        if readers > 1:
            os.close(os.open(f"{path}.read-{os.uname().nodename}-{os.getpid()}", os.O_CREAT | os.O_WRONLY, 0o600))
            read = list(path.parent.glob(f"{path.name}.read-*"))
            if len(read) < readers:
                return
            for one in read:
                one.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        path.parent.rmdir()  # which other secrets of the job keep
    except OSError:
        return


ENDPOINT = "inproc://zeromq.zap.01"
DOMAIN = b"flow"
_VERSION = b"1.0"


def answer(request: Sequence[bytes], admitted: Mapping[bytes, str]) -> list[bytes] | None:
    """Answer one request; ``admitted`` maps raw public keys (32 bytes) to blocks.

    The block becomes the ``User-Id`` of every message of the connection. None when the request has no form that could
    be answered.
    """
    if len(request) < 2 or request[0] != _VERSION:
        return None
    block = _block(request, admitted)
    if block is None:
        return [_VERSION, request[1], b"400", b"unknown key", b"", b""]
    return [_VERSION, request[1], b"200", b"", block.encode(), b""]


def _block(request: Sequence[bytes], admitted: Mapping[bytes, str]) -> str | None:
    if len(request) != 7:
        return None
    _, _, domain, _, _, mechanism, key = request
    if domain != DOMAIN or mechanism != b"CURVE":
        return None
    return admitted.get(key)

"""Curve keys: one server key a run and executor, one key pair a block, in files of mode 0600 under a 0700 directory.

A block's secret is what its managers need and nothing more: the server's public key and the block's own pair. It is
delivered as a file (``JobExtras.secrets``), never on a command line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from flow_executors.errors import BadMessage, ExecutorError

KEY_SIZE = 40
SECRET_NAME = "flow_block_key"
"""Name under which a block's secret is delivered with its job."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A Curve key pair, both parts as 40 characters of Z85. The secret part never shows in a repr."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BlockSecret:
    """All that a manager needs to reach its interchange and nobody else."""

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
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(data)


def read_secret(path: Path) -> bytes:
    """Read a secret.

    Raises:
        ExecutorError: it cannot be read, or others than its owner could.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise ExecutorError(f"{path} can be read by others (mode {mode & 0o777:o}): it must be 0600")
            return file.read(1 << 16)
    except OSError as error:
        raise ExecutorError(f"the key file {path} cannot be read: {error.strerror}") from error

"""Verification of what arrived: sizes and digests, and the headers in which servers state them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flow_staging.transfer.failures import ChecksumMismatch

_ALGORITHMS = {"sha-512": "sha512", "sha-256": "sha256", "sha": "sha1", "sha-1": "sha1", "md5": "md5"}
_STRENGTH = ("sha512", "sha256", "sha1", "md5")
_STATING = ("repr-digest", "digest", "content-digest", "content-md5")


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest as the other side states it.

    Attributes:
        algorithm: Name as hashlib knows it.
        value: The digest's bytes.
    """

    algorithm: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Remote:
    """Facts that the other side states of a file.

    Attributes:
        size: Bytes, or None where it does not say.
        digest: Digest of the whole content, or None.
        validator: Names this version of the content; empty where nothing trustworthy does. Only with one can a
            transfer be resumed or the content be cached.
        resumable: The validator names the very bytes, and the stream holds them as they are: it can be resumed.
        checked: The stream checks the content itself when it is read from the first byte to the last, so the digest
            need only be looked at after a break.
        lasting: Where there is no validator, the content may be used by other tasks of the same run: the other side
            does not say that each is to ask for its own.
    """

    size: int | None = None
    digest: Digest | None = None
    validator: str = ""
    checked: bool = False
    resumable: bool = True
    lasting: bool = True

    @property
    def digits(self) -> str:
        """The digest in hexadecimal digits; empty where there is none."""
        return "" if self.digest is None else self.digest.value.hex()


class Checker:
    """Follows the bytes of one file as they arrive. Not thread-safe."""

    def __init__(self) -> None:
        self.size = 0
        self._remote = Remote()
        self._hash: hashlib._Hash | None = None

    def restart(self, remote: Remote) -> None:
        """Begin at the first byte of a file with the given size and digest."""
        self._remote = remote
        self.size = 0
        # Checked by the stream itself: hashing it here as well would double the CPU time.
        digest = None if remote.checked else remote.digest
        self._hash = None if digest is None else hashlib.new(digest.algorithm, usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        """Count and hash the next bytes of the file."""
        self.size += len(data)
        if self._hash is not None:
            self._hash.update(data)

    def learn(self, size: int | None) -> None:
        """Take the size of the whole from a later answer.

        Raises:
            ChecksumMismatch: an earlier one stated another.
        """
        if size is None or size == self._remote.size:
            return
        if self._remote.size is not None:
            raise ChecksumMismatch(f"the file has {size} bytes now, where {self._remote.size} were announced")
        self._remote = replace(self._remote, size=size)

    @property
    def total(self) -> int | None:
        """The size of the whole file, None where it is not known."""
        return self._remote.size

    @property
    def missing(self) -> int:
        """Bytes still to come; 0 where the size is not known."""
        return 0 if self._remote.size is None else max(0, self._remote.size - self.size)

    def again(self, path: str | os.PathLike[str]) -> None:
        """Go through what has arrived from its first byte, since the stream was broken; raises OSError."""
        self.restart(replace(self._remote, checked=False))
        self.read(path)

    def read(self, path: str | os.PathLike[str]) -> None:
        """Take what is in a file as the next bytes; raises OSError."""
        with open(path, "rb") as stream:
            while data := stream.read(1 << 20):
                self.update(data)

    def finish(self) -> None:
        """Check size and digest of the whole file.

        Raises:
            ChecksumMismatch: the bytes are not those announced.
        """
        wanted, digest = self._remote.size, self._remote.digest
        if wanted is not None and self.size != wanted:
            raise ChecksumMismatch(f"got {self.size} bytes where {wanted} were announced")
        if digest is not None and self._hash is not None and self._hash.digest() != digest.value:
            found = self._hash.hexdigest()
            raise ChecksumMismatch(f"the {digest.algorithm} digest is {found}, announced was {digest.value.hex()}")


def digest_of_headers(headers: Mapping[str, str], *, whole: bool = True) -> Digest | None:
    """Return the strongest digest of the whole content that HTTP headers state, or None.

    Understands Repr-Digest and Content-Digest (RFC 9530), Digest (RFC 3230) and Content-MD5.

    Args:
        headers: Headers with case-insensitive or lower-case names.
        whole: The message holds the whole content, so what is stated of the message is true of the content.
    """
    # Most servers state none: no further look then.
    if not any(name in headers for name in _STATING):
        return None
    found = dict(_structured(headers.get("repr-digest", "")))
    found.update(_instance(headers.get("digest", "")))
    # These are of the message: of a part they say nothing about the file.
    if whole:
        found.update(_structured(headers.get("content-digest", "")))
        found.update(_decoded("md5", headers.get("content-md5", "")))
    for algorithm in _STRENGTH:
        if algorithm in found:
            return Digest(algorithm, found[algorithm])
    return None


def _structured(field: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, value in re.findall(r"([a-zA-Z0-9-]+)=:([A-Za-z0-9+/=]*):", field):
        found.update(_decoded(name, value))
    return found


def _instance(field: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for item in field.split(","):
        name, equals, value = item.strip().partition("=")
        if equals:
            found.update(_decoded(name, value))
    return found


def _decoded(name: str, text: str) -> dict[str, bytes]:
    algorithm = _ALGORITHMS.get(name.strip().lower())
    if algorithm is None or not text:
        return {}
    try:
        value = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return {}
    size = hashlib.new(algorithm, usedforsecurity=False).digest_size
    # Some servers state hexadecimal digits here, which decode to another length.
    return {algorithm: value} if len(value) == size else {}

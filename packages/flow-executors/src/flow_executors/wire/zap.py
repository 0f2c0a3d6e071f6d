"""ZAP (ZeroMQ's authentication, RFC 27): admit exactly the known keys. Pure: frames in, frames out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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

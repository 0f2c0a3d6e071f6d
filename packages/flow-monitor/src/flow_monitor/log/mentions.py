"""Search for a text in the event log of a run: what is in it the run itself has recorded."""

from __future__ import annotations

import json
from typing import BinaryIO

import orjson

_CHUNK = 4 << 20  # bytes a read; only the magnitude matters


def mentions(log: BinaryIO, text: str) -> bool:
    """Return whether a log has a text as a whole value, from where the stream stands. Raises OSError.

    Reads the bytes as they are: on a log of a million tasks it takes some tenths of a second.
    """
    # Both spellings: orjson writes UTF-8, json, which takes what orjson refuses, ASCII with escapes.
    wanted = {json.dumps(text).encode("ascii")}
    try:
        wanted.add(orjson.dumps(text))
    except TypeError:
        pass  # a text that is no Unicode is written in ASCII
    # A text may lie across two chunks.
    overlap = max(map(len, wanted)) - 1
    rest = b""
    while chunk := log.read(_CHUNK):
        data = rest + chunk
        if any(one in data for one in wanted):
            return True
        rest = data[-overlap:]
    return False

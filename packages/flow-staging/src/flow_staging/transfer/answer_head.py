"""HTTP answer heads, read faster than by the e-mail parser that the standard library uses.

A head that is not of the plain form (folded lines, names that are none, lines without a colon) goes to that parser.
"""

from __future__ import annotations

import http.client
import re
from email.parser import Parser
from typing import Any

_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*)\r?\n")
_END = (b"\r\n", b"\n", b"")
_WHOLE = re.compile(
    r"HTTP/1\.([01]) ([2-9][0-9][0-9]) ([^\r\n]*)\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n]*\r\n){0,99})\r\n"
)
"""An answer's first line and head as most are."""
_PAIR = re.compile(r"([^:]+):[ \t]*([^\r\n]*)\r\n")
_LONGEST = 65_536  # bytes of a line, as of http.client
_MOST = 100  # lines, as of http.client


class Head(http.client.HTTPMessage):
    """The names and values of a head, as they are asked for here: they are Latin-1, so no value must be decoded.

    It is complete when it is given out; nothing is added to it later.
    """

    _headers: list[tuple[str, str]]  # of the class above, which reads it, too
    _merged: dict[str, str] | None = None

    def __init__(self, pairs: list[tuple[str, str]] | None = None) -> None:
        super().__init__()
        if pairs is not None:
            self._headers = pairs

    def note(self, name: str, value: str) -> None:
        """Add one line of the head: a name and its value."""
        self._headers.append((name, value))

    def get(self, name: str, failobj: Any = None) -> Any:
        """Return the first value of a name."""
        small = name.lower()
        for each, value in self._headers:
            if each.lower() == small:
                return value
        return failobj

    def items(self) -> list[tuple[str, Any]]:
        """Return all names with their values, as they came."""
        return list(self._headers)

    def merged(self) -> dict[str, str]:
        """Return the values by their names in small letters, several of one name as one with commas."""
        merged = self._merged
        if merged is None:
            merged = self._merged = {}
            for name, value in self._headers:
                small = name.lower()
                merged[small] = f"{merged[small]}, {value}" if small in merged else value
        return merged


def read_head(lines: Any) -> http.client.HTTPMessage:
    """Read the lines after the first one of an answer, to the empty one.

    Args:
        lines: A binary stream.

    Raises:
        http.client.HTTPException: a line is longer than 64 KiB, or there are more than 100, as of the standard library.
        OSError: the connection broke.
    """
    head: Head | None = Head()
    raw: list[bytes] = []
    while True:
        line: bytes = lines.readline(_LONGEST + 1)
        if len(line) > _LONGEST:
            raise http.client.LineTooLong("header line")
        raw.append(line)
        if len(raw) > _MOST:
            raise http.client.HTTPException(f"got more than {_MOST} headers")
        if line in _END:
            break
        if head is not None:
            match = _LINE.fullmatch(line)
            if match is None:
                head = None
            else:
                head.note(match[1].decode("ascii"), match[2].decode("latin-1"))
    if head is not None:
        return head
    # Slower, and exactly as the standard library understands what is out of the ordinary.
    return Parser(_class=http.client.HTTPMessage).parsestr(b"".join(raw).decode("latin-1"))


class QuickAnswer(http.client.HTTPResponse):
    """An answer whose head is read by ``read_head``."""

    def begin(self, **options: Any) -> None:
        """Read the first line and the head; raises as that of the standard library."""
        answer: Any = self  # what is used of the class above is not all said of it
        if answer.headers is not None or options or answer.debuglevel > 0:
            super().begin(**options)
            return
        if not self._taken_whole():
            while True:
                version, status, reason = answer._read_status()
                if status != http.client.CONTINUE:
                    break
                read_head(answer.fp)
            answer.code = answer.status = status
            answer.reason = reason.strip()
            if version in ("HTTP/1.0", "HTTP/0.9"):
                answer.version = 10
            elif version.startswith("HTTP/1."):
                answer.version = 11
            else:
                raise http.client.UnknownProtocol(version)
            answer.headers = answer.msg = read_head(answer.fp)
        status = answer.status
        head: Any = answer.headers
        answer.chunked = (head.get("transfer-encoding") or "").lower() == "chunked"
        answer.chunk_left = None
        answer.will_close = answer._check_close()
        length = "" if answer.chunked else (head.get("content-length") or "").strip()
        answer.length = int(length) if length.isascii() and length.isdigit() else None
        if status in (http.client.NO_CONTENT, http.client.NOT_MODIFIED) or 100 <= status < 200:
            answer.length = 0
        if answer._method == "HEAD":
            answer.length = 0
        if not answer.will_close and not answer.chunked and answer.length is None:
            answer.will_close = True

    def _taken_whole(self) -> bool:
        """Take first line and head at once, where they are of the plain form and have come together."""
        answer: Any = self
        # peek takes nothing: what is not a whole plain head is left for the usual way.
        peek = getattr(answer.fp, "peek", None)
        come: bytes = b"" if peek is None else peek(1)
        first = first_of(come)
        if first is None:
            return False
        answer.version, status, answer.reason, head, length = first
        answer.fp.read(length)
        answer.code = answer.status = status
        answer.headers = answer.msg = head
        return True


def first_of(come: bytes) -> tuple[int, int, str, Head, int] | None:
    """Return version (10 or 11), status, reason and head with which bytes begin, and how long that is.

    None where they do not begin with a whole head of the plain form.
    """
    match = _WHOLE.match(come[: come.find(b"\r\n\r\n") + 4].decode("latin-1"))
    if match is None:
        return None
    minor, status, reason, lines = match.groups()
    return 10 if minor == "0" else 11, int(status), reason.strip(), Head(_PAIR.findall(lines)), match.end()

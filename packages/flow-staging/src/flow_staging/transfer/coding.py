"""Content codings: a file that the other side stores or sends packed arrives as the file that it stands for."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from flow_staging.transfer.failures import ChecksumMismatch, PermanentTransferError, TransientTransferError
from flow_staging.transfer.limits import DEFAULT_LIMITS, SizeLimits

Read = Callable[[], bytes | memoryview]

_MOST = 1 << 20  # bytes given at once, however well they were packed
# Values of wbits, which choose the format of a stream in zlib.
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_KNOWN = ("gzip", "x-gzip", "deflate")
_NONE = ("", "identity", "aws-chunked")


def coding_of(content_encoding: str) -> str:
    """Return the coding that a Content-Encoding header names, empty for none.

    Raises:
        PermanentTransferError: it is one that cannot be unpacked here; the message names it.
    """
    names = [name for part in content_encoding.split(",") if (name := part.strip().lower()) not in _NONE]
    if not names:
        return ""
    if len(names) == 1 and names[0] in _KNOWN:
        return names[0]
    raise PermanentTransferError(
        f"the file comes packed (Content-Encoding: {content_encoding.strip()}) though it was asked for as it is, and "
        f"only gzip and deflate can be unpacked here: have the server send it without a coding"
    )


class Unpacked:
    """Reads a packed stream and gives the bytes of the file. Used by one thread.

    The end of the packed stream is checked: one that ends early is a ``TransientTransferError``, as an unpacked one is.
    """

    def __init__(self, read: Read, coding: str, limits: SizeLimits = DEFAULT_LIMITS) -> None:
        """Take a packed stream, its coding by ``coding_of``, and the limit of the ratio of unpacking."""
        self._read = read
        self._limits = limits
        self._packed = self._unpacked = 0
        self._gzip = coding != "deflate"
        self._inflate = zlib.decompressobj(_GZIP if self._gzip else _ZLIB)
        self._left = self._held = b""
        self._begun = self._ended = False

    def __call__(self) -> bytes:
        """Return the next bytes of the file, empty at its end.

        Raises:
            TransientTransferError, ChecksumMismatch: it is not whole, or damaged.
            TooLarge: it is beyond the limit of what is unpacked.
            Exception: what reading raises.
        """
        while not self._ended:
            packed = self._left
            if not packed:
                packed = bytes(self._read())
                self._packed += len(packed)
            self._left = b""
            data = self._unpack(packed) if packed else self._rest()
            if data:
                self._unpacked += len(data)
                # While it is unpacked, not after it: a bomb must not reach the disk.
                self._limits.check_ratio(self._packed, self._unpacked)
                return data
        return b""

    def _unpack(self, packed: bytes) -> bytes:
        if self._inflate.eof:  # another member follows, or padding
            if not self._gzip or not packed.strip(b"\0"):
                return b""
            self._inflate = zlib.decompressobj(_GZIP)
        if not self._gzip and not self._begun:  # two bytes tell whether there is a header
            packed, self._held = self._held + packed, b""
            if len(packed) == 1:
                self._held = packed
                return b""
        try:
            data = self._inflate.decompress(packed, _MOST)
        except zlib.error as error:
            if self._gzip or self._begun:
                raise ChecksumMismatch(f"the packed content is damaged: {error}") from error
            self._inflate = zlib.decompressobj(_RAW)  # what many servers mean by deflate
            self._begun = True
            return self._unpack(packed)
        self._begun = True
        self._left = self._inflate.unconsumed_tail or self._inflate.unused_data
        return data

    def _rest(self) -> bytes:
        """Return bytes that the bound of one read held back; check the end of the stream when there are none."""
        data = b"" if self._inflate.eof else self._inflate.decompress(b"", _MOST)
        if not data:
            self._ended = True
            if (self._begun or self._held) and not self._inflate.eof:
                raise TransientTransferError("the packed content ended before its end mark")
        return data

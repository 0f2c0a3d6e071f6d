"""Packed content: the file arrives, whatever pieces it comes in; what ends early or is damaged does not pass."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given, settings, strategies as st

from flow_staging.transfer.coding import Unpacked, coding_of
from flow_staging.transfer.failures import ChecksumMismatch, PermanentTransferError, TransientTransferError


def reader(data: bytes, piece: int):
    at = 0

    def read() -> bytes:
        nonlocal at
        at += piece
        return data[at - piece : at]

    return read


def whole(unpacked: Unpacked) -> bytes:
    return b"".join(iter(unpacked, b""))


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS = {
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data[:10]) + gzip.compress(data[10:]) + b"\0\0\0",
    "deflate": zlib.compress,
}


@settings(deadline=None)
@given(st.sampled_from(sorted(PACKERS)), st.binary(max_size=3000), st.integers(1, 400))
def test_the_file_arrives_in_whatever_pieces_it_comes(coding, data, piece):
    assert whole(Unpacked(reader(PACKERS[coding](data), piece), coding)) == data


@settings(deadline=None)
@given(st.binary(max_size=3000), st.integers(1, 400))
def test_raw_deflate_is_understood_too_in_whatever_pieces_it_comes(data, piece):
    assert whole(Unpacked(reader(raw_deflate(data), piece), "deflate")) == data


def test_one_byte_alone_is_no_packed_content():
    with pytest.raises(TransientTransferError):
        whole(Unpacked(reader(raw_deflate(b"abc")[:1], 1), "deflate"))


def test_no_reading_gives_more_than_its_bound():
    unpacked = Unpacked(reader(gzip.compress(bytes(20 << 20)), 1 << 16), "gzip")
    sizes = [len(piece) for piece in iter(unpacked, b"")]
    assert max(sizes) <= 1 << 20
    assert sum(sizes) == 20 << 20


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_stream_that_ends_early_is_broken(data, draw):
    packed = gzip.compress(data)
    end = draw.draw(st.integers(1, len(packed) - 1))
    with pytest.raises(TransientTransferError):
        whole(Unpacked(reader(packed[:end], 50), "gzip"))


def test_damaged_content_is_wrong_content():
    packed = bytearray(gzip.compress(b"abc" * 1000))
    packed[-5] ^= 1
    with pytest.raises(ChecksumMismatch, match="damaged"):
        whole(Unpacked(reader(bytes(packed), 50), "gzip"))


@pytest.mark.parametrize(
    ("header", "coding"), [("", ""), ("identity", ""), ("aws-chunked", ""), ("aws-chunked, GZip", "gzip")]
)
def test_a_coding_is_read_from_its_header(header, coding):
    assert coding_of(header) == coding


@pytest.mark.parametrize("header", ["br", "zstd", "gzip, gzip"])
def test_a_coding_that_cannot_be_unpacked_is_refused_by_name(header):
    with pytest.raises(PermanentTransferError, match=header):
        coding_of(header)

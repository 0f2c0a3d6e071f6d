"""Digests as servers state them, and the checking of sizes and digests."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, strategies as st

from flow_staging.transfer.failures import ChecksumMismatch
from flow_staging.transfer.verify import Checker, Digest, Remote, digest_of_headers

BODY = b"some content"


def b64(algorithm: str) -> str:
    return base64.b64encode(hashlib.new(algorithm, BODY).digest()).decode()


@pytest.mark.parametrize(
    ("headers", "algorithm"),
    [
        ({"content-md5": b64("md5")}, "md5"),
        ({"digest": f"SHA-256={b64('sha256')},MD5={b64('md5')}"}, "sha256"),
        ({"repr-digest": f"sha-512=:{b64('sha512')}:"}, "sha512"),
        ({"content-digest": f"md5=:{b64('md5')}:, sha-256=:{b64('sha256')}:"}, "sha256"),
    ],
)
def test_the_strongest_stated_digest_is_taken(headers, algorithm):
    assert digest_of_headers(headers) == Digest(algorithm, hashlib.new(algorithm, BODY).digest())


def test_what_is_stated_of_a_part_is_not_taken_for_the_whole():
    headers = {"content-md5": b64("md5"), "content-digest": f"sha-256=:{b64('sha256')}:"}
    assert digest_of_headers(headers, whole=False) is None


@given(st.text(max_size=80))
def test_rubbish_in_headers_is_no_digest_and_no_error(text):
    names = ("content-md5", "digest", "repr-digest", "content-digest")
    found = digest_of_headers(dict.fromkeys(names, text))
    assert found is None or len(found.value) == hashlib.new(found.algorithm).digest_size


@given(st.lists(st.binary(max_size=50)))
def test_a_content_that_is_as_announced_passes_however_it_arrives(pieces):
    whole = b"".join(pieces)
    checker = Checker()
    checker.restart(Remote(len(whole), Digest("sha256", hashlib.sha256(whole).digest())))
    for piece in pieces:
        checker.update(piece)
    checker.finish()


@pytest.mark.parametrize("arrived", [BODY[:-1], BODY + b"!", b""])
def test_a_wrong_size_is_refused(arrived):
    checker = Checker()
    checker.restart(Remote(len(BODY)))
    checker.update(arrived)
    with pytest.raises(ChecksumMismatch, match=f"{len(BODY)} were announced"):
        checker.finish()


def test_a_wrong_digest_of_the_right_size_is_refused():
    checker = Checker()
    checker.restart(Remote(len(BODY), Digest("md5", hashlib.md5(BODY).digest())))
    checker.update(BODY[::-1])
    with pytest.raises(ChecksumMismatch, match="md5"):
        checker.finish()

"""What a manager keeps for its workers, and how they find it."""

import os
from hashlib import blake2b

import pytest

from flow_core.errors import DeserializationError
from flow_executors.manager.code_cache import BlobFiles
from flow_executors.wire.messages import PIECE, pack_blob, unpack_blob
from flow_executors.worker.unpack import Unpacker


def digest_of(data):
    return blake2b(data, digest_size=16).digest()


def put(blobs, data):
    for message in pack_blob(digest_of(data), data):
        blobs.add(unpack_blob(message))
    return digest_of(data)


@pytest.fixture
def blobs():
    made = BlobFiles(max_bytes=4 << 20, file_bytes=1 << 20)
    yield made
    made.close()


class Reader(Unpacker):
    """A worker's view; notes what it asks for."""

    def __init__(self, blobs):
        self.asked = []
        super().__init__(os.getpid(), blobs.index_fd, self.asked.append)


def test_what_was_put_is_found_by_a_worker(blobs):
    reader = Reader(blobs)
    digests = [put(blobs, b"blob %d" % number) for number in range(50)]
    assert [reader._blob(digest) for digest in digests] == [b"blob %d" % number for number in range(50)]
    late = put(blobs, b"one more")
    assert reader._blob(late) == b"one more"
    assert reader.asked == []


def test_a_large_blob_is_whole_when_all_its_pieces_are_there_in_any_order(blobs):
    data = os.urandom(3 * PIECE + 5)
    pieces = [unpack_blob(message) for message in pack_blob(digest_of(data), data)]
    order = [pieces[2], pieces[0], pieces[0], pieces[3], pieces[1]]
    assert [blobs.add(piece) for piece in order] == [False, False, False, False, True]
    assert Reader(blobs)._blob(digest_of(data)) == data


def test_the_oldest_are_dropped_when_there_is_too_much_and_then_missing(blobs):
    first = put(blobs, b"the first")
    reader = Reader(blobs)
    reader._blob(first)
    for number in range(12):
        put(blobs, bytes([number]) * 600_000)
    last = put(blobs, b"the last")
    assert blobs.missing([first, last]) == [first]
    assert reader._blob(last) == b"the last"


def test_of_very_many_small_blobs_the_oldest_are_dropped():
    blobs = BlobFiles(max_blobs=100)
    reader = Reader(blobs)
    digests = [put(blobs, b"version %d" % number) for number in range(1000)]
    here = set(digests) - set(blobs.missing(digests))
    assert 75 <= len(here) <= 125
    assert here == set(digests[-len(here) :])
    assert reader._blob(digests[-1]) == b"version 999"
    assert len(reader._known) <= 125
    blobs.close()


def test_a_worker_never_takes_one_blob_for_another(blobs, monkeypatch):
    reader = Reader(blobs)
    digest = put(blobs, b"right")
    monkeypatch.setattr("flow_executors.worker.unpack._LOOKS", 2)
    other = put(blobs, b"wrong")
    wrong = reader._find(other)
    reader._known[digest] = wrong
    assert reader._blob(digest) == b"right"


def test_a_blob_that_never_comes_is_asked_for_once_and_named(blobs, monkeypatch):
    monkeypatch.setattr("flow_executors.worker.unpack._BLOB_PATIENCE_S", 0.05)
    reader = Reader(blobs)
    with pytest.raises(DeserializationError, match=(b"?" * 16).hex()):
        reader._blob(b"?" * 16)
    assert reader.asked == [b"?" * 16]


def test_files_vanish_with_their_manager():
    made = BlobFiles()
    put(made, b"x")
    links = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    ]
    assert any("memfd:flow-blobs" in link for link in links)
    made.close()

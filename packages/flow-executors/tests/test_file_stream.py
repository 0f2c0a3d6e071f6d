"""The stream of a transfer comes out as it went in, however it is cut; what is on the way has a bound."""

import os

import pytest
from hypothesis import given, settings, strategies as st

from flow_core.errors import StagingError
from flow_executors.common.file_pieces import LinkThere, PieceQueue, bodies, open_plain, packs
from flow_executors.errors import BadMessage
from flow_executors.wire.files import (
    LEAST_WINDOW,
    MOST_WINDOW,
    PIECE_BYTES,
    SMALL_BYTES,
    BodyBegun,
    BodyEnded,
    BodyPart,
    Entry,
    Listed,
    Packed,
    SendWindow,
    StreamReader,
    body_digest,
    pack_list,
    pack_small,
    unpack_list,
)

SIZES = st.one_of(st.integers(0, 300), st.integers(PIECE_BYTES - 40, PIECE_BYTES + 40), st.just(3 * PIECE_BYTES))
NAMES = st.text(min_size=1, max_size=12).filter(lambda text: "\0" not in text)


def parts_of(stream, cuts):
    reader, found, at = StreamReader(), [], 0
    for cut in [*cuts, len(stream)]:
        parts = reader.feed(stream[at : at + cut])
        found += [(part, bytes(part.content) if isinstance(part, BodyPart) else b"") for part in parts]
        at += cut
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(SIZES, max_size=12), st.lists(st.integers(1, PIECE_BYTES), max_size=40), st.booleans())
def test_files_come_out_as_they_went_in_however_the_stream_is_cut(tmp_path_factory, sizes, cuts, resumed):
    folder = tmp_path_factory.mktemp("files")
    wanted, wholes, contents = [], [], []
    for number, size in enumerate(sizes):
        content = os.urandom(size)
        (folder / str(number)).write_bytes(content)
        offset = size // 3 if resumed else 0
        wholes.append(content)
        contents.append(content[offset:])
        path = str(folder / str(number))
        wanted.append((number, size, offset, lambda path=path: open_plain(path, path), path))
    pieces = list(bodies(wanted))
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    entries = [Entry(number, "", "f", size) for number, size in enumerate(sizes)]
    stream = pack_list(entries) + b"".join(pieces)
    got, digests, lists = {}, {}, []
    current = -1
    for part, content in parts_of(stream, cuts):
        if isinstance(part, Listed):
            lists.append(unpack_list(part.text))
        elif isinstance(part, BodyBegun):
            current = part.entry
            got[current] = b""
            assert part.length == len(contents[current])
        elif isinstance(part, BodyPart):
            got[current] += content
        elif isinstance(part, BodyEnded):
            digests[part.entry] = part.digest
    assert lists == [entries]
    assert [got[number] for number in range(len(sizes))] == contents
    assert all(digests[number] == body_digest(content) for number, content in enumerate(wholes))


ENTRIES = st.builds(
    Entry, st.integers(0, 9), NAMES, st.sampled_from("fd"), st.integers(0, 1 << 60), st.integers(0, 0o7777), NAMES
)


@given(st.lists(ENTRIES, max_size=9))
def test_a_list_comes_back_as_it_was_packed(entries):
    (part, _), *rest = parts_of(pack_list(entries), [7, 9])
    assert (unpack_list(part.text), rest) == (entries, [])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.integers(0, 300), st.just(SMALL_BYTES)), max_size=40),
    st.lists(st.integers(1, PIECE_BYTES), max_size=40),
)
def test_small_files_come_many_in_a_record_and_out_as_they_went_in(tmp_path_factory, sizes, cuts):
    folder = tmp_path_factory.mktemp("files")
    contents = [os.urandom(size) for size in sizes]
    wanted = []
    for number, content in enumerate(contents):
        path = str(folder / str(number))
        (folder / str(number)).write_bytes(content)
        wanted.append((number, len(content), lambda path=path: open_plain(path, path), path))
    pieces = list(packs(wanted))
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    assert len(pieces) <= 1 + sum(sizes) // (PIECE_BYTES // 2)
    reader, got, at = StreamReader(), [], 0
    stream = b"".join(pieces)
    for cut in [*cuts, len(stream)]:
        for part in reader.feed(stream[at : at + cut]):
            assert isinstance(part, Packed)
            assert part.genuine
            start = 0
            for number, size in part.files():
                got.append((number, bytes(part.content[start : start + size])))
                start += size
        at += cut
    assert got == list(enumerate(contents))


@pytest.mark.parametrize("at", [24, 32, 36, -17, -1], ids=["entry", "entry 2", "size", "content", "digest"])
def test_small_files_that_changed_on_their_way_are_not_taken(at):
    stream = bytearray(pack_small([(1, 3), (2, 4)], b"1234567"))
    stream[at] ^= 1
    (part,) = StreamReader().feed(bytes(stream))
    assert not part.genuine


@pytest.mark.parametrize("files", [[(1, 3)], [(1, 7), (2, 1)], []])
def test_a_record_of_small_files_that_contradicts_itself_is_refused(files):
    (part,) = StreamReader().feed(pack_small(files, b"1234567"))
    with pytest.raises(BadMessage):
        part.files()


def test_a_record_with_more_small_files_than_it_has_room_for_is_refused():
    stream = bytearray(pack_small([(1, 3)], b"123"))
    stream[4:8] = (1000).to_bytes(4, "little")
    (part,) = StreamReader().feed(bytes(stream))
    with pytest.raises(BadMessage):
        part.files()


def test_a_small_file_that_became_shorter_fails_its_transfer(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"123")
    with pytest.raises(StagingError, match="became shorter"):
        list(packs([(0, 9, lambda: open_plain(str(path), "file"), "file")]))


def test_a_link_is_told_where_none_is_to_be_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(LinkThere):
        open_plain(str(tmp_path / "link"), "link", through_links=False)
    os.close(open_plain(str(tmp_path / "link"), "link"))


@given(st.binary(max_size=200))
def test_noise_is_out_of_step_or_incomplete_and_nothing_else(noise):
    try:
        for part in StreamReader().feed(noise):
            if isinstance(part, Listed):
                unpack_list(part.text)
    except BadMessage:
        pass


@pytest.mark.parametrize(
    "rows", [b"[1]", b"[[0,1,2]]", b'[["0","a","f",1,0,""]]', b'[[0,"a","l",1,0,""]]', b'[[0,"a","f",-1,0,""]]', b"x"]
)
def test_a_list_of_other_things_is_refused(rows):
    with pytest.raises(BadMessage):
        unpack_list(rows)


def test_a_file_that_became_shorter_fails_its_transfer(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"123")
    with pytest.raises(StagingError, match="became shorter"):
        list(bodies([(0, 9, 0, lambda: open_plain(str(path), "file"), "file")]))


def test_a_pipe_at_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StagingError, match="no regular file"):
        open_plain(str(tmp_path / "pipe"), "pipe")


STEPS = st.lists(st.tuples(st.sampled_from(["send", "take"]), st.floats(0.0001, 5), st.floats(0, 1)), max_size=60)


@given(STEPS, st.integers(0, MOST_WINDOW))
def test_what_is_on_the_way_never_exceeds_the_window_and_all_of_it_arrives(steps, granted):
    window, now = SendWindow(granted), 0.0
    for what, seconds, share in steps:
        now += seconds
        if what == "send":
            window.add(int(window.room * share), now)
        else:
            window.take(window.taken + int(window.out * share), granted, now)
        assert 0 <= window.taken <= window.sent
        assert window.out <= MOST_WINDOW
        assert window.out + window.room <= max(window.out, min(granted, MOST_WINDOW))
        assert LEAST_WINDOW <= window.limit <= MOST_WINDOW
    # Whatever came before: once all is taken there is room again, so nothing waits for ever.
    window.take(window.sent, MOST_WINDOW, now + 1)
    assert window.room >= LEAST_WINDOW


def test_a_fast_side_gets_much_ahead_and_a_slow_one_little():
    def after(rate):
        window, now = SendWindow(MOST_WINDOW), 0.0
        for _ in range(50):
            count = window.room
            window.add(count, now)
            now += count / rate
            window.take(window.sent, MOST_WINDOW, now)
        return window.limit

    assert after(1e5) == LEAST_WINDOW
    assert after(1e9) == MOST_WINDOW
    assert LEAST_WINDOW < after(5e6) < MOST_WINDOW


@pytest.mark.parametrize("total", [-1, 11])
def test_what_was_not_sent_cannot_be_taken(total):
    window = SendWindow(MOST_WINDOW)
    window.add(10, 0.0)
    with pytest.raises(BadMessage):
        window.take(total, MOST_WINDOW, 1.0)


@given(st.lists(st.lists(st.binary(max_size=40), max_size=4), max_size=4), st.lists(st.integers(1, 30), min_size=1))
def test_pieces_of_a_queue_are_all_that_was_put_in_in_its_order(sources: list[list[bytes]], rooms: list[int]) -> None:
    queue = PieceQueue()
    for source in sources:
        # An empty piece ends a source: there is none in what is read of files.
        queue.add(iter([piece for piece in source if piece]))
    told = b""
    for room in [*rooms, 1000, 1000, *([1000] * 16)]:
        piece = queue.take(room)
        assert len(piece) <= room
        told += piece
    assert told == b"".join(piece for source in sources for piece in source)
    queue.add(iter([b"more"]))
    assert queue.take(10) == b"more"
    assert queue.take(10) == b""


def test_little_room_is_waited_for_while_something_is_on_the_way() -> None:
    window = SendWindow(PIECE_BYTES)
    assert window.next_room() == PIECE_BYTES
    assert window.next_room(1000) == 1000  # nothing is on the way: what there is must do
    window.add(PIECE_BYTES - 1000, 0.0)
    assert window.room == 1000
    assert window.next_room() == 0
    window.take(PIECE_BYTES - 1000, PIECE_BYTES, 1.0)
    assert window.next_room() == PIECE_BYTES

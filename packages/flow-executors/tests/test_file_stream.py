"""The stream of a transfer comes out as it went in, however it is cut; what is on the way has a bound."""

import os

import pytest
from hypothesis import given, settings, strategies as st

from flow_core.errors import StagingError
from flow_executors.common.file_pieces import PieceQueue, bodies, open_plain
from flow_executors.errors import BadMessage
from flow_executors.wire.files import (
    LEAST_WINDOW,
    MOST_WINDOW,
    PIECE_BYTES,
    BodyBegun,
    BodyEnded,
    BodyPart,
    Entry,
    Listed,
    SendWindow,
    StreamReader,
    body_digest,
    pack_list,
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

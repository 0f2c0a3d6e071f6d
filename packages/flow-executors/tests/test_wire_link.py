"""The stream between client and interchange, keys, and who is let in."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from flow_core.errors import ConfigurationError, ExecutorError
from flow_executors.client.interchange_process import bind_hosts, listen
from flow_executors.common.loop_waits import BusyPoll
from flow_executors.errors import BadMessage
from flow_executors.htex import HighThroughputExecutor
from flow_executors.interchange.managers import ManagerLiveness
from flow_executors.interchange.state import MAX_BLOBS, BlobRelay
from flow_executors.wire import auth
from flow_executors.wire.auth import BlockSecret, make_pair, read_secret, used_up, write_secret
from flow_executors.wire.messages import pack_blob, unpack_blob
from flow_executors.wire.transport import LinkReader, LinkWriter

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    one, other = socket.socketpair()
    for end in (one, other):
        end.setblocking(False)
    with one, other:
        yield one, other


def exchange(ends: Ends, messages: list[bytes]) -> list[bytes]:
    writer, reader = LinkWriter(ends[0]), LinkReader(ends[1])
    found: list[bytes] = []
    done = writer.write(messages)
    while not done or len(found) < len(messages):
        found += map(bytes, reader.read())
        done = writer.flush()
    assert writer.pending == 0
    assert writer.sent == sum(len(message) + 4 for message in messages)
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=40), st.sampled_from([1, 1, 50, 9000])), max_size=20))
def test_messages_of_any_size_arrive_in_order(parts: list[tuple[bytes, int]]) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        messages = [part * times for part, times in parts]
        assert exchange((one, other), messages) == messages


def test_a_message_that_is_too_long_is_refused_before_there_is_room_made_for_it(ends: Ends) -> None:
    reader = LinkReader(ends[1], 1000)
    ends[0].sendall((1000).to_bytes(4, "little") + bytes(1000))
    assert [bytes(message) for message in reader.read()] == [bytes(1000)]
    ends[0].sendall((1001).to_bytes(4, "little"))
    with pytest.raises(BadMessage, match="1001"):
        reader.read()


def test_a_message_larger_than_any_buffer_arrives(ends: Ends) -> None:
    message = bytes(range(256)) * 8192
    assert exchange(ends, [b"a", message, b"b"]) == [b"a", message, b"b"]


def test_earlier_messages_stay_valid_after_later_reads(ends: Ends) -> None:
    writer, reader = LinkWriter(ends[0]), LinkReader(ends[1])
    writer.write([b"first"])
    (first,) = reader.read()
    writer.write([b"other"])
    reader.read()
    assert bytes(first) == b"first"


def test_the_end_is_seen_after_all_that_was_written(ends: Ends) -> None:
    writer, reader = LinkWriter(ends[0]), LinkReader(ends[1])
    writer.write([b"last"])
    ends[0].close()
    assert [bytes(message) for message in reader.read()] == [b"last"]
    assert not reader.closed
    assert reader.read() == []
    assert reader.closed


def test_an_impossible_length_is_a_bad_message(ends: Ends) -> None:
    ends[0].send(b"\xff\xff\xff\xff12345")
    with pytest.raises(BadMessage, match="out of step"):
        LinkReader(ends[1]).read()


def test_a_secret_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    pair = make_pair()
    secret = BlockSecret("0", make_pair().public, pair)
    path = tmp_path / "keys" / "block"
    write_secret(path, secret.to_bytes())
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert BlockSecret.from_bytes(read_secret(path)) == secret
    assert pair.secret.decode() not in repr(secret)
    path.chmod(0o644)
    with pytest.raises(ExecutorError, match="0600"):
        read_secret(path)


@pytest.mark.parametrize("data", [b"", b"0\na\nb\nc", b"\n\n\n\n\n"])
def test_a_damaged_secret_is_a_bad_message(data: bytes) -> None:
    with pytest.raises(BadMessage, match="damaged"):
        BlockSecret.from_bytes(data)


KEY = b"k" * 32


def request(domain: bytes = b"flow", mechanism: bytes = b"CURVE", key: bytes = KEY) -> list[bytes]:
    return [b"1.0", b"7", domain, b"127.0.0.1", b"", mechanism, key]


def test_a_known_key_is_admitted_under_its_block() -> None:
    assert auth.answer(request(), {KEY: "b0"}) == [b"1.0", b"7", b"200", b"", b"b0", b""]


@pytest.mark.parametrize(
    "wrong",
    [request(key=b"x" * 32), request(domain=b"other"), request(mechanism=b"NULL"), request()[:6], request()[:2]],
)
def test_everything_else_is_turned_away(wrong: list[bytes]) -> None:
    answer = auth.answer(wrong, {KEY: "b0"})
    assert answer is not None
    assert answer[2] == b"400"
    assert auth.answer([b"2.0", b"7"], {}) is None


def test_pieces_of_a_blob_are_kept_until_it_is_whole() -> None:
    blobs, blob = BlobRelay(), bytes(600_000)
    messages = pack_blob(b"d" * 16, blob)
    whole = [blobs.add(unpack_blob(message), message) for message in messages]
    assert whole == [False, False, True]
    assert blobs.get(b"d" * 16) == messages


def test_old_blobs_go_when_there_are_too_many() -> None:
    blobs = BlobRelay(limit=1000)
    for number in range(5):
        digest = bytes([number]) * 16
        (message,) = pack_blob(digest, bytes(400))
        blobs.add(unpack_blob(message), message)
    assert blobs.get(bytes(16)) is None
    assert blobs.get(b"\4" * 16) is not None


def test_only_peers_silent_for_longer_than_the_threshold_are_found() -> None:
    liveness = ManagerLiveness(5.0)
    liveness.heard(b"a", 0.0)
    liveness.heard(b"b", 3.0)
    assert liveness.next_deadline() == 5.0
    assert liveness.silent(5.5) == [b"a"]
    liveness.heard(b"a", 6.0)
    assert liveness.silent(8.5) == [b"b"]
    liveness.forgive(9.0)
    assert liveness.silent(9.0) == []
    liveness.forgive(20.0, lenient_until=30.0)
    assert liveness.next_deadline() == 30.0
    assert liveness.silent(29.9) == []
    assert sorted(liveness.silent(30.0)) == [b"a", b"b"]
    liveness.heard(b"a", 30.0)
    assert liveness.silent(34.0) == [b"b"]


def spin_for(spin: BusyPoll, now: float, looks: int) -> int:
    """Let events come every 400 us; return how often the next look was not to sleep."""
    spent = 0
    for _ in range(looks):
        spin.after(now, True, True)
        if spin.wanted(now + 0.0001):
            spent += 1
            spin.after(now + 0.0003, False, True)
        now += 0.0004
    return spent


def test_spinning_needs_two_cpus_and_recent_events() -> None:
    alone, spin = BusyPoll(1, lambda: 0), BusyPoll(2, lambda: 0)
    for one in (alone, spin):
        one.after(10.0, True, True)
    assert not alone.wanted(10.0001)
    assert spin.wanted(10.0001)
    assert not spin.wanted(10.01)


def test_spinning_takes_no_more_than_a_tenth_of_the_time() -> None:
    assert 100 < spin_for(BusyPoll(2, lambda: 0), 10.0, 2000) < 1200


def test_spinning_stops_where_the_cpu_is_wanted_by_others() -> None:
    taken = iter(range(0, 10**6, 100))
    spin = BusyPoll(2, lambda: next(taken))
    assert spin_for(spin, 10.0, 2000) < 250
    assert spin_for(spin, 15.0, 100) == 0
    assert spin_for(spin, 25.0, 100) > 0


def test_where_to_listen_follows_from_the_addresses() -> None:
    assert bind_hosts(("127.0.0.1",)) == ("127.0.0.1",)
    assert bind_hosts(("::1",)) == ("::1",)
    assert bind_hosts(("127.0.0.1", "10.0.0.1")) == ("0.0.0.0",)
    assert bind_hosts(("10.0.0.1",)) == ("10.0.0.1", "0.0.0.0")
    assert bind_hosts(("login1.example.org",)) == ("0.0.0.0",)
    assert bind_hosts(("fe80::1",)) == ("fe80::1", "::")


def test_one_address_is_listened_at_alone_if_it_is_of_this_machine() -> None:
    for first, taken in (("127.0.0.2", "127.0.0.2"), ("203.0.113.1", "127.0.0.1")):
        host, made = listen((first, "127.0.0.1"), None, (54000, 55000), "htex")
        with made:
            assert host == made.getsockname()[0] == taken


def test_an_address_of_another_machine_cannot_be_listened_at() -> None:
    with pytest.raises(ExecutorError, match=r"203\.0\.113\.1"):
        listen(("203.0.113.1",), None, (54000, 55000), "htex")


def test_the_repr_of_an_executor_makes_an_equal_one() -> None:
    text = repr(HighThroughputExecutor(label="x", max_workers=3))
    assert text.startswith("HighThroughputExecutor(")
    assert "max_workers=3" in text
    assert "cores_per_worker=1.0" in text


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"cores_per_worker": 0}, "cores_per_worker"),
        ({"label": "a/b"}, "label"),
        ({"prefetch_capacity": -1}, "prefetch_capacity"),
        ({"worker_ports": "54000"}, "worker_ports"),
        ({"provider": "local"}, "provider"),
        ({"manager_selector": "best"}, "manager_selector"),
    ],
)
def test_an_impossible_option_is_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        HighThroughputExecutor(**options)  # type: ignore[arg-type]  # the point


def test_both_names_of_max_workers_mean_the_same() -> None:
    executor = HighThroughputExecutor(max_workers_per_node=3)
    assert executor.max_workers == 3
    executor.max_workers_per_node = 4
    assert executor.max_workers == 4


def test_of_very_many_blobs_the_newest_are_kept() -> None:
    blobs = BlobRelay()
    names = [number.to_bytes(16, "little") for number in range(MAX_BLOBS + 10)]
    for name in names:
        for message in pack_blob(name, b"version"):
            blobs.add(unpack_blob(message), bytes(message))
    assert [blobs.get(names[number]) is not None for number in (0, 9, 10, MAX_BLOBS + 9)] == [False, False, True, True]


def test_a_key_is_gone_when_its_last_reader_has_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.secrets" / "key"
    for readers in (1, 3):
        write_secret(path, b"secret")
        for reader in range(readers):
            assert path.exists()
            monkeypatch.setattr("os.getpid", lambda reader=reader: 1000 + reader)
            used_up(path, readers)
        assert not path.parent.exists()
    with pytest.raises(ExecutorError, match="is gone: it is removed when"):
        read_secret(path)
    write_secret(path, b"secret")
    used_up(path, 0)
    assert path.exists()

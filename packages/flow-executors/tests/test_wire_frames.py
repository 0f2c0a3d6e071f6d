"""Every message comes back as it was packed, and nothing that is fed to a parser raises anything but BadMessage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from flow_core.interfaces.call import Resources, TaskSpec, TryKey
from flow_core.interfaces.outcome import Loss, LossKind, Place, Usage, Verdict
from flow_core.interfaces.sampler import Sample
from flow_executors.errors import BadMessage, VersionMismatch
from flow_executors.wire import frames
from flow_executors.wire.frames import Kind
from flow_executors.wire.versions import HIGHEST, LOWEST, agree, same_python

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
DIGEST = st.binary(min_size=16, max_size=16)
GOLDEN = Path(__file__).parent / "golden" / "v1.txt"

TASKS = frames.pack_tasks(7, [b"d" * 16], [1, 2**63], [3, 2], b"abcde")
REGISTRATION = frames.Registration("m1", "0", "node1", 42, 2, 8, 2.0, named=(("licence", 1.0),), python="3.11.2")
LOSS = Loss(LossKind.WORKER, Place("x", pid=9), None, 9, "killed", "tail")
SAMPLE = Sample(5, TryKey(3), 9, 1, 50.0, 1.0, 0.5, 100, 0.1, 7, 8, 0, 0)

EXAMPLES: dict[str, bytes] = {
    "tasks": TASKS,
    "returned": frames.pack_tasks(0, [], [], [], b"", kind=Kind.RETURNED, last=True),
    "record": frames.pack_record(b"d" * 16, 5, 7, b"payload", [frames.BufferRef(b"b" * 16, 64, 10, "/dev/shm/x")]),
    "results": frames.pack_results(3, 9, -5, [1, 2], [10, 20], [11, 21], [0, 1], b"\x00\x02", [b"", b"loss"]),
    "blob": frames.pack_blob(b"d" * 16, b"body")[0],
    "need": frames.pack_need([b"d" * 16]),
    "heartbeat": frames.pack_beat(frames.Beat(3, 99, -5, (1,), (98,), (0,))),
    "credit": frames.pack_credit(frames.Credit(1, 2, 3, 4)),
    "ack": frames.pack_ack(9),
    "cancel": frames.pack_cancel([1, 2], True),
    "recall": frames.pack_recall(frames.ALL),
    "drain": frames.pack_drain(frames.DrainMode.DRAIN),
    "exit": frames.pack_exit(frames.ExitCode.DECLARED_LOST, "silent"),
    "again": frames.pack_again(),
    "hello": frames.pack_hello(frames.Introduction("manager", "run", "3.11.2", "0.1.0", 42)),
    "register": frames.pack_register(3, REGISTRATION, [1, 2]),
    "worker": frames.pack_worker(3, 1, 4_194_304),
    "welcome": frames.pack_welcome(frames.Welcome(3, 99, 30.0, 120.0)),
    "left": frames.pack_left(frames.Departure(3, "m1", "0", "node1", "gone", True)),
    "spec": frames.pack_spec(7, TaskSpec(Resources(cores=2.0, named=(("a", 1.0),)), 3, walltime_s=1.5)),
    "command": frames.pack_command(frames.Command(1, "drain", ("0",), (), 2.5)),
    "reply": frames.pack_reply(frames.Reply(1, (frames.BlockActivity("0", ("m1",), ("n",), 2, 0, 1.5),))),
    "keys": frames.pack_keys(frames.KeyChange((("k" * 40, "0"),), ("1",))),
    "samples": frames.pack_samples(3, [SAMPLE], 1),
    "loss": frames.pack_loss(LOSS),
    "lane": frames.pack_lane(frames.LaneOffer(3, 1, 4_194_304, 7, 9, 2**40, 2**41)),
    "claim": frames.pack_claim(frames.Claim(1, 4_194_304, True, (5, 2**63), 1.5)),
    "taken": frames.pack_taken(frames.TakenBack(3, 1, 4_194_304, (5, 2**63))),
    "fallen": frames.pack_fallen(frames.FallenWorker(3, 1, 4_194_304, Verdict.LOST, b"loss")),
    "usage": frames.pack_usage(Usage(1.0, 0.5, 100, 1, 2)),
}

PARSERS = [
    frames.unpack_tasks,
    frames.unpack_record,
    frames.unpack_results,
    frames.result_head,
    frames.unpack_blob,
    frames.unpack_need,
    frames.unpack_beat,
    frames.unpack_credit,
    lambda data: frames.unpack_count(data, Kind.ACK),
    lambda data: frames.unpack_count(data, Kind.RECALL),
    frames.unpack_cancel,
    frames.unpack_drain,
    frames.unpack_exit,
    frames.unpack_hello,
    frames.unpack_register,
    frames.unpack_worker,
    frames.unpack_welcome,
    frames.unpack_left,
    frames.unpack_spec,
    frames.unpack_command,
    frames.unpack_reply,
    frames.unpack_keys,
    frames.unpack_lane,
    frames.unpack_claim,
    frames.unpack_taken,
    frames.unpack_fallen,
    frames.unpack_samples,
    lambda data: frames.unpack_loss(data, None),
    lambda data: frames.unpack_usage(memoryview(data)),
    lambda data: frames.unpack_buffers(memoryview(data)),
    frames.kind_of,
]


@given(U32, st.lists(DIGEST, max_size=3), st.lists(st.tuples(U64, st.binary(max_size=20)), max_size=20), st.booleans())
def test_a_batch_of_tasks_comes_back_as_it_was_packed(
    class_id: int, digests: list[bytes], tasks: list[tuple[int, bytes]], last: bool
) -> None:
    keys, records = [key for key, _ in tasks], [record for _, record in tasks]
    message = frames.pack_tasks(class_id, digests, keys, list(map(len, records)), b"".join(records), last=last)
    batch = frames.unpack_tasks(message)
    assert (batch.class_id, batch.digests, batch.keys, batch.last) == (class_id, tuple(digests), tuple(keys), last)
    assert [bytes(record) for record in batch.records()] == records


@given(
    DIGEST,
    U64,
    U32,
    st.binary(max_size=50),
    st.lists(st.builds(frames.BufferRef, DIGEST, U64, U64, st.text(max_size=9).filter(str.isprintable)), max_size=3),
)
def test_a_task_record_comes_back_as_it_was_packed(
    digest: bytes, key: int, class_id: int, payload: bytes, buffers: list[frames.BufferRef]
) -> None:
    record = frames.unpack_record(frames.pack_record(digest, key, class_id, payload, buffers))
    assert (record.digest, record.key, record.class_id, bytes(record.payload)) == (digest, key, class_id, payload)
    assert record.buffers == tuple(buffers)


@given(
    U32,
    U32,
    I64,
    st.lists(st.tuples(U64, I64, I64, st.integers(0, 65535), st.integers(0, 255), st.binary(max_size=20)), max_size=20),
)
def test_a_batch_of_results_comes_back_as_it_was_packed(
    manager: int, sequence: int, offset: int, rows: list[tuple[int, int, int, int, int, bytes]]
) -> None:
    keys, starts, ends, workers, statuses, payloads = (
        (list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 6
    )
    message = frames.pack_results(manager, sequence, offset, keys, starts, ends, workers, statuses, payloads)
    batch = frames.unpack_results(message)
    assert (batch.manager, batch.sequence, batch.offset_ns) == (manager, sequence, offset)
    assert [batch.keys, batch.starts, batch.ends, batch.workers] == [
        tuple(keys),
        tuple(starts),
        tuple(ends),
        tuple(workers),
    ]
    assert batch.statuses == bytes(statuses)
    assert [bytes(payload) for payload in batch.payloads()] == payloads
    assert frames.result_head(message) == (manager, sequence, tuple(keys))


@given(st.binary(max_size=700_000 // 1000), st.integers(1, 3))
def test_a_blob_is_whole_when_its_pieces_are_joined(start: bytes, times: int) -> None:
    blob = start * 997 * times
    pieces = [frames.unpack_blob(message) for message in frames.pack_blob(b"d" * 16, blob)]
    assert b"".join(piece.piece for piece in pieces) == blob
    assert all(piece.total == len(blob) and len(piece.piece) <= frames.PIECE for piece in pieces)


@given(st.lists(DIGEST, max_size=5), st.lists(U64, max_size=9), st.booleans(), U32, st.sampled_from(frames.DrainMode))
def test_control_messages_come_back(
    digests: list[bytes], keys: list[int], kill: bool, count: int, mode: frames.DrainMode
) -> None:
    assert frames.unpack_need(frames.pack_need(digests)) == tuple(digests)
    assert frames.unpack_cancel(frames.pack_cancel(keys, kill)) == (tuple(keys), kill)
    assert frames.unpack_count(frames.pack_ack(count), Kind.ACK) == count
    assert frames.unpack_count(frames.pack_recall(count), Kind.RECALL) == count
    assert frames.unpack_drain(frames.pack_drain(mode)) is mode


@given(U32, I64, I64, st.lists(st.tuples(U64, I64, st.integers(0, 65535)), max_size=9))
def test_heartbeats_come_back_with_their_starts(
    manager: int, sent: int, offset: int, rows: list[tuple[int, int, int]]
) -> None:
    columns = [tuple(column) for column in zip(*rows, strict=True)] if rows else [(), (), ()]
    beat = frames.Beat(manager, sent, offset, *columns)
    assert frames.unpack_beat(frames.pack_beat(beat)) == beat
    assert frames.unpack_beat(frames.pack_beat(beat, Kind.STARTED)) == beat


def test_a_registration_comes_back_with_number_and_keys() -> None:
    assert frames.unpack_register(EXAMPLES["register"]) == (3, REGISTRATION, (1, 2))


@given(U32, U32, st.booleans(), st.lists(U64, max_size=5), st.integers(0, 2**32 - 1))
def test_a_claim_comes_back(rank: int, pid: int, claimed: bool, keys: list[int], age_ms: int) -> None:
    claim = frames.Claim(rank, pid, claimed, tuple(keys), age_ms / 1000)
    found = frames.unpack_claim(frames.pack_claim(claim))
    assert replace(found, age_s=claim.age_s) == claim
    assert abs(found.age_s - claim.age_s) < 0.0011


@given(U32, U32, st.lists(U64, max_size=5))
def test_what_was_taken_back_comes_back(rank: int, pid: int, keys: list[int]) -> None:
    taken = frames.TakenBack(3, rank, pid, tuple(keys))
    assert frames.unpack_taken(frames.pack_taken(taken)) == taken


@given(U32, U32, st.sampled_from(Verdict), st.binary(max_size=30))
def test_a_fallen_worker_comes_back(rank: int, pid: int, verdict: Verdict, payload: bytes) -> None:
    fallen = frames.FallenWorker(3, rank, pid, verdict, payload)
    assert frames.unpack_fallen(frames.pack_fallen(fallen)) == fallen


def test_what_is_no_verdict_is_no_fallen_worker() -> None:
    message = bytearray(EXAMPLES["fallen"])
    message[1] = 77
    with pytest.raises(BadMessage, match="77"):
        frames.unpack_fallen(message)


def test_a_lane_comes_back() -> None:
    assert frames.unpack_lane(EXAMPLES["lane"]) == frames.LaneOffer(3, 1, 4_194_304, 7, 9, 2**40, 2**41)


def test_a_replaced_worker_comes_back() -> None:
    assert frames.unpack_worker(EXAMPLES["worker"]) == (3, 1, 4_194_304)


def test_a_task_spec_comes_back_equal() -> None:
    spec = TaskSpec(Resources(cores=0.5, memory_mb=10, named=(("a", 2.0),)), -1, 3.0, None, (("A", "b"),), "img")
    assert frames.unpack_spec(frames.pack_spec(9, spec)) == (9, spec)


def test_a_task_spec_that_asks_for_less_than_nothing_is_refused() -> None:
    with pytest.raises(BadMessage, match="less than nothing"):
        frames.unpack_spec(frames.pack_spec(9, TaskSpec(Resources(gpus=-1.0))))


def test_a_loss_comes_back_with_the_pid_of_its_worker() -> None:
    assert frames.unpack_loss(frames.pack_loss(LOSS), Place("x", worker=1)) == Loss(
        LossKind.WORKER, Place("x", worker=1, pid=9), None, 9, "killed", "tail"
    )


def test_samples_and_commands_come_back() -> None:
    assert frames.unpack_samples(EXAMPLES["samples"]) == (3, (SAMPLE,), 1)


def test_network_traffic_that_is_not_known_is_left_out_since_older_readers_take_none_there() -> None:
    unknown = replace(SAMPLE, net_sent=None, net_received=None)
    message = frames.pack_samples(3, [unknown, SAMPLE])
    assert b"null" not in message
    assert frames.unpack_samples(message) == (3, (unknown, SAMPLE), 0)
    assert frames.unpack_command(EXAMPLES["command"]) == frames.Command(1, "drain", ("0",), (), 2.5)
    assert frames.unpack_reply(EXAMPLES["reply"]).blocks[0].idle_for_s == 1.5


def test_unknown_fields_of_a_newer_version_are_ignored_and_missing_ones_take_their_default() -> None:
    body = b'{"manager":1,"time_ns":2,"heartbeat_period_s":1,"heartbeat_threshold_s":2.5,"colour":"red"}'
    assert frames.unpack_welcome(bytes((Kind.WELCOME,)) + body) == frames.Welcome(1, 2, 1.0, 2.5)


@pytest.mark.parametrize("body", [b"[]", b"1", b"{}", b"{", b"\xff", b'{"manager":NaN}', b"[" * 100_000])
def test_json_that_is_no_such_record_is_a_bad_message(body: bytes) -> None:
    with pytest.raises(BadMessage):
        frames.unpack_welcome(bytes((Kind.WELCOME,)) + body)


def test_versions_settle_on_the_highest_common_one() -> None:
    assert agree(LOWEST, HIGHEST + 5, "manager") == HIGHEST
    with pytest.raises(VersionMismatch, match="speaks versions"):
        agree(HIGHEST + 1, HIGHEST + 2, "manager")


def test_python_versions_must_agree_in_major_and_minor_number_only() -> None:
    same_python("3.11.2", "3.11.9", "manager")
    with pytest.raises(VersionMismatch, match="worker_init"):
        same_python("3.12.1", "3.11.9", "manager")


@pytest.mark.parametrize("parser", PARSERS)
@given(data=st.data())
def test_parsers_raise_nothing_but_bad_message(parser: object, data: st.DataObject) -> None:
    assert callable(parser)
    mangled = bytearray(data.draw(st.sampled_from(sorted(EXAMPLES.values()))))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4)):
        mangled[at % len(mangled)] = value
    cut = data.draw(st.integers(0, len(mangled)))
    for message in (
        bytes(mangled),
        bytes(mangled[:cut]),
        bytes(mangled) + bytes(cut),
        data.draw(st.binary(max_size=60)),
    ):
        try:
            parser(message)
        except BadMessage:
            pass


def test_the_bytes_of_version_1_never_change() -> None:
    lines = [line.split(" ") for line in GOLDEN.read_text().splitlines()]
    assert {name: bytes.fromhex(text) for name, text in lines} == EXAMPLES

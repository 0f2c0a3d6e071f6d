"""Every message comes back as it was packed, and nothing that is fed to a parser raises anything but BadMessage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from flow_core.interfaces.call import Resources, TaskSpec, TryKey
from flow_core.interfaces.container import Container
from flow_core.interfaces.outcome import Loss, LossKind, Place, Usage, Verdict
from flow_core.interfaces.sampler import Sample
from flow_executors.common.task_ranks import RankPlace, RankPlacement
from flow_executors.errors import BadMessage, VersionMismatch
from flow_executors.wire.commands import (
    BlockActivity,
    Command,
    KeyChange,
    Reply,
    pack_command,
    pack_keys,
    pack_reply,
    unpack_command,
    unpack_keys,
    unpack_reply,
)
from flow_executors.wire.direct_messages import (
    DirectChannelOffer,
    TakenBack,
    WorkerDied,
    WorkerLease,
    pack_channel_offer,
    pack_claim,
    pack_taken,
    pack_worker_died,
    unpack_channel_offer,
    unpack_claim,
    unpack_taken,
    unpack_worker_died,
)
from flow_executors.wire.files import (
    Ending,
    Entry,
    FileStep,
    TransferDirection,
    asked_key,
    body_digest,
    pack_ask,
    pack_ending,
    pack_ends,
    pack_file,
    pack_head,
    pack_list,
    pack_progress,
    pack_small,
    pack_want,
    unpack_ending,
    unpack_ends,
    unpack_file,
    unpack_progress,
    unpack_want,
)
from flow_executors.wire.kinds import Kind, kind_of
from flow_executors.wire.messages import (
    ALL,
    HIGHEST,
    LOWEST,
    PIECE,
    Credit,
    DrainMode,
    ExitCode,
    Heartbeat,
    ManagerLeft,
    PeerInfo,
    Registration,
    Welcome,
    agree,
    pack_ack,
    pack_again,
    pack_blob,
    pack_cancel,
    pack_credit,
    pack_drain,
    pack_exit,
    pack_heartbeat,
    pack_hello,
    pack_left,
    pack_loss,
    pack_need,
    pack_recall,
    pack_register,
    pack_samples,
    pack_spec,
    pack_welcome,
    pack_worker,
    same_python,
    unpack_blob,
    unpack_cancel,
    unpack_count,
    unpack_credit,
    unpack_drain,
    unpack_exit,
    unpack_heartbeat,
    unpack_hello,
    unpack_left,
    unpack_loss,
    unpack_need,
    unpack_register,
    unpack_samples,
    unpack_spec,
    unpack_welcome,
    unpack_worker,
)
from flow_executors.wire.ranks import (
    Part,
    Parts,
    RemoteExit,
    RemoteStart,
    RemoteStep,
    from_manager,
    pack_break,
    pack_exit_status,
    pack_placement,
    pack_release,
    pack_remote,
    pack_reserve,
    pack_start,
    pack_taken_bytes,
    unpack_break,
    unpack_exit_status,
    unpack_placement,
    unpack_release,
    unpack_remote,
    unpack_reserve,
    unpack_start,
    unpack_taken_bytes,
)
from flow_executors.wire.results import pack_results, pack_usage, result_head, unpack_results, unpack_usage
from flow_executors.wire.tasks import BufferRef, pack_record, pack_tasks, unpack_buffers, unpack_record, unpack_tasks

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
DIGEST = st.binary(min_size=16, max_size=16)
GOLDEN = Path(__file__).parent / "golden" / "v2.txt"

TASKS = pack_tasks(7, [b"d" * 16], [1, 2**63], [3, 2], b"abcde")
REGISTRATION = Registration("m1", "0", "node1", 42, 2, 8, 2.0, named=(("licence", 1.0),), python="3.11.2")
LOSS = Loss(LossKind.WORKER, Place("x", pid=9), None, 9, "killed", "tail")
SAMPLE = Sample(5, TryKey(3), 9, 1, 50.0, 1.0, 0.5, 100, 0.1, 7, 8, 0, 0)

EXAMPLES: dict[str, bytes] = {
    "tasks": TASKS,
    "returned": pack_tasks(0, [], [], [], b"", kind=Kind.RETURNED, last=True),
    "record": pack_record(b"d" * 16, 5, 7, b"payload", [BufferRef(b"b" * 16, 64, 10, "/dev/shm/x")]),
    "results": pack_results(3, 9, -5, [1, 2], [10, 20], [11, 21], [0, 1], b"\x00\x02", [b"", b"loss"]),
    "blob": pack_blob(b"d" * 16, b"body")[0],
    "need": pack_need([b"d" * 16]),
    "heartbeat": pack_heartbeat(Heartbeat(3, 99, -5, (1,), (98,), (0,))),
    "credit": pack_credit(Credit(1, 2, 3, 4)),
    "ack": pack_ack(9),
    "cancel": pack_cancel([1, 2], True),
    "recall": pack_recall(ALL),
    "drain": pack_drain(DrainMode.DRAIN),
    "exit": pack_exit(ExitCode.DECLARED_LOST, "silent"),
    "again": pack_again(),
    "hello": pack_hello(PeerInfo("manager", "run", "3.11.2", "0.1.0", 42)),
    "register": pack_register(3, REGISTRATION, [1, 2]),
    "hello-with-marker": pack_hello(PeerInfo("interchange", "run", "3.11.2", "0.1.1", 42, "/run/marker", "d" * 32)),
    "register-apart": pack_register(3, replace(REGISTRATION, sees_run=False), [1, 2]),
    "worker": pack_worker(3, 1, 4_194_304),
    "welcome": pack_welcome(Welcome(3, 99, 30.0, 120.0)),
    "left": pack_left(ManagerLeft(3, "m1", "0", "node1", "gone", True)),
    "spec": pack_spec(7, TaskSpec(Resources(cores=2.0, named=(("a", 1.0),)), 3, walltime_s=1.5)),
    "command": pack_command(Command(1, "drain", ("0",), (), 2.5)),
    "reply": pack_reply(Reply(1, (BlockActivity("0", ("m1",), ("n",), 2, 0, 1.5),))),
    "keys": pack_keys(KeyChange((("k" * 40, "0"),), ("1",))),
    "samples": pack_samples(3, [SAMPLE], 1),
    "loss": pack_loss(LOSS),
    "lane": pack_channel_offer(DirectChannelOffer(3, 1, 4_194_304, 7, 9, 2**40, 2**41)),
    "claim": pack_claim(WorkerLease(1, 4_194_304, True, (5, 2**63), 1.5)),
    "taken": pack_taken(TakenBack(3, 1, 4_194_304, (5, 2**63))),
    "fallen": pack_worker_died(WorkerDied(3, 1, 4_194_304, Verdict.LOST, b"loss")),
    "usage": pack_usage(Usage(1.0, 0.5, 100, 1, 2)),
    "file-ask": pack_ask(3, 9, 2**63, TransferDirection.OUT),
    "file-want": pack_file(FileStep.WANT, 3, 9, pack_want([(1, 0), (2, 2**40)])),
    "file-data": pack_file(FileStep.DATA, 3, 9, pack_head(1, 2, 4) + b"body" + body_digest(b"body")),
    "file-list": pack_file(FileStep.DATA, 3, 9, pack_list([Entry(0, "a/b", "f", 4, 0o644, "1.2")])),
    "file-want-packed": pack_file(FileStep.WANT_PACKED, 3, 9, pack_want([(1, 0)])),
    "file-list-packs": pack_file(FileStep.DATA, 3, 9, pack_list([Entry(0, "a/b", "f", 4, 0o644, "1.2")], packs=True)),
    "file-small": pack_file(FileStep.DATA, 3, 9, pack_small([(1, 4), (2, 0)], b"body")),
    "file-progress": pack_file(FileStep.PROGRESS, 3, 9, pack_progress(4, 2**20)),
    "file-end": pack_file(FileStep.END, 3, 9, pack_ending(Ending("gone", ("a",), "b"))),
    "spec-of-ranks": pack_spec(
        7,
        TaskSpec(Resources(nodes=2, ranks_per_node=3, ranks=5, cores_per_rank=2.0, gpus_per_rank=0.5, exclusive=True)),
    ),
    "register-with-ranks": pack_register(3, replace(REGISTRATION, ranks=1), [1, 2]),
    "placement": pack_placement(
        2**63, RankPlacement((RankPlace(3, "n1", 2, 4), RankPlace(4, "n2", 1, 2, (0,), ("1",))))
    ),
    "reserve": pack_reserve(Parts((Part(2**63, 3, 2, 100, 0.5, 4),), True)),
    "release": pack_release([1, 2**63]),
    "break": pack_break(2**63, pack_loss(LOSS)),
    "remote-start": pack_remote(
        RemoteStep.START, 4, 2**63, 1, pack_start(RemoteStart(("orted", "-x"), (("A", "b"),), "/tmp"))
    ),
    "remote-stdout": pack_remote(RemoteStep.STDOUT, 3, 2**63, 1, b"text"),
    "remote-credit": pack_remote(RemoteStep.CREDIT, 4, 2**63, 1, pack_taken_bytes(RemoteStep.STDOUT, 4)),
    "remote-exit": pack_remote(RemoteStep.EXIT, 3, 2**63, 1, pack_exit_status(RemoteExit(-9, "gone"))),
    "remote-kill": pack_remote(RemoteStep.KILL, 4, 2**63, 1),
    "file-stop": pack_file(FileStep.STOP, 3, 9),
    "file-ends": pack_file(FileStep.ENDS, 3, 0, pack_ends({"manager.log": "end"})),
}

PARSERS = [
    asked_key,
    lambda data: unpack_want(unpack_file(data).body),
    lambda data: unpack_progress(unpack_file(data).body),
    lambda data: unpack_ending(unpack_file(data).body),
    lambda data: unpack_ends(unpack_file(data).body),
    unpack_placement,
    unpack_reserve,
    unpack_release,
    unpack_break,
    lambda data: unpack_start(unpack_remote(data).body),
    lambda data: unpack_exit_status(unpack_remote(data).body),
    lambda data: unpack_taken_bytes(unpack_remote(data).body),
    unpack_tasks,
    unpack_record,
    unpack_results,
    result_head,
    unpack_blob,
    unpack_need,
    unpack_heartbeat,
    unpack_credit,
    lambda data: unpack_count(data, Kind.ACK),
    lambda data: unpack_count(data, Kind.RECALL),
    unpack_cancel,
    unpack_drain,
    unpack_exit,
    unpack_hello,
    unpack_register,
    unpack_worker,
    unpack_welcome,
    unpack_left,
    unpack_spec,
    unpack_command,
    unpack_reply,
    unpack_keys,
    unpack_channel_offer,
    unpack_claim,
    unpack_taken,
    unpack_worker_died,
    unpack_samples,
    lambda data: unpack_loss(data, None),
    lambda data: unpack_usage(memoryview(data)),
    lambda data: unpack_buffers(memoryview(data)),
    kind_of,
]


@given(U32, st.lists(DIGEST, max_size=3), st.lists(st.tuples(U64, st.binary(max_size=20)), max_size=20), st.booleans())
def test_a_batch_of_tasks_comes_back_as_it_was_packed(
    class_id: int, digests: list[bytes], tasks: list[tuple[int, bytes]], last: bool
) -> None:
    keys, records = [key for key, _ in tasks], [record for _, record in tasks]
    message = pack_tasks(class_id, digests, keys, list(map(len, records)), b"".join(records), last=last)
    batch = unpack_tasks(message)
    assert (batch.class_id, batch.digests, batch.keys, batch.last) == (class_id, tuple(digests), tuple(keys), last)
    assert [bytes(record) for record in batch.records()] == records


@given(
    DIGEST,
    U64,
    U32,
    st.binary(max_size=50),
    st.lists(st.builds(BufferRef, DIGEST, U64, U64, st.text(max_size=9).filter(str.isprintable)), max_size=3),
)
def test_a_task_record_comes_back_as_it_was_packed(
    digest: bytes, key: int, class_id: int, payload: bytes, buffers: list[BufferRef]
) -> None:
    record = unpack_record(pack_record(digest, key, class_id, payload, buffers))
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
    message = pack_results(manager, sequence, offset, keys, starts, ends, workers, statuses, payloads)
    batch = unpack_results(message)
    assert (batch.manager, batch.sequence, batch.offset_ns) == (manager, sequence, offset)
    assert [batch.keys, batch.starts, batch.ends, batch.workers] == [
        tuple(keys),
        tuple(starts),
        tuple(ends),
        tuple(workers),
    ]
    assert batch.statuses == bytes(statuses)
    assert [bytes(payload) for payload in batch.payloads()] == payloads
    assert result_head(message) == (manager, sequence, tuple(keys))


@given(st.binary(max_size=700_000 // 1000), st.integers(1, 3))
def test_a_blob_is_whole_when_its_pieces_are_joined(start: bytes, times: int) -> None:
    blob = start * 997 * times
    pieces = [unpack_blob(message) for message in pack_blob(b"d" * 16, blob)]
    assert b"".join(piece.piece for piece in pieces) == blob
    assert all(piece.total == len(blob) and len(piece.piece) <= PIECE for piece in pieces)


@given(st.lists(DIGEST, max_size=5), st.lists(U64, max_size=9), st.booleans(), U32, st.sampled_from(DrainMode))
def test_control_messages_come_back(
    digests: list[bytes], keys: list[int], kill: bool, count: int, mode: DrainMode
) -> None:
    assert unpack_need(pack_need(digests)) == tuple(digests)
    assert unpack_cancel(pack_cancel(keys, kill)) == (tuple(keys), kill)
    assert unpack_count(pack_ack(count), Kind.ACK) == count
    assert unpack_count(pack_recall(count), Kind.RECALL) == count
    assert unpack_drain(pack_drain(mode)) is mode


@given(U32, I64, I64, st.lists(st.tuples(U64, I64, st.integers(0, 65535)), max_size=9))
def test_heartbeats_come_back_with_their_starts(
    manager: int, sent: int, offset: int, rows: list[tuple[int, int, int]]
) -> None:
    columns = [tuple(column) for column in zip(*rows, strict=True)] if rows else [(), (), ()]
    beat = Heartbeat(manager, sent, offset, *columns)
    assert unpack_heartbeat(pack_heartbeat(beat)) == beat
    assert unpack_heartbeat(pack_heartbeat(beat, Kind.STARTED)) == beat


def test_a_registration_comes_back_with_number_and_keys() -> None:
    assert unpack_register(EXAMPLES["register"]) == (3, REGISTRATION, (1, 2))


@given(U32, U32, st.booleans(), st.lists(U64, max_size=5), st.integers(0, 2**32 - 1))
def test_a_claim_comes_back(rank: int, pid: int, claimed: bool, keys: list[int], age_ms: int) -> None:
    claim = WorkerLease(rank, pid, claimed, tuple(keys), age_ms / 1000)
    found = unpack_claim(pack_claim(claim))
    assert replace(found, age_s=claim.age_s) == claim
    assert abs(found.age_s - claim.age_s) < 0.0011


@given(U32, U32, st.lists(U64, max_size=5))
def test_what_was_taken_back_comes_back(rank: int, pid: int, keys: list[int]) -> None:
    taken = TakenBack(3, rank, pid, tuple(keys))
    assert unpack_taken(pack_taken(taken)) == taken


@given(U32, U32, st.sampled_from(Verdict), st.binary(max_size=30))
def test_a_fallen_worker_comes_back(rank: int, pid: int, verdict: Verdict, payload: bytes) -> None:
    worker_loss = WorkerDied(3, rank, pid, verdict, payload)
    assert unpack_worker_died(pack_worker_died(worker_loss)) == worker_loss


def test_what_is_no_verdict_is_no_fallen_worker() -> None:
    message = bytearray(EXAMPLES["fallen"])
    message[1] = 77
    with pytest.raises(BadMessage, match="77"):
        unpack_worker_died(message)


def test_a_lane_comes_back() -> None:
    assert unpack_channel_offer(EXAMPLES["lane"]) == DirectChannelOffer(3, 1, 4_194_304, 7, 9, 2**40, 2**41)


def test_messages_of_tasks_of_ranks_come_back() -> None:
    places = RankPlacement((RankPlace(3, "n1", 2, 4), RankPlace(4, "n2", 1, 2, (0,), ("1",))))
    assert unpack_placement(EXAMPLES["placement"]) == (2**63, places)
    assert unpack_reserve(EXAMPLES["reserve"]) == Parts((Part(2**63, 3, 2, 100, 0.5, 4),), True)
    assert unpack_release(EXAMPLES["release"]) == (1, 2**63)
    assert unpack_break(EXAMPLES["break"]) == (2**63, pack_loss(LOSS))
    start = unpack_remote(EXAMPLES["remote-start"])
    assert (start.step, start.manager, start.key, start.stream) == (RemoteStep.START, 4, 2**63, 1)
    assert unpack_start(start.body) == RemoteStart(("orted", "-x"), (("A", "b"),), "/tmp")
    assert unpack_taken_bytes(unpack_remote(EXAMPLES["remote-credit"]).body) == (RemoteStep.STDOUT, 4)
    assert unpack_exit_status(unpack_remote(EXAMPLES["remote-exit"]).body) == RemoteExit(-9, "gone")


def test_a_relayed_message_names_the_manager_that_it_comes_of() -> None:
    message = unpack_remote(from_manager(EXAMPLES["remote-stdout"], 9))
    assert (message.manager, message.step, message.key, bytes(message.body)) == (9, RemoteStep.STDOUT, 2**63, b"text")


@pytest.mark.parametrize("ranks", [0, -1, 10**9])
def test_a_specification_of_impossible_ranks_is_refused(ranks: int) -> None:
    with pytest.raises(BadMessage, match="ranks"):
        unpack_spec(pack_spec(9, TaskSpec(Resources(ranks=ranks))))


def test_a_task_without_ranks_is_packed_as_before_there_were_any() -> None:
    assert b"rank" not in pack_spec(7, TaskSpec(Resources(cores=2.0))).replace(b"ranks_per_node", b"")
    assert b"ranks" not in EXAMPLES["register"]


def test_a_replaced_worker_comes_back() -> None:
    assert unpack_worker(EXAMPLES["worker"]) == (3, 1, 4_194_304)


def test_a_task_spec_comes_back_equal() -> None:
    spec = TaskSpec(
        Resources(cores=0.5, memory_mb=10, named=(("a", 2.0),)), -1, 3.0, None, (("A", "b"),), Container("img")
    )
    assert unpack_spec(pack_spec(9, spec)) == (9, spec)


def test_a_task_spec_that_asks_for_less_than_nothing_is_refused() -> None:
    with pytest.raises(BadMessage, match="less than nothing"):
        unpack_spec(pack_spec(9, TaskSpec(Resources(gpus=-1.0))))


def test_a_loss_comes_back_with_the_pid_of_its_worker() -> None:
    assert unpack_loss(pack_loss(LOSS), Place("x", worker=1)) == Loss(
        LossKind.WORKER, Place("x", worker=1, pid=9), None, 9, "killed", "tail"
    )


def test_samples_and_commands_come_back() -> None:
    assert unpack_samples(EXAMPLES["samples"]) == (3, (SAMPLE,), 1, None)


def test_network_traffic_that_is_not_known_is_left_out_since_older_readers_take_none_there() -> None:
    unknown = replace(SAMPLE, net_sent=None, net_received=None)
    message = pack_samples(3, [unknown, SAMPLE])
    assert b"null" not in message
    assert unpack_samples(message) == (3, (unknown, SAMPLE), 0, None)
    assert unpack_command(EXAMPLES["command"]) == Command(1, "drain", ("0",), (), 2.5)
    assert unpack_reply(EXAMPLES["reply"]).blocks[0].idle_for_s == 1.5


def test_unknown_fields_of_a_newer_version_are_ignored_and_missing_ones_take_their_default() -> None:
    body = b'{"manager":1,"time_ns":2,"heartbeat_period_s":1,"heartbeat_threshold_s":2.5,"colour":"red"}'
    assert unpack_welcome(bytes((Kind.WELCOME,)) + body) == Welcome(1, 2, 1.0, 2.5)


@pytest.mark.parametrize("body", [b"[]", b"1", b"{}", b"{", b"\xff", b'{"manager":NaN}', b"[" * 100_000])
def test_json_that_is_no_such_record_is_a_bad_message(body: bytes) -> None:
    with pytest.raises(BadMessage):
        unpack_welcome(bytes((Kind.WELCOME,)) + body)


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


def test_the_bytes_of_version_2_never_change() -> None:
    lines = [line.split(" ") for line in GOLDEN.read_text().splitlines()]
    assert {name: bytes.fromhex(text) for name, text in lines} == EXAMPLES

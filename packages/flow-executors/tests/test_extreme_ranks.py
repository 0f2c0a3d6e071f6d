"""Ranks of an MPI job: their places, who is heard, what is said of an end, and their messages. No MPI is needed."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, strategies as st

from flow_executors.errors import BadMessage, InsufficientMPIRanks
from flow_executors.extreme_scale.channel import _MORE, _PIECE, IdlePace, RankChannel
from flow_executors.extreme_scale.job_words_core import who_ended
from flow_executors.extreme_scale.rank_files import RankFiles
from flow_executors.extreme_scale.rank_messages import FELL, PID, TASK, RankMessage, pack_died, unpack_died
from flow_executors.extreme_scale.rank_pool import RankPool, frames_of, pack_frames
from flow_executors.extreme_scale.world_core import RankLiveness, RankProcess, arrange, names_a_rank
from flow_executors.manager.code_cache import BlobFiles
from flow_executors.manager.fork_client import Died
from flow_executors.manager.manager_core import Assignment
from flow_executors.wire.files import FileStep, pack_file
from flow_executors.wire.messages import pack_blob, pack_need, unpack_blob
from flow_executors.wire.tasks import pack_record

NODES = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=2, max_size=40)
DIGEST = bytes(16)


def world_of(*nodes: str):  # type: ignore[no-untyped-def]  # of the tests alone
    return arrange([RankProcess(node, 100 + rank, 8, 1 << 30) for rank, node in enumerate(nodes)])


# -- places


@given(NODES)
def test_every_rank_but_the_first_has_one_worker_and_those_of_a_node_are_in_a_row(nodes: list[str]) -> None:
    world = world_of(*nodes)
    workers = [seat.worker for seat in world.seats]
    assert workers[0] == -1
    assert sorted(workers[1:]) == list(range(len(nodes) - 1))
    assert [world.seats[rank].worker for rank in world.ranks] == list(range(len(nodes) - 1))
    listed = [one.node for one in world.nodes for _ in range(one.workers)]
    assert listed == [world.homes[rank] for rank in world.ranks]


@given(NODES)
def test_every_rank_that_is_not_alone_on_its_node_is_watched_by_one_of_the_same_node(nodes: list[str]) -> None:
    world = world_of(*nodes)
    watched = {}
    for rank, seat in enumerate(world.seats):
        if seat.neighbour is not None:
            who, pid = seat.neighbour
            assert world.homes[who] == world.homes[rank]
            assert pid == world.pids[who]
            assert who not in watched
            watched[who] = rank
    assert set(watched) == {rank for rank, node in enumerate(nodes) if nodes.count(node) > 1}


@given(NODES)
def test_workers_of_a_node_share_it_out_by_places_and_one_speaks_for_it(nodes: list[str]) -> None:
    world = world_of(*nodes)
    for one in world.nodes:
        seats = [seat for rank, seat in enumerate(world.seats) if rank and world.homes[rank] == one.node]
        assert sorted(seat.place for seat in seats) == list(range(one.workers))
        assert {seat.together for seat in seats} == {one.workers}
        assert sum(seat.first for seat in seats) == 1


def test_one_rank_is_too_few_by_name() -> None:
    with pytest.raises(InsufficientMPIRanks, match="has 1 rank: at least 2 are needed"):
        world_of("a")


# -- who is heard


def test_a_rank_that_is_silent_for_too_long_is_named_with_its_node() -> None:
    liveness = RankLiveness(world_of("a", "a", "b"), 10.0, 0.0)
    for now in range(1, 11):
        liveness.heard(1, float(now))
        said = liveness.silent(float(now))
        assert said == ("" if now < 10 else "rank 2 (pid 102) on node b was not heard for 10 s")


def test_nobody_is_silent_while_the_first_rank_was_stopped_itself() -> None:
    liveness = RankLiveness(world_of("a", "a"), 10.0, 0.0)
    assert liveness.silent(500.0) == ""
    assert liveness.silent(501.0) == ""


def test_the_first_rank_that_ended_is_the_one_that_is_named() -> None:
    liveness = RankLiveness(world_of("a", "a", "b", "b"), 10.0, 0.0)
    liveness.fallen(2, 102)
    liveness.fallen(3, 103)
    assert liveness.why("SIGTERM") == "rank 2 (pid 102) on node b ended, and MPI ends the whole job with it"


def test_a_node_of_which_nobody_answers_is_named_where_most_do() -> None:
    liveness = RankLiveness(world_of("a", "b", "c", "d"), 10.0, 0.0)
    for rank in (1, 3):
        liveness.ending(rank)
    assert liveness.why("SIGTERM") == "nothing is heard of node c, and MPI ended the job"


def test_a_job_whose_ranks_all_live_was_ended_by_others() -> None:
    liveness = RankLiveness(world_of("a", "b"), 10.0, 0.0)
    liveness.ending(1)
    assert liveness.everybody()
    assert liveness.why("SIGTERM") == "its block was ended (the manager received SIGTERM)"


@pytest.mark.parametrize(
    ("text", "who"),
    [
        (
            "--\nmpiexec noticed that process rank 2 with PID 14079 on node n3 exited on signal 9 (Killed).\n--",
            "rank 2 (pid 14079) on node n3 was ended by signal 9 (Killed)",
        ),
        (
            "=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n=   PID 77 RUNNING AT n2\n=   EXIT CODE: 9\n",
            "the rank with pid 77 on node n2 ended with exit code 9",
        ),
        ("srun: error: n4: task 5: Killed\n", "rank 5 on node n4: Killed"),
        ("  HNP daemon   : [[1,0],0] on node n1\n  Remote daemon: [[1,0],2] on node n3\n", "mpiexec has lost node n3"),
        ("  Process name: [[29293,1],1]\n  Exit code:    1\n", "rank 1 ended with exit code 1"),
        ("a word of a task", ""),
    ],
)
def test_what_mpiexec_says_of_a_rank_is_understood(text: str, who: str) -> None:
    assert who_ended(text) == who


# -- messages


class Letters:
    """A communicator of one process: what is sent comes back to it, or is kept."""

    rank, size = 0, 3

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, bytes]] = []
        self.came: list[tuple[int, int, bytes]] = []
        self.slow = 0

    def Isend(self, buf, dest, tag):  # noqa: N802
        self.sent.append((dest, tag, bytes(buf[0])))
        return self

    def Test(self) -> bool:  # noqa: N802
        self.slow -= 1
        return self.slow < 0

    def Iprobe(self, source, tag, status) -> bool:  # noqa: N802
        return bool(self.came)

    def Get_source(self) -> int:  # noqa: N802
        return self.came[0][0]

    def Get_tag(self) -> int:  # noqa: N802
        return self.came[0][1]

    def Get_count(self, datatype) -> int:  # noqa: N802
        return len(self.came[0][2])

    def Recv(self, buf, source, tag) -> None:  # noqa: N802
        buf[0][:] = self.came.pop(0)[2]


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def channel(letters: Letters) -> RankChannel:
    return RankChannel(letters, None, letters, (-1, -1))  # type: ignore[arg-type]  # as of a communicator


def test_a_long_message_goes_in_pieces_and_comes_whole(letters: Letters, channel: RankChannel) -> None:
    message = os.urandom(1000) + bytes(2 * _PIECE)
    channel.send(2, RankMessage.TASK, message)
    assert [tag for _, tag, _ in letters.sent] == [RankMessage.TASK + _MORE] * 2 + [RankMessage.TASK]
    letters.came = [*letters.sent[:1], (1, RankMessage.READY, b"x"), *letters.sent[1:]]
    assert channel.receive() == [(1, RankMessage.READY, b"x"), (2, RankMessage.TASK, message)]


def test_what_has_not_left_is_waited_for_no_longer_than_said(letters: Letters, channel: RankChannel) -> None:
    letters.slow = 1 << 40
    channel.send(1, RankMessage.DONE)
    assert not channel.flush(0.01)
    letters.slow = 0
    assert channel.flush(10.0)


def test_a_rank_sleeps_the_longer_the_less_happens() -> None:
    pace = IdlePace(10)
    pace.stirred(100.0)
    assert [pace.nap_ms(100.0 + idle) for idle in (0.0, 0.004, 0.1, 1.0)] == [0, 0, 1, 10]


FRAMES = st.lists(
    st.tuples(
        st.integers(0, (1 << 64) - 1),
        st.integers(1, 1 << 60),
        st.integers(1, 1 << 60),
        st.integers(0, 255),
        st.binary(),
    )
)


@given(FRAMES)
def test_results_are_the_same_on_both_sides(frames: list[tuple[int, int, int, int, bytes]]) -> None:
    assert [(*frame[:4], bytes(frame[4])) for frame in frames_of(pack_frames(frames))] == frames


def test_times_of_results_are_moved_by_the_clocks_difference_and_those_of_no_time_stay() -> None:
    packed = pack_frames([(1, 100, 200, 0, b""), (2, 0, 0, 3, b"")], 50)
    assert [frame[1:3] for frame in frames_of(packed)] == [(150, 250), (0, 0)]


@pytest.mark.parametrize("cut", [1, 10])
def test_part_of_a_result_is_refused(cut: int) -> None:
    with pytest.raises(BadMessage, match="part of a result"):
        frames_of(pack_frames([(1, 2, 3, 0, b"0123456789")])[:-cut])


def test_a_death_is_the_same_on_both_sides_with_what_was_not_started() -> None:
    report = Died(0, 77, None, 9, "last words", "was stopped")
    record = pack_record(DIGEST, 5, 0, b"payload")
    assert unpack_died(4, pack_died(report, [(5, record)])) == (
        Died(4, 77, None, 9, "last words", "was stopped"),
        [(5, record)],
    )


# -- rank 0


class Own:
    """Files of rank 0 itself."""

    apart = False

    def __init__(self) -> None:
        self.ready_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.taken: list[bytes] = []

    def take(self, message) -> None:
        self.taken.append(bytes(message))

    def registered(self, number: int) -> None:
        """Take note of nothing."""

    def outgoing(self) -> list[bytes]:
        return []


@pytest.fixture
def own():
    files = Own()
    yield files
    os.close(files.ready_fd)


@pytest.fixture
def blobs():
    files = BlobFiles()
    yield files
    files.close()


@pytest.fixture
def pool(channel: RankChannel, own: Own, blobs: BlobFiles):
    made = RankPool(channel, world_of("a", "a", "b"), blobs, RankFiles(own), 10.0)
    made.neighbour.close()  # these processes are others
    yield made
    os.close(made.fileno())


def test_a_task_goes_to_the_rank_of_its_worker_and_can_not_be_taken_back(pool: RankPool, letters: Letters) -> None:
    assert pool.hand_out([Assignment(1, 5, b"record")]) == []
    assert letters.sent == [(2, RankMessage.TASK, TASK.pack(0, 5) + b"record")]
    assert pool.take_back(1, 1) == []


def test_workers_are_known_by_their_numbers(pool: RankPool, letters: Letters) -> None:
    letters.came = [
        (2, RankMessage.READY, PID.pack(77)),
        (1, RankMessage.FRAMES, pack_frames([(9, 1, 2, 0, b"value")])),
        (1, RankMessage.DIED, pack_died(Died(0, 78, 1, None, ""), [])),
    ]
    events = pool.pool_events()
    assert [(one.rank, one.pid, one.depth) for one in events.ready] == [(1, 77, 1)]
    assert [(worker, [frame[0] for frame in frames]) for worker, frames in events.results] == [(0, [9])]
    assert [(report.rank, report.pid) for report, _ in events.died] == [(0, 78)]


def test_code_is_asked_for_once_and_goes_to_all_ranks_that_wait(
    pool: RankPool, letters: Letters, blobs: BlobFiles
) -> None:
    letters.came = [(rank, RankMessage.NEED, pack_need([DIGEST])) for rank in (1, 2)]
    assert pool.pool_events().needed == [DIGEST]
    (piece,) = pack_blob(DIGEST, b"code")
    pool.blobs_came()
    assert letters.sent == []
    blobs.add(unpack_blob(piece))
    pool.blobs_came()
    assert sorted(letters.sent) == [(1, RankMessage.BLOB, piece), (2, RankMessage.BLOB, piece)]
    letters.came = [(1, RankMessage.NEED, pack_need([DIGEST]))]
    assert pool.pool_events().needed == []
    assert letters.sent[2:] == [(1, RankMessage.BLOB, piece)]


def test_a_message_that_is_none_is_dropped_with_a_word(pool: RankPool, letters: Letters) -> None:
    letters.came = [(1, 99, b""), (1, RankMessage.FRAMES, b"x"), (1, RankMessage.READY, PID.pack(7))]
    assert len(pool.pool_events().ready) == 1
    assert len(pool.notices) == 2


def test_what_came_while_the_reason_of_an_end_was_sought_still_counts(pool: RankPool, letters: Letters) -> None:
    letters.came = [
        (1, RankMessage.FRAMES, pack_frames([(9, 1, 2, 0, b"value")])),
        (1, RankMessage.FELL, FELL.pack(2, 102)),
    ]
    assert "rank 2 (pid 102) on node b" in pool.why_ended("SIGTERM", 10.0)
    assert [frame[0] for _, frames in pool.pool_events().results for frame in frames] == [9]


def test_files_go_back_to_the_rank_whose_transfer_it_is(own: Own) -> None:
    told: list[tuple[int, bytes]] = []
    everybody: list[bytes] = []
    files = RankFiles(own)
    files.tell = lambda rank, message: told.append((rank, message))
    files.tell_all = everybody.append
    first, second = (7 << 24) + 1, (8 << 24) + 1
    files.from_rank(2, pack_file(FileStep.ASK, 1, first))
    assert files.outgoing() == [pack_file(FileStep.ASK, 1, first)]
    assert files.outgoing() == []
    files.take(pack_file(FileStep.DATA, 1, first + 1, b"data"))
    files.take(pack_file(FileStep.DATA, 1, second, b"data"))
    files.take(pack_file(FileStep.LOGS, 1, 0))
    assert told == [(2, pack_file(FileStep.DATA, 1, first + 1, b"data"))]
    assert own.taken == [pack_file(FileStep.DATA, 1, second, b"data"), pack_file(FileStep.LOGS, 1, 0)]
    assert everybody == [pack_file(FileStep.LOGS, 1, 0)]


def test_a_reason_that_names_a_rank_is_known_also_where_the_manager_left_with_tasks() -> None:
    assert names_a_rank("rank 1 (pid 7) on node n1 ended")
    assert names_a_rank("it gave up: rank 1 (pid 7) on node n1 ended")
    assert not names_a_rank("it gave up: SIGTERM")
    assert not names_a_rank("it was silent for 10 s")

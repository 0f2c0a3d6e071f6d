"""One worker at real pipes: a packet in, a frame out, whatever the task does."""

import os
import pickle
import select
import signal
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import psutil
import pytest

from flow_core.errors import AppException, AppTimeout, DeserializationError, SerializationError
from flow_core.interfaces.call import Resources, TaskSpec
from flow_core.remote.errors import unpack
from flow_core.remote.functions import pack_function
from flow_executors.manager.code_cache import BlobFiles
from flow_executors.manager.fork_client import Answered, Died, ForkServerClient, Spawned
from flow_executors.manager.manager_core import Assignment
from flow_executors.manager.worker_pool import FrameReader, SharedMemoryResults, TaskEnvelopes, WorkerPipes
from flow_executors.serialize.buffers import load_with_buffers
from flow_executors.testing.node import alive, until
from flow_executors.wire.messages import pack_blob, unpack_blob
from flow_executors.wire.results import BUFFERS, UNIMPORTED, UNLOADED
from flow_executors.wire.tasks import BufferRef, pack_record
from flow_executors.worker.packets import APP_ERROR, LANE_ROOM, NEED, OK, PACKET, READY, made_direct

WAIT_S = 20.0


class Bench:
    """A fork server with one worker, and its pipes."""

    def __init__(self, directory, direct_channels=False):
        self.fork_client = ForkServerClient.fork()
        self.blobs = BlobFiles()
        self.envelopes = TaskEnvelopes()
        self.next_key = 0
        self.fork_client.configure(
            executor="htex",
            node="here",
            index_fd=self.blobs.index_fd,
            log_dir=str(directory),
            max_result=1_000_000,
            direct_channels=direct_channels,
        )
        self.pipes = self.spawn()

    def spawn(self, **environment):
        self.fork_client.spawn(0, environment)
        (spawned,) = self.reports()
        assert isinstance(spawned, Spawned)
        pipes = WorkerPipes(spawned)
        self.pipes = pipes
        ((_, _, _, status, _),) = self.frames()
        assert status == READY
        return pipes

    def reports(self):
        assert select.select([self.fork_client], [], [], WAIT_S)[0], "the fork server says nothing"
        return self.fork_client.receive()

    def frames(self):
        while True:
            assert select.select([self.pipes.result_out], [], [], WAIT_S)[0], "the worker says nothing"
            frames = self.pipes.frames()
            if frames or self.pipes.eof:
                return frames

    def large_result(self):
        """Take over a result as the manager does, and open it as the client does."""
        shared_results = SharedMemoryResults()
        shared_results.same_host = True
        ((_, _, _, status, payload),) = map(shared_results.taken_over, self.frames())
        assert status == OK | BUFFERS
        value = load_with_buffers(memoryview(payload), True)
        shared_results.sweep()
        assert not len(shared_results)
        return value

    def blob(self, data):
        digest = blake2b(data, digest_size=16).digest()
        for piece in pack_blob(digest, data):
            self.blobs.add(unpack_blob(piece))
        return digest

    def send(self, func, *args, spec=None, **kwargs):
        """Write a call; ``func`` is a function or a blob."""
        self.next_key += 1
        blob = func if isinstance(func, bytes) else pack_function(func)
        payload = pickle.dumps((args, kwargs, ()), 5) if args or kwargs else b""
        class_id = 0
        if spec is not None:
            class_id = 1
            self.envelopes.learn(1, spec)
        record = pack_record(self.blob(blob), self.next_key, class_id, payload)
        assert self.pipes.put(self.envelopes.packet(Assignment(0, self.next_key, record, class_id)))
        return self.next_key

    def call(self, func, *args, **kwargs):
        """Run a call to its end: its value, or the exception raised."""
        key = self.send(func, *args, **kwargs)
        ((got, started, ended, status, payload),) = self.frames()
        assert got == key
        assert 0 < started <= ended
        self.envelopes.done([key])
        if status == OK:
            return pickle.loads(payload) if len(payload) else None
        assert status & 0x0F == APP_ERROR
        raise unpack(bytes(payload))

    def close(self):
        self.fork_client.close()
        self.blobs.close()


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def with_lane(tmp_path):
    made = Bench(tmp_path, direct_channels=True)
    yield made
    made.close()


def raising(error):
    raise error


def forking():
    if os.fork() == 0:
        return "child"
    return "parent"


def test_a_task_gives_its_value(bench):
    assert bench.call(b"Rmath:hypot", 3.0, 4.0) == 5.0
    assert bench.call(b"Rbuiltins:dict", a=1) == {"a": 1}


def test_no_arguments_and_no_result_need_no_bytes(bench):
    assert bench.call(b"Rgc:collect") >= 0
    assert bench.call(b"Rgc:enable") is None


def test_an_exception_comes_back_as_itself_and_the_worker_goes_on(bench):
    with pytest.raises(ZeroDivisionError):
        bench.call(b"Roperator:truediv", 1, 0)
    assert bench.call(b"Roperator:truediv", 1, 2) == 0.5


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_a_process_is_an_error_of_the_app(bench, error):
    with pytest.raises(AppException):
        bench.call(raising, error)
    assert bench.call(b"Roperator:add", 1, 2) == 3


def test_sigint_interrupts_the_task_and_not_the_worker(bench):
    os.kill(bench.pipes.pid, signal.SIGINT)
    bench.send(lambda: os.kill(os.getpid(), 2) or __import__("time").sleep(WAIT_S))
    ((_, _, _, status, payload),) = bench.frames()
    assert status == APP_ERROR
    assert "interrupted" in str(unpack(bytes(payload)))
    assert bench.call(b"Ros:getpid") == bench.pipes.pid


def test_a_child_forked_by_a_task_never_becomes_a_second_worker(bench, tmp_path):
    assert bench.call(forking) == "parent"
    assert bench.call(b"Ros:getpid") == bench.pipes.pid
    log = tmp_path / "worker_0.log"
    until(lambda: "forked by a task" in log.read_text(), "the child says that it ends")


def test_a_result_that_cannot_be_pickled_is_named(bench):
    with pytest.raises(SerializationError, match=r"type lock.*return plain data"):
        bench.call(lambda: __import__("threading").Lock())


def test_a_result_that_is_too_large_is_named(bench):
    with pytest.raises(SerializationError, match="max_result_bytes"):
        bench.call(b"Rbuiltins:bytes", 2_000_000)


def test_a_result_larger_than_any_pipe_arrives(bench):
    assert bench.call(b"Rbuiltins:str", b"a" * 900_000, "ascii") == "a" * 900_000


def test_a_large_result_waits_in_a_file_until_it_is_taken_over(bench):
    bench.send(b"Rbuiltins:bytes", 900_000)
    assert bench.large_result() == bytes(900_000)
    assert bench.call(b"Rbuiltins:len", "abc") == 3


def test_an_argument_larger_than_a_packet_arrives(bench):
    assert bench.call(b"Rbuiltins:len", b"x" * 3_000_000) == 3_000_000
    assert bench.call(b"Rbuiltins:len", b"x" * (PACKET - 40)) == PACKET - 40


def test_a_missing_package_is_named(bench):
    with pytest.raises(ImportError, match="no_such_package") as caught:
        bench.call(b"Rno_such_package.part:func")
    assert not any("of executor" in note for note in caught.value.__notes__), "the script names the node"


def _import_something():
    import no_such_package  # noqa: F401


def _fail():
    raise KeyError("x")


@pytest.mark.parametrize(
    ("func", "flag"), [(b"Rno_such_package.part:func", UNLOADED), (_import_something, UNIMPORTED), (_fail, 0)]
)
def test_what_was_not_there_is_told_apart_from_what_the_app_raises(bench, func, flag):
    bench.send(func)
    ((_, _, _, status, _),) = bench.frames()
    assert status == APP_ERROR | flag


def test_arguments_that_cannot_be_unpickled_are_an_error(bench):
    key = bench.next_key = bench.next_key + 1
    record = pack_record(bench.blob(b"Rbuiltins:len"), key, 0, b"no pickle")
    bench.pipes.put(record)
    ((_, _, _, status, payload),) = bench.frames()
    assert status == APP_ERROR | UNLOADED
    assert isinstance(unpack(bytes(payload)), DeserializationError)


def test_classes_of_main_come_back_by_value(bench):
    @dataclass
    class Local:
        number: int

    assert bench.call(Local, 4).number == 4


def test_the_spec_is_obeyed(bench):
    spec = TaskSpec(Resources(cores=2), environment=(("COLOUR", "blue"),))
    assert bench.call(b"Ros:getenv", "COLOUR", spec=spec) == "blue"
    assert bench.call(b"Ros:getenv", "COLOUR") is None


def test_a_walltime_interrupts_python_code(bench):
    with pytest.raises(AppTimeout):
        bench.call(b"Rtime:sleep", WAIT_S, spec=TaskSpec(walltime_s=0.05))


def test_devices_are_seen_by_the_task_alone(bench):
    key = bench.next_key = bench.next_key + 1
    record = pack_record(bench.blob(b"Ros:getenv"), key, 1, pickle.dumps((("CUDA_VISIBLE_DEVICES",), {}, ()), 5))
    bench.envelopes.learn(1, TaskSpec(Resources(gpus=2)))
    bench.pipes.put(bench.envelopes.packet(Assignment(0, key, record, 1, ("2", "5"))))
    ((_, _, _, _, payload),) = bench.frames()
    assert pickle.loads(payload) == "2,5"
    assert bench.call(b"Ros:getenv", "CUDA_VISIBLE_DEVICES") is None


def test_a_blob_that_is_missing_is_asked_for_and_waited_for(bench):
    blob = b"Roperator:neg"
    digest = blake2b(blob, digest_size=16).digest()
    bench.pipes.put(pack_record(digest, 1, 0, pickle.dumps(((4,), {}, ()), 5)))
    ((_, _, _, status, payload),) = bench.frames()
    assert (status, bytes(payload)) == (NEED, digest)
    bench.blob(blob)
    ((_, _, _, status, payload),) = bench.frames()
    assert (status, pickle.loads(payload)) == (OK, -4)


def test_buffers_out_of_band_are_mapped_from_a_file_or_from_a_blob(bench, tmp_path):
    content = os.urandom(300_000)
    file = tmp_path / (b"?" * 16).hex()
    file.write_bytes(b"head" + content)
    buffers = []
    pickled = pickle.dumps(((pickle.PickleBuffer(content),), {}, ()), 5, buffer_callback=buffers.append)
    other = tmp_path / "another file at the path that the sender named, on another machine"
    other.write_bytes(os.urandom(400_000))
    blob = bench.blob(content)
    for hint, named, offset in ((str(file), b"?" * 16, 4), ("/nowhere", blob, 0), (str(other), blob, 0)):
        ref = BufferRef(named, offset, len(content), hint)
        digest = bench.blob(b"Rbuiltins:bytes")
        bench.pipes.put(pack_record(digest, 9, 0, pickled, [ref]))
        assert bench.large_result() == content


def test_what_has_not_started_can_be_read_back_in_order(bench, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    bench.send(b"Rpathlib:Path.read_text", gate)
    with gate.open("w"):
        keys = [bench.send(b"Rtime:time") for _ in range(3)]
        assert [key for key, _ in bench.pipes.take_back(2)] == keys[:2]
    done = []
    while keys[2] not in done:
        done += [frame[0] for frame in bench.frames()]
    assert len(done) == 2


@pytest.mark.parametrize(
    ("code", "exit_code", "signum"),
    [("os._exit(7)", 7, None), ("os.kill(os.getpid(), 9)", None, 9), ("os.abort()", None, 6)],
)
def test_a_worker_that_dies_is_reported_with_how_and_its_last_words(bench, code, exit_code, signum):
    bench.send(b"Rbuiltins:exec", f"import os, sys; sys.stderr.write('last words'); sys.stderr.flush(); {code}")
    (died,) = bench.reports()
    assert isinstance(died, Died)
    assert (died.exit_code, died.signal) == (exit_code, signum)
    assert "last words" in died.stderr_tail
    assert bench.pipes.last_frames() == []


def test_a_segmentation_fault_shows_where_it_happened(bench):
    bench.send(b"Rctypes:string_at", 0)
    (died,) = bench.reports()
    assert died.signal == signal.SIGSEGV
    assert "string_at" in died.stderr_tail


def test_what_a_dead_workers_task_had_started_is_ended_with_it(bench):
    def daemon():
        return __import__("subprocess").Popen(["sleep", "600"]).pid

    child = bench.call(daemon)
    os.kill(bench.pipes.pid, signal.SIGKILL)
    bench.reports()
    until(lambda: not alive(child), "the child of the task is gone")


def test_a_worker_can_be_started_again_with_other_variables(bench):
    os.kill(bench.pipes.pid, signal.SIGKILL)
    bench.reports()
    bench.spawn(FLOW_WORKER_RANK="0")
    assert bench.call(b"Ros:getenv", "FLOW_WORKER_RANK") == "0"


def test_killing_a_worker_gives_its_task_time_to_end(bench):
    code = "import signal, sys, os, time; signal.signal(15, lambda *a: os._exit(33)); time.sleep(600)"
    bench.send(b"Rbuiltins:exec", code)
    bench.fork_client.kill(0, grace_s=WAIT_S)
    (died,) = bench.reports()
    assert (died.exit_code, died.signal) in ((33, None), (None, signal.SIGTERM))


def test_a_frozen_worker_is_killed_too(bench):
    os.kill(bench.pipes.pid, signal.SIGSTOP)
    bench.fork_client.kill(0, grace_s=0.2)
    (died,) = bench.reports()
    assert died.signal in (signal.SIGTERM, signal.SIGKILL)


def test_a_worker_that_the_kernel_holds_counts_as_dead(tmp_path, monkeypatch):
    monkeypatch.setattr("flow_executors.manager.fork_server.send", lambda *_: 0)  # in the fork that follows, too
    monkeypatch.setattr("flow_executors.manager.fork_server._UNKILLABLE_S", 0.2)
    held = Bench(tmp_path)
    pid = held.pipes.pid
    held.fork_client.kill(0, grace_s=0.1)
    (died,) = held.reports()
    assert (died.pid, died.signal) == (pid, signal.SIGKILL)
    assert "waits in the kernel" in died.stderr_tail
    held.spawn()
    assert held.call(b"Rmath:hypot", 3.0, 4.0) == 5.0
    held.close()
    until(lambda: not alive(pid), "it ends in the end")


def test_the_fork_server_answers_when_it_is_asked(bench):
    bench.fork_client.ask()
    assert bench.reports() == [Answered()]


def test_workers_have_names_and_sessions_of_their_own(bench):
    assert bench.call(b"Ros:getsid", 0) == bench.pipes.pid
    assert Path(f"/proc/{bench.pipes.pid}/comm").read_text().strip() == "flow-w0"
    assert Path(f"/proc/{bench.fork_client.pid}/comm").read_text().strip() == "flow-forkserver"


def test_workers_end_with_their_fork_server(bench):
    os.kill(bench.fork_client.pid, signal.SIGKILL)
    assert bench.frames() == []
    assert bench.pipes.eof


def direct(bench, size):
    """Give the worker a task whose result of so many bytes is awaited at the channel; return what comes there."""
    record = pack_record(bench.blob(b"Rbuiltins:bytes"), 77, 0, pickle.dumps(((size,), {}, ()), 5))
    assert bench.pipes.put(made_direct(record))
    assert select.select([bench.pipes.direct_out, bench.pipes.result_out], [], [], WAIT_S)[0]
    return FrameReader(bench.pipes.direct_out).read() if select.select([bench.pipes.direct_out], [], [], 0)[0] else []


def test_a_small_result_that_the_script_awaits_goes_over_the_lane(with_lane):
    ((key, started, ended, status, payload),) = direct(with_lane, 100)
    assert (key, status, pickle.loads(payload)) == (77, OK, bytes(100))
    assert 0 < started <= ended
    assert with_lane.call(b"Rmath:hypot", 3.0, 4.0) == 5.0  # to the manager as ever


def test_a_large_one_and_one_whose_task_is_given_on_go_to_the_manager(with_lane):
    assert direct(with_lane, LANE_ROOM) == []
    ((key, _, _, status, _),) = with_lane.frames()
    assert (key, status) == (77, OK)
    os.kill(with_lane.pipes.pid, signal.SIGSTOP)
    until(lambda: psutil.Process(with_lane.pipes.pid).status() == psutil.STATUS_STOPPED, "the worker is stopped")
    record = pack_record(with_lane.blob(b"Rbuiltins:bytes"), 78, 0, pickle.dumps(((1,), {}, ()), 5))
    assert with_lane.pipes.put(made_direct(record))
    assert with_lane.pipes.take_back(1) == [(78, record)]
    os.kill(with_lane.pipes.pid, signal.SIGCONT)


def test_letters_are_answered_to_the_manager(with_lane):
    assert with_lane.call(b"Rmath:hypot", 3.0, 4.0, spec=TaskSpec(Resources(cores=2.0))) == 5.0

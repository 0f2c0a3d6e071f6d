"""Functions and arguments as bytes."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow_core.errors import DeserializationError, SerializationError
from flow_core.interfaces.call import Call, TryKey
from flow_core.remote.callables import packing, report_packing
from flow_core.remote.fetching import report_fetching
from flow_core.remote.functions import BY_VALUE, REFERENCE, digest_of, importable, pack_function
from flow_core.snapshot.arguments import ArgumentCode
from flow_core.testing import calls
from flow_executors.serialize.buffers import LARGE, BufferGone, BufferStore, CodeStore, Large, load_with_buffers
from flow_executors.serialize.task_records import Functions, Records, pack_arguments
from flow_executors.wire.tasks import BufferRef, pack_buffers


class Raw:
    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.data = bytes(data)

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return Raw, (pickle.PickleBuffer(self.data),)


def test_importable_functions_travel_by_name() -> None:
    assert pack_function(calls.double) == REFERENCE + b"flow_core.testing.calls:double"
    assert pack_function(len) == REFERENCE + b"builtins:len"


@pytest.fixture
def hidden() -> Iterator[types.ModuleType]:
    """Give a module that is loaded here and that no other process can import."""
    module = types.ModuleType("hidden_module")
    sys.modules[module.__name__] = module
    exec("class Here: pass\ndef here(value): return value + 1", module.__dict__)
    yield module
    del sys.modules[module.__name__]


def test_other_functions_travel_by_value(hidden: types.ModuleType) -> None:
    for func in (hidden.here, lambda: 1):
        blob = pack_function(func)
        assert blob.startswith(BY_VALUE)
        code = "import sys, pickle; pickle.loads(sys.stdin.buffer.read())"
        subprocess.run([sys.executable, "-c", code], input=blob[1:], check=True, timeout=30)


def test_a_function_that_cannot_travel_is_named() -> None:
    lock = threading.Lock()

    def holder() -> object:
        return lock

    with pytest.raises(SerializationError, match="holder cannot be sent"):
        pack_function(holder)


def test_modules_on_the_path_are_importable_and_made_up_ones_are_not() -> None:
    assert importable("json.decoder")
    assert importable("os.path")
    assert importable("flow_core.errors")
    sys.modules["made_up_module"] = types.ModuleType("made_up_module")
    try:
        assert not importable("made_up_module")
    finally:
        del sys.modules["made_up_module"]


def test_a_module_whose_path_was_taken_away_is_importable_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "for_a_while.py").write_text("def f(): return 1\n")
    with monkeypatch.context() as meanwhile:
        meanwhile.syspath_prepend(str(tmp_path))
        importlib.import_module("for_a_while")
        assert importable("for_a_while")
    assert not importable("for_a_while")
    assert not importable("__main__")
    assert not importable("no-identifier.module")
    del sys.modules["for_a_while"]


def test_a_function_is_packed_once_and_forgotten_when_unused_twice() -> None:
    functions = Functions()
    digest = functions.digest(calls.double)
    assert functions.digest(calls.double) == digest
    assert functions.forget_others([digest]) == set()
    assert functions.forget_others([]) == set()
    assert functions.blob(digest) is not None
    assert functions.forget_others([]) == {digest}
    assert functions.blob(digest) is None
    assert functions.digest(calls.double) == digest
    assert functions.blob(digest) is not None


class Taken:
    """A snapshot that is nothing but its bytes."""

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self.digest = digest_of(blob)


def test_a_call_goes_with_its_snapshot_and_not_with_what_its_function_is_now() -> None:
    functions = Functions()
    taken = Taken(b"R" + b"flow_core.testing.calls:echo")
    digest = functions.of_call(Call(calls.double, snapshot=taken))  # type: ignore[arg-type]  # all that is asked of it
    assert functions.blob(digest) == taken.blob


def test_of_ever_new_versions_of_a_function_those_in_use_are_kept() -> None:
    functions = Functions()
    last: list[bytes] = []
    most = 0
    for number in range(300):
        taken = Taken(number.to_bytes(4, "little") * (1 << 18))  # 1 MiB
        last = [*last[-3:], functions.of_call(Call(calls.double, snapshot=taken))]  # type: ignore[arg-type]
        if functions.full:
            functions.forget_others(last)
        most = max(most, len(functions._blobs))
    assert most < 150
    assert all(functions.blob(digest) for digest in last)


def test_versions_may_come_while_others_are_forgotten() -> None:
    functions = Functions()
    failures: list[BaseException] = []
    done = threading.Event()

    def forget() -> None:
        try:
            while not done.is_set():
                functions.forget_others([])
        except BaseException as error:
            failures.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=forget)
    thread.start()
    try:
        for number in range(5000):
            functions.of_call(Call(calls.double, snapshot=Taken(b"P%d" % number)))  # type: ignore[arg-type]
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(before)
    assert failures == []


def test_a_version_that_comes_back_is_kept_again() -> None:
    functions = Functions()
    taken = Taken(b"P" + bytes(100))
    digest = functions.of_call(Call(calls.double, snapshot=taken))  # type: ignore[arg-type]
    functions.forget_others([])
    assert functions.of_call(Call(calls.double, snapshot=taken)) == digest  # type: ignore[arg-type]
    functions.forget_others([])
    assert functions.blob(digest) == taken.blob
    functions.forget_others([])
    assert functions.blob(digest) is None
    assert functions.of_call(Call(calls.double, snapshot=taken)) == digest  # type: ignore[arg-type]
    assert functions.blob(digest) == taken.blob


def test_no_arguments_are_no_bytes() -> None:
    assert pack_arguments(Call(calls.nothing)) == b""


def test_arguments_come_back() -> None:
    call = Call(calls.echo, (1, "a"), {"func": 2}, steps=(calls.Bracket("x"),))
    args, kwargs, steps = pickle.loads(pack_arguments(call))
    assert (args, kwargs, len(steps)) == ((1, "a"), {"func": 2}, 1)


def test_classes_that_nobody_can_import_travel_by_value(hidden: types.ModuleType) -> None:
    assert not importable("hidden_module")
    payload = pack_arguments(Call(calls.echo, (hidden.Here(),)))
    code = "import sys, pickle; pickle.loads(sys.stdin.buffer.read())"
    subprocess.run([sys.executable, "-c", code], input=payload, check=True, timeout=30)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (Call(calls.echo, (1, threading.Lock())), r"argument 2 \(lock\) of echo"),
        (Call(calls.echo, (), {"handle": threading.Lock()}), r"argument 'handle' \(lock\) of echo"),
    ],
)
def test_an_argument_that_cannot_travel_is_named(call: Call, named: str) -> None:
    with pytest.raises(SerializationError, match=named):
        pack_arguments(call)


def test_large_buffers_travel_out_of_band_and_small_ones_do_not() -> None:
    store, large = BufferStore(), Large()
    payload = pack_arguments(Call(calls.echo, (Raw(b"s" * 10), Raw(b"x" * LARGE))), large)
    assert [buffer.nbytes for buffer in large.buffers] == [LARGE]
    assert len(payload) < LARGE
    refs = store.keep(1, large.buffers)
    loaded = load_with_buffers(memoryview(pack_buffers(refs) + payload), True)
    assert isinstance(loaded, tuple)
    assert loaded[0][1].data == b"x" * LARGE
    assert store.blob(refs[0].blob) == b"x" * LARGE
    store.release(1)
    assert not store.by_key
    with pytest.raises(OSError, match=r"No such file|another machine"):
        load_with_buffers(memoryview(pack_buffers(refs) + payload), True)


def test_a_buffer_of_another_machine_is_not_taken_for_the_one_meant() -> None:
    store = BufferStore()
    (ref,) = store.keep(1, [memoryview(b"x" * 10)])
    other = BufferRef(b"o" * 16, 0, 10, ref.hint)
    with pytest.raises(BufferGone, match="another machine"):
        load_with_buffers(memoryview(pack_buffers([other]) + pickle.dumps(1)), True)
    store.clear()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Give a module of the user's own that other processes can import."""
    (tmp_path / "own_of_test_serialize.py").write_text(
        "import dataclasses\n@dataclasses.dataclass\nclass Point:\n    x: int\n    y: float\n"
        "    def moved(self): return Point(self.x + 1, self.y)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("own_of_test_serialize")


def test_code_among_arguments_is_named_by_its_digest_and_kept_while_tasks_need_it(own: types.ModuleType) -> None:
    records = Records()
    before = packing()
    report_packing(ArgumentCode())
    sent = [records.pack(TryKey(key), 0, Call(calls.echo, (own.Point(key, 2.0),))) for key in (1, 2)]
    payloads = [bytes(record[32:]) for _, record in sent]
    assert all(len(payload) < 400 for payload in payloads), "the code of the class is in each"
    asked: list[bytes] = []

    def fetch(digest: bytes) -> bytes:
        asked.append(digest)
        blob = records.blob(digest)
        assert blob is not None
        return blob

    report_fetching(fetch)
    try:
        assert [pickle.loads(payload)[0] for payload in payloads] == [(own.Point(1, 2.0),), (own.Point(2, 2.0),)]
        assert len(asked) == 1, "it is asked for once in a process"
    finally:
        report_fetching(None)
        report_packing(before)
    with pytest.raises(DeserializationError, match="runs no tasks"):
        pickle.loads(payloads[0])


def test_code_of_tasks_is_kept_and_much_that_no_task_names_is_forgotten() -> None:
    store = CodeStore()
    blobs = {b"%d" % number: b"x" * number for number in range(1000)}
    for number, (digest, blob) in enumerate(blobs.items()):
        store.keep(number, {digest: blob, b"all": b"blob"})
    for number in range(999):
        store.release(number)
        store.release(number)
        assert store.blob(b"all") == b"blob"
        assert store.blob(b"999") == blobs[b"999"]
    assert store.by_key
    store.release(999)
    assert not store.by_key
    assert sum(store.blob(digest) is not None for digest in blobs) < 300


def test_code_that_no_task_names_any_more_is_there_for_late_questions() -> None:
    store = CodeStore()
    store.keep(1, {b"digest": b"blob"})
    store.release(1)
    assert store.blob(b"digest") == b"blob"

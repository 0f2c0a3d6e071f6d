"""Workers without a connection of ours tell by files what their tasks use: whole lines only, none lost, none left."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from flow_core.executors.futures import FuturesExecutor, SubmitExecutor
from flow_core.executors.reports import ReportReader
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.events import Sampled
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.outcome import LossKind, Verdict
from flow_core.interfaces.sampler import Sample, SamplerSpec
from flow_core.remote import reports as module
from flow_core.remote.bash import BashStep
from flow_core.remote.reports import ReportWriter
from flow_core.remote.sampling import Start, TaskWatch
from flow_core.report_files import FIELDS
from flow_core.testing import RecordingListener, make_context
from flow_core.testing.recording import RecordingPort
from flow_core.testing.sampling import LAST, burn, made_up_sampler, wait_for_file

KEY = TryKey(5)
pytestmark = pytest.mark.timeout(120)


def sample(key: TryKey | None, time_ns: int) -> Sample:
    return Sample(time_ns, key, 1, 1, 0.0, 1.5, 0.0, 100, 0.0, 0, 0, None, 3)


def told(reader: ReportReader) -> list[int]:
    """Return the times of the samples that are new."""
    return [one.time_ns for found in reader.read() for one in found.samples]


# -- files


def test_what_is_written_is_read_once(tmp_path: Path) -> None:
    writer, reader = ReportWriter(str(tmp_path)), ReportReader(tmp_path)
    writer.write([(KEY, 10, 99)], [sample(KEY, 20), sample(None, 21)])
    (found,) = reader.read()
    assert found.starts == ((KEY, 10, 99),)
    assert found.samples == (sample(KEY, 20), sample(None, 21))
    assert (found.node, found.pid) == (os.uname().nodename, os.getpid())
    assert reader.read() == []
    writer.write([], [sample(KEY, 30)])
    assert told(reader) == [30]
    writer.close()


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    writer, reader = ReportWriter(str(tmp_path)), ReportReader(tmp_path)
    writer.write([], [sample(KEY, 1)])
    (path,) = tmp_path.glob("*.reports")
    line = path.read_bytes().splitlines(keepends=True)[1].replace(b"[[1,", b"[[2,")
    for at in range(1, len(line)):
        with open(path, "ab") as stream:
            stream.write(line[at - 1 : at])
        assert told(reader) == ([1] if at == 1 else [])
    with open(path, "ab") as stream:
        stream.write(line[-1:])
    assert told(reader) == [2]
    assert reader.damaged == 0


def test_a_damaged_line_costs_itself_alone(tmp_path: Path) -> None:
    writer, reader = ReportWriter(str(tmp_path)), ReportReader(tmp_path)
    writer.write([], [sample(KEY, 1)])
    (path,) = tmp_path.glob("*.reports")
    with open(path, "ab") as stream:
        stream.write(b'["sampled",[[1,2]]]\n\xff\n["sampled"]\n{"flow_reports":"x"}\n[]\n["news",1]\n')
    writer.write([], [sample(KEY, 2)])
    assert told(reader) == [1, 2]
    assert reader.damaged == 5


def test_samples_of_another_version_are_read_by_the_names_of_their_fields(tmp_path: Path) -> None:
    names = ["colour", *reversed(FIELDS)]
    values = ["red", *reversed([getattr(sample(KEY, 9), name) for name in FIELDS])]
    head = {"flow_reports": 1, "node": "n", "pid": 3, "sample": names, "more": 1}
    (tmp_path / "n-3-1-000000.reports").write_text(f"{json.dumps(head)}\n{json.dumps(['sampled', [values]])}\n")
    newer = {**head, "flow_reports": 2}
    (tmp_path / "n-4-1-000000.reports").write_text(f"{json.dumps(newer)}\n{json.dumps(['sampled', [values]])}\n")
    (found,) = ReportReader(tmp_path).read()
    assert (found.samples, found.pid) == ((sample(KEY, 9),), 3)


def test_a_file_is_removed_once_it_was_read_and_its_writer_has_begun_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST", 300)
    writer, reader = ReportWriter(str(tmp_path)), ReportReader(tmp_path)
    found: list[int] = []
    for time_ns in range(1, 40):
        writer.write([], [sample(KEY, time_ns)])
        if time_ns % 5 == 0:
            found += told(reader)
            assert len(list(tmp_path.glob("*.reports"))) <= 6
    found += told(reader)
    assert found == list(range(1, 40))
    assert told(reader) == []
    assert len(list(tmp_path.glob("*.reports"))) == 1


def test_finishing_reads_the_rest_and_leaves_no_directory(tmp_path: Path) -> None:
    directory = tmp_path / "reports"
    directory.mkdir()
    writer, reader = ReportWriter(str(directory)), ReportReader(directory)
    writer.write([], [sample(None, 1), sample(KEY, 1)])
    assert [one.samples for one in reader.finish()] == [(sample(None, 1), sample(KEY, 1))]
    assert not directory.exists()
    writer.write([], [sample(KEY, 2)])  # nobody listens any more
    writer.close()
    ReportWriter(str(directory)).write([(KEY, 1, 1)], [])  # and nothing can be written


WRITER = """
import sys
from flow_core.interfaces.sampler import Sample
from flow_core.remote.reports import ReportWriter
writer = ReportWriter(sys.argv[1])
for time_ns in range(1, 100000):
    samples = [Sample(time_ns, key, 1, 1, 0.0, 0.0, 0.0, 0, 0.0, 0, 0) for key in (5, None)]
    writer.write([], samples)
    print(time_ns, flush=True)
"""


def test_nothing_that_a_worker_wrote_is_lost_when_it_is_killed(tmp_path: Path) -> None:
    reader = ReportReader(tmp_path)
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            if int(line) == 500:
                worker.kill()
                break
        rest = worker.stdout.read().split()
        worker.wait(20)
    written = int(rest[-1]) if rest else 500
    found = [one.time_ns for reports in reader.finish() for one in reports.samples if one.key is not None]
    assert found[: written + 1] == list(range(1, len(found) + 1))
    assert len(found) >= written


def test_one_process_of_a_node_speaks_for_it(tmp_path: Path) -> None:
    writers, reader = [ReportWriter(str(tmp_path)) for _ in range(2)], ReportReader(tmp_path)
    for writer in writers:
        writer.write([], [sample(None, 1), sample(KEY, 1)])
    keys = [one.key for found in reader.read() for one in found.samples]
    assert sorted(keys, key=str) == [KEY, KEY, None]
    writers[0].close()
    writers[1].write([], [sample(None, 2)])
    assert told(reader) == [2]
    writers[1].close()


# -- the watch


def test_a_watch_tells_starts_and_samples_of_long_tasks_and_a_last_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Sequence[Start], Sequence[Sample]]] = []
    changed = threading.Condition()

    def tell(starts: Sequence[Start], samples: Sequence[Sample]) -> None:
        with changed:
            seen.append((starts, samples))
            changed.notify_all()

    watch = TaskWatch(made_up_sampler(), tell, "watch")
    watch.begin(1, TryKey(10))
    watch.end(1)
    watch.begin(1, KEY)
    with changed:
        assert changed.wait_for(lambda: any(starts for starts, _ in seen), 20)
        assert changed.wait_for(lambda: any(samples for _, samples in seen), 20)
    watch.end(1)
    watch.close()
    watch.close()
    assert [(key, ident) for starts, _ in seen for key, _, ident in starts] == [(KEY, 1)]
    keys = {one.key for _, samples in seen for one in samples}
    assert keys == {None, KEY}
    assert seen[-1][1][0].cpu_user_s == LAST


def test_a_task_within_a_task_ends_both() -> None:
    watch = TaskWatch(made_up_sampler(), lambda _starts, _samples: None, "watch")
    for key in (KEY, TryKey(6)):
        watch.begin(1, key)
    for _ in range(2):
        watch.end(1)
    watch.close()


def test_a_watch_rests_while_nothing_runs_and_wakes_for_a_task() -> None:
    seen = threading.Event()
    watch = TaskWatch(made_up_sampler(), lambda _, samples: seen.set() if samples else None, "watch")
    for _ in range(500):
        if watch._timer.resting:
            break
        threading.Event().wait(0.02)
    assert watch._timer.resting
    watch.begin(1, KEY)
    assert seen.wait(20)
    watch.end(1)
    watch.close()


# -- executors


def processes() -> concurrent.futures.Executor:
    return concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


class Seeds:
    """An executor in the seeds' style, with threads."""

    label = "x"

    def __init__(self) -> None:
        self.pool = concurrent.futures.ThreadPoolExecutor(2)

    def submit(self, func: Callable[..., object], /, *args: object) -> concurrent.futures.Future[object]:
        return self.pool.submit(func, *args)


EXECUTORS: dict[str, Callable[[], Executor]] = {
    "threads": lambda: ThreadPoolExecutor("x"),
    "thread pool": lambda: FuturesExecutor("x", lambda: concurrent.futures.ThreadPoolExecutor(2)),
    "process pool": lambda: FuturesExecutor("x", processes),
    "submit": lambda: SubmitExecutor(Seeds()),
}


class Run:
    """An executor that was started with a sampler."""

    def __init__(self, executor: Executor, directory: Path, sampler: SamplerSpec | None) -> None:
        self.executor, self.listener, self.port = executor, RecordingListener(), RecordingPort()
        self.executor_dir = directory / executor.label
        executor.start(make_context(directory, self.listener, label="x", events=self.port, sampler=sampler))

    def samples(self) -> list[Sample]:
        return [one for event in self.port.events if isinstance(event, Sampled) for one in event.samples if one.key]


Started = Callable[..., Run]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """Give a function that starts an executor."""
    runs: list[Run] = []

    def start(kind: str, sampler: SamplerSpec | None) -> Run:
        runs.append(Run(EXECUTORS[kind](), tmp_path, sampler))
        return runs[-1]

    yield start
    for run in runs:
        run.executor.shutdown(10)
        assert run.listener.breaches == []


@pytest.mark.parametrize("kind", EXECUTORS)
def test_tasks_are_sampled_to_their_end_and_measured(started: Started, tmp_path: Path, kind: str) -> None:
    run, go = started(kind, made_up_sampler()), tmp_path / "go"
    with run.listener.submitting():
        run.executor.submit(KEY, Call(burn, (str(go),)))
    assert run.port.wait_until(lambda: bool(run.samples()), 60)
    assert run.listener.wait_started([KEY], 60)
    go.touch()
    (outcome,) = run.listener.wait_for([KEY], 60)
    assert outcome.usage is not None
    assert 0.5 <= outcome.usage.cpu_user_s + outcome.usage.cpu_system_s < 30
    assert outcome.place is not None
    run.executor.shutdown(10)
    found = run.samples()
    assert {one.key for one in found} == {KEY}
    assert found[-1].cpu_user_s == LAST, "the last sample comes, too"
    assert not (run.executor_dir / "reports").exists()
    if kind in ("process pool", "submit"):
        assert outcome.place.node == os.uname().nodename


@pytest.mark.parametrize("kind", EXECUTORS)
def test_without_a_sampler_nothing_is_measured_and_no_file_written(started: Started, kind: str) -> None:
    run = started(kind, None)
    with run.listener.submitting():
        run.executor.submit(KEY, Call(divmod, (7, 2)))
    (outcome,) = run.listener.wait_for([KEY], 60)
    assert (outcome.value, outcome.usage) == ((3, 1), None)
    assert run.port.events == []
    assert not run.executor_dir.exists()


@pytest.mark.parametrize("kind", EXECUTORS)
def test_a_sampler_that_is_not_installed_costs_no_task(started: Started, kind: str) -> None:
    run = started(kind, SamplerSpec("no_such_module:Sampler", 0.1, thread_factory="no_such_module:Sampler"))
    with run.listener.submitting():
        run.executor.submit(KEY, Call(divmod, (7, 2)))
    assert run.listener.wait_for([KEY], 60)[0].value == (3, 1)


def test_a_failed_task_is_measured_as_well(started: Started) -> None:
    run = started("process pool", made_up_sampler())
    with run.listener.submitting():
        run.executor.submit(KEY, Call(divmod, (7, 0)))
    (outcome,) = run.listener.wait_for([KEY], 60)
    assert isinstance(outcome.error, ZeroDivisionError)
    assert outcome.usage is not None


def test_samples_of_a_worker_that_was_killed_arrive(started: Started, tmp_path: Path) -> None:
    run = started("process pool", made_up_sampler())
    with run.listener.submitting():
        run.executor.submit(KEY, Call(wait_for_file, (str(tmp_path / "never"),)))
    assert run.listener.wait_started([KEY], 60)
    assert run.port.wait_until(lambda: bool(run.samples()), 60)
    os.kill(run.listener.starts[KEY][0][1].pid, signal.SIGKILL)
    (outcome,) = run.listener.wait_for([KEY], 60)
    assert outcome.verdict is Verdict.LOST
    assert outcome.loss is not None
    assert outcome.loss.kind is LossKind.EXECUTOR
    run.executor.shutdown(10)
    assert not (run.executor_dir / "reports").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="nobody counts by thread elsewhere")
def test_the_commands_of_a_bash_task_in_a_thread_are_its_own(started: Started, tmp_path: Path) -> None:
    run, go = started("threads", made_up_sampler()), tmp_path / "go"
    burn = f"{sys.executable} -c 'import time; a = bytearray(60 << 20)\nwhile time.process_time() < 0.6: pass'"
    with run.listener.submitting():
        run.executor.submit(KEY, Call(lambda: burn, (), {}, steps=(BashStep("burn"),)))
        run.executor.submit(TryKey(6), Call(wait_for_file, (str(go),)))
    (bash,) = run.listener.wait_for([KEY], 60)
    go.touch()
    (other,) = run.listener.wait_for([TryKey(6)], 60)
    assert bash.error is None
    assert bash.usage is not None
    assert other.usage is not None
    assert bash.usage.cpu_user_s + bash.usage.cpu_system_s >= 0.6
    assert other.usage.cpu_user_s + other.usage.cpu_system_s < 0.5
    assert bash.usage.max_rss_kb == other.usage.max_rss_kb == 0, "nobody knows whose the memory of the process is"

"""WorkQueueExecutor and TaskVineExecutor: files, options, and what dies there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cctools_executors import BIN, make, need_cctools

import flow
from flow import Config, File, bash_app, python_app
from flow_core.errors import ExecutorBroken, ExecutorError, MissingInputs, TaskRefused
from flow_core.interfaces.call import Call, Resources, TaskSpec
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.outcome import Verdict
from flow_core.interfaces.waiting import CauseKind
from flow_core.testing import calls
from flow_core.testing.driver import Driver

pytestmark = [pytest.mark.services, pytest.mark.timeout(120), pytest.mark.parametrize("kind", ["work_queue", "vine"])]

Drive = Callable[[Executor], Driver]


@pytest.fixture(autouse=True)
def tools() -> None:
    need_cctools()


@python_app
def where() -> str:
    import os

    return os.getcwd()


@bash_app
def upper(inputs: Any = (), outputs: Any = (), stdout: str = "said.txt") -> str:
    return f"tr a-z A-Z <{inputs[0]} >{outputs[0]}; echo said; exit 0"


@python_app
def read(file: File) -> str:
    with open(file) as stream:
        return stream.read()


@python_app
def half(number: int) -> float:
    import math

    return math.floor(number / 2)


def below(pid: int = 0) -> list[Any]:
    import psutil

    return list(psutil.Process(pid or os.getpid()).children(recursive=True))


def processes(name: str) -> list[Any]:
    """Return processes below this one, and jobs of it, that run a program of the tools."""
    import psutil

    path = str(BIN / name)
    return [one for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [""])[0] == path]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Load a Config with one executor, in a directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    loaded: list[Any] = []

    def load(executor: Any) -> Any:
        loaded.append(flow.load(Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), retries=0)))
        return loaded[-1]

    yield load
    for kernel in loaded:
        kernel.cleanup()


def test_files_of_a_task_go_to_its_sandbox_and_come_back(kind: str, run: Callable[..., Any], tmp_path: Path) -> None:
    run(make(kind))
    Path("in.txt").write_text("hello\n")
    made = upper(inputs=[File("in.txt")], outputs=[File("out.txt")])
    assert made.result(60) == 0
    assert Path("out.txt").read_text() == "HELLO\n"
    assert Path("said.txt").read_text() == "said\n"
    assert not where().result(60).startswith(str(tmp_path))


def test_a_file_that_changed_is_sent_anew(kind: str, run: Callable[..., Any]) -> None:
    run(make(kind))
    Path("in.txt").write_text("one")
    os.utime("in.txt", (1_000_000, 1_000_000))
    assert read(File("in.txt")).result(60) == "one"
    Path("in.txt").write_text("two!")
    os.utime("in.txt", (2_000_000, 2_000_000))
    assert read(File("in.txt")).result(60) == "two!"


def test_an_input_that_is_missing_is_named(kind: str, run: Callable[..., Any]) -> None:
    run(make(kind))
    with pytest.raises(MissingInputs, match=r"no-such\.txt"):
        read(File("no-such.txt")).result(60)


def test_functions_may_go_as_source_text(kind: str, run: Callable[..., Any]) -> None:
    run(make(kind, source=True, env={"FLOW_TEST_MODE": "fast"}, init_command="export FLOW_TEST_INITIAL=yes"))
    assert half(7).result(60) == 3
    assert environment("FLOW_TEST_MODE", "FLOW_TEST_INITIAL").result(60) == ["fast", "yes"]


@python_app
def environment(*names: str) -> list[str | None]:
    import os

    return [os.environ.get(name) for name in names]


def test_a_shared_file_system_is_used_as_it_is(kind: str, run: Callable[..., Any], tmp_path: Path) -> None:
    run(make(kind, shared_fs=True))
    Path("in.txt").write_text("hello\n")
    assert upper(inputs=[File("in.txt")], outputs=[File("out.txt")]).result(60) == 0
    assert Path("out.txt").read_text() == "HELLO\n"
    assert where().result(60) == str(tmp_path)


def test_what_tasks_print_is_seen_where_that_is_wanted(
    kind: str, run: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    run(make(kind, see_worker_output=True))
    shout().result(60)
    assert "here I am" in capfd.readouterr().out


@python_app
def shout() -> None:
    print("here I am")


def test_workers_that_somebody_starts_are_used(kind: str, drive: Drive, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    (tmp_path / "work").mkdir()
    executor = make(
        kind,
        provider=None,
        max_workers=float("inf"),
        worker_program=f"{kind}_worker",
        project_password_file=str(password),
    )
    driver = drive(executor)
    key = driver.submit(calls.double, 4)
    driver.poll(lambda: bool(driver.executor.why_waiting(key)), "no cause")
    assert CauseKind.NO_WORKER in {cause.kind for cause in driver.executor.why_waiting(key)}
    command = [str(BIN / f"{kind}_worker"), "--single-shot", "--cores", "1", "--workdir", str(tmp_path / "work")]
    with subprocess.Popen(
        [*command, "--password", str(password), "127.0.0.1", str(executor.bound_port)], stdout=subprocess.DEVNULL
    ) as worker:
        try:
            assert driver.outcome(key).value == 8
            wide = driver.submit_call(Call(calls.nothing, spec=TaskSpec(Resources(cores=64))))
            driver.poll(lambda: "64 cores" in str(driver.executor.why_waiting(wide)), "the lack is not told")
            driver.executor.cancel([wide])
            assert driver.outcome(wide).verdict is Verdict.CANCELLED
        finally:
            worker.terminate()


def test_a_task_that_is_too_large_for_a_worker_is_refused_by_name(kind: str, drive: Drive) -> None:
    driver = drive(make(kind, mem_per_worker=0.5))
    for spec, text in (
        (TaskSpec(Resources(cores=64)), "cores 64, and a worker has 2"),
        (TaskSpec(Resources(memory_mb=10**9)), "and a worker has 1000"),
        (TaskSpec(Resources(gpus=1)), "gpus 1, and a worker has 0"),
    ):
        outcome = driver.outcome(driver.submit_call(Call(calls.nothing, spec=spec)))
        assert outcome.verdict is Verdict.REFUSED
        assert isinstance(outcome.error, TaskRefused)
        assert text in str(outcome.error)


def test_a_killed_worker_loses_its_tasks_once_and_another_takes_its_place(
    kind: str, drive: Drive, tmp_path: Path
) -> None:
    driver = drive(make(kind))
    runs = tmp_path / "runs"
    key = driver.submit(note_and_hold, str(runs))
    driver.poll(runs.exists, "it did not begin")
    [worker] = [one for one in processes(f"{kind}_worker") if str(executor_port(driver)) in one.cmdline()]
    worker.send_signal(signal.SIGKILL)
    outcome = driver.outcome(key)
    assert outcome.verdict is Verdict.LOST
    assert driver.outcome(driver.submit(calls.double, 3)).value == 6
    assert runs.read_text() == "run\n"  # neither library has run it again


def executor_port(driver: Driver) -> int:
    port = getattr(driver.executor, "bound_port", 0)
    assert port
    return int(port)


def note_and_hold(path: str) -> None:
    """Say in a file that it runs, and sleep."""
    import time

    with open(path, "a") as stream:
        stream.write("run\n")
    time.sleep(60)


def test_a_killed_manager_breaks_the_executor(kind: str, drive: Drive) -> None:
    driver = drive(make(kind))
    driver.outcome(driver.submit(calls.nothing))
    held = driver.hold("held")
    driver.wait_held("held")
    [manager] = [one for one in below() if one.cmdline()[:1] == [str(BIN / "python3")]]
    manager.send_signal(signal.SIGKILL)
    assert driver.outcome(held).verdict is Verdict.LOST
    driver.poll(lambda: broken(driver), "the executor did not notice")


def broken(driver: Driver) -> bool:
    try:
        driver.submit(calls.nothing)
    except ExecutorBroken as error:
        return "manager" in str(error)
    return False


def test_a_python_without_the_bindings_is_named(kind: str, tmp_path: Path) -> None:
    driver = Driver(make(kind, manager_python=sys.executable), tmp_path, 60)
    with pytest.raises(ExecutorError, match="has no ndcctools"):
        driver.start()


def test_a_worker_without_a_fitting_python_is_named(kind: str, drive: Drive) -> None:
    driver = drive(make(kind, python=str(BIN / "python3")))
    outcome = driver.outcome(driver.submit(calls.nothing))
    assert outcome.verdict is Verdict.REFUSED
    assert "this Python is 3.13" in str(outcome.error)


def test_nothing_is_left_of_a_killed_script(kind: str, tmp_path: Path) -> None:
    import psutil

    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent), kind=kind))
    before = {one.pid for name in ("python3", f"{kind}_worker") for one in processes(name)}
    with subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "runs\n"
            found = [one for name in ("python3", f"{kind}_worker") for one in processes(name) if one.pid not in before]
        finally:
            process.kill()
    assert len(found) >= 2  # the manager and a worker
    _, alive = psutil.wait_procs(found, timeout=60)
    assert not alive


SCRIPT = """
import sys
import time
sys.path[:0] = [{here!r}, {here!r} + "/../providers"]
import flow
from cctools_executors import make
from flow import Config, python_app

@python_app
def wait(seconds):
    import time
    time.sleep(seconds)

if __name__ == "__main__":
    flow.load(Config(executors=[make({kind!r})]))
    wait(0).result(60)
    wait(600)
    print("runs", flush=True)
    time.sleep(600)
"""

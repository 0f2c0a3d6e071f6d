"""Whatever a task does to its process, the next one finds it as the first one did."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flow_core.executors.futures import FuturesExecutor
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.outcome import Verdict
from flow_core.testing.driver import Driver
from flow_executors.testing.direct_run import make_direct_executor
from flow_executors.testing.local_run import PATIENCE_S, make_executor, run_id_of, wait_gone


def make_pool() -> Executor:
    context = multiprocessing.get_context("forkserver")
    return FuturesExecutor("pool", lambda: concurrent.futures.ProcessPoolExecutor(1, mp_context=context))


MAKERS: dict[str, Callable[[], Executor]] = {
    "htex": lambda: make_executor(max_workers=1),
    "llex": lambda: make_direct_executor(max_workers=1),
    "pool": make_pool,
}


@pytest.fixture(params=MAKERS, scope="module")
def driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A started executor of one worker."""
    started = Driver(MAKERS[request.param](), tmp_path_factory.mktemp("state") / "run", PATIENCE_S)
    started.start()
    yield started
    started.release()
    started.shutdown()
    started.check()
    wait_gone(run_id_of(started))


def look() -> dict[str, object]:
    """Describe the process."""
    import decimal
    import gc
    import locale
    import logging
    import resource
    import signal
    import socket
    import sys
    import tempfile
    import warnings

    os.umask(mask := os.umask(0))
    signals = [number for number in signal.Signals if number not in (signal.SIGKILL, signal.SIGSTOP)]
    timers = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    return {
        "pid": os.getpid(),
        "directory": os.getcwd(),
        "umask": mask,
        "variables": dict(os.environ),
        "class of variables": type(os.environ).__name__,
        "timers": [signal.getitimer(which) for which in timers],
        "handlers": [str(signal.getsignal(number)) for number in signals],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "path": list(sys.path),
        "arguments": list(sys.argv),
        "streams": [getattr(sys, name).closed for name in ("stdin", "stdout", "stderr")],
        "limits": [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT")],
        "affinity": sorted(os.sched_getaffinity(0)),
        "recursion": sys.getrecursionlimit(),
        "switching": sys.getswitchinterval(),
        "collecting": gc.isenabled(),
        "tracing": str(sys.gettrace()),
        "logging": logging.root.manager.disable,
        "sockets": socket.getdefaulttimeout(),
        "temporary": tempfile.gettempdir(),
        "filters": [str(each) for each in warnings.filters],
        "locale": locale.setlocale(locale.LC_ALL),
        "decimals": decimal.getcontext().prec,
    }


# -- hostile tasks; each is short, so that only what it calls gives it away


def moves_away(tmp: str) -> None:
    os.chdir(tmp)


def moves_into_nothing(tmp: str) -> None:
    os.mkdir(f"{tmp}/gone")
    os.chdir(f"{tmp}/gone")
    os.rmdir(f"{tmp}/gone")


def moves_by_descriptor(tmp: str) -> None:
    os.fchdir(os.open(tmp, os.O_RDONLY))


def hides_files(tmp: str) -> None:
    os.umask(0o777)


def changes_variables(tmp: str) -> None:
    os.environ["STRAY"] = "1"
    os.environ.pop("PATH")
    os.environ["HOME"] = tmp
    os.environb[b"BYTES"] = b"\xff"


def replaces_the_variables(tmp: str) -> None:
    os.environ = {"STRAY": "1"}  # type: ignore[assignment]  # noqa: B003  (that is what is tested)


def arms_timers(tmp: str) -> None:
    import signal

    def fail(number: int, frame: object) -> None:
        raise TimeoutError("of the task before")

    for number in (signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF):
        signal.signal(number, fail)
    for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(which, 0.2, 0.2)


def sets_an_alarm(tmp: str) -> None:
    import signal

    signal.alarm(1)


def ignores_signals(tmp: str) -> None:
    import signal

    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number <= 31:
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})


def bends_the_path(tmp: str) -> None:
    import sys

    sys.path.insert(0, tmp)
    sys.argv.append("--stray")


def replaces_the_path(tmp: str) -> None:
    import sys

    sys.path = [tmp]
    sys.argv = []


def takes_the_streams(tmp: str) -> None:
    import sys

    sys.stdin = sys.stderr = sys.stdout = None  # type: ignore[assignment]  # that is what is tested


def closes_the_streams(tmp: str) -> None:
    import sys

    sys.stdout.close()
    sys.stderr.close()


def lowers_limits(tmp: str) -> None:
    import resource

    for which in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CPU):
        resource.setrlimit(which, (64, resource.getrlimit(which)[1]))


def pins_itself(tmp: str) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def turns_knobs(tmp: str) -> None:
    import decimal
    import gc
    import logging
    import socket
    import sys
    import tempfile
    import warnings

    sys.setrecursionlimit(400)
    sys.setswitchinterval(0.5)
    gc.disable()
    logging.disable(logging.CRITICAL)
    socket.setdefaulttimeout(0.001)
    tempfile.tempdir = "/nowhere"
    warnings.simplefilter("error")
    decimal.getcontext().prec = 3
    sys.settrace(lambda *_: None)


def leads_tempfile_astray(tmp: str) -> None:
    import tempfile

    os.environ["TMPDIR"] = tmp
    tempfile.tempdir = None
    tempfile.gettempdir()


def fails_afterwards(tmp: str) -> None:
    os.chdir(tmp)
    raise ValueError("too late")


HOSTILE = [
    value
    for name, value in list(globals().items())
    if callable(value) and value.__doc__ is None and getattr(value, "__annotations__", {}).get("tmp") == "str"
]


def changed(before: object, after: object) -> dict[str, object]:
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def test_each_hostile_task_leaves_nothing_to_the_next(driver: Driver, tmp_path: Path) -> None:
    (first,) = driver.outcomes([driver.submit(look)])
    for task in HOSTILE:
        (own, after) = driver.outcomes([driver.submit(task, str(tmp_path)), driver.submit(look)])
        assert own.verdict is (Verdict.APP_ERROR if task is fails_afterwards else Verdict.OK), (task, own.error)
        assert changed(first.value, after.value) == {}, task


def moves_in_c(tmp: str) -> None:
    import ctypes
    import time

    ctypes.CDLL(None).chdir(tmp.encode())
    ctypes.CDLL(None).umask(0o777)
    time.sleep(0.01)


def test_what_c_code_changes_in_a_task_of_some_milliseconds_is_put_back(driver: Driver, tmp_path: Path) -> None:
    (first, _, after) = driver.outcomes(
        [driver.submit(look), driver.submit(moves_in_c, str(tmp_path)), driver.submit(look)]
    )
    assert changed(first.value, after.value) == {}


SETTINGS = """
import os, sys, signal
os.environ["SETTING"] = "of the module"
sys.path.append({path!r})
"""


def uses_settings(tmp: str) -> tuple[str | None, bool]:
    import sys

    added = f"{tmp}/modules"
    if "flow_test_settings" not in sys.modules:
        sys.path.insert(0, added)
        import flow_test_settings  # type: ignore[import-not-found]  # noqa: F401  (made by the test)

        sys.path.remove(added)
        os.environ["STRAY"] = "1"
    return os.environ.get("SETTING"), tmp in sys.path


def test_what_a_module_sets_as_it_is_loaded_stays(driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "flow_test_settings.py").write_text(SETTINGS.format(path=str(tmp_path)))
    outcomes = driver.outcomes([driver.submit(uses_settings, str(tmp_path)) for _ in range(3)])
    assert [outcome.value for outcome in outcomes] == [("of the module", True)] * 3
    (after,) = driver.outcomes([driver.submit(os.environ.get, "STRAY")])
    assert after.value is None


def closes_its_streams(tmp: str) -> int:
    import time

    for number in (0, 1, 2):
        os.close(number)
    time.sleep(0.01)
    return os.getpid()


def swaps_its_output(tmp: str) -> int:
    os.dup2(os.open(f"{tmp}/output", os.O_WRONLY | os.O_CREAT), 1)
    return os.getpid()


@pytest.mark.parametrize("task", [closes_its_streams, swaps_its_output])
def test_a_worker_that_cannot_be_put_right_is_replaced(
    driver: Driver, tmp_path: Path, task: Callable[[str], int]
) -> None:
    if driver.executor.label == "pool":
        pytest.skip("the processes of a pool are the user's")
    outcomes = driver.outcomes([driver.submit(task, str(tmp_path)), *(driver.submit(os.getpid) for _ in range(20))])
    assert {outcome.verdict for outcome in outcomes} == {Verdict.OK}
    assert outcomes[0].value not in {outcome.value for outcome in outcomes[1:]}

"""Ctrl-C that comes just as the main thread begins to wait: Python has it, and the thread sleeps.

A signal that another thread's C code is given leaves the main thread asleep in the same way, each time.
"""

from __future__ import annotations

import _imp
import concurrent.futures
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flow_core as flow
from flow_core.hooks import frame_of

_LET_GO = threading.Event()
_SOON_S = 8.0


@flow.python_app
def hold() -> bool:
    return _LET_GO.wait(60)


@pytest.fixture(autouse=True)
def loaded(tmp_path: Path) -> Iterator[None]:
    _LET_GO.clear()
    with flow.load(flow.Config(run_dir=tmp_path / "runinfo")):
        yield
        _LET_GO.set()


_WAYS: dict[str, Callable[[Any], object]] = {
    "result": lambda future: future.result(),
    "result within": lambda future: future.result(40),
    "exception": lambda future: future.exception(),
    "wait_for_current_tasks": lambda future: flow.dfk().wait_for_current_tasks(),
    "concurrent.futures.wait": lambda future: concurrent.futures.wait([future]),
    "concurrent.futures.wait within": lambda future: concurrent.futures.wait([future], 40),
    "as_completed": lambda future: next(concurrent.futures.as_completed([future])),
    "flow.map": lambda future: next(flow.map(lambda _: future, [1])),
    "flow.map unordered": lambda future: next(flow.map(lambda _: future, [1], ordered=False)),
}


@pytest.mark.parametrize("way", _WAYS)
def test_a_signal_that_does_not_wake_the_main_thread_is_seen_all_the_same(way: str) -> None:
    future = hold()
    came = threading.Event()
    main = threading.get_ident()

    def interrupt() -> None:
        while (frame := frame_of(main)) and frame.f_code.co_name not in ("wait_at", "wait"):
            time.sleep(0.01)
        time.sleep(0.1)  # from entering the function to being asleep
        came.set()
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    sender = threading.Thread(target=interrupt, daemon=True)
    sender.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        _WAYS[way](future)
    assert came.is_set()
    assert time.monotonic() - begun < _SOON_S
    sender.join(5)


def test_the_sleep_of_the_stdlib_functions_still_ends_in_time() -> None:
    future = hold()
    begun = time.monotonic()
    done, left = concurrent.futures.wait([future], 1.3)
    assert (done, left) == (set(), {future})
    assert 1.2 < time.monotonic() - begun < _SOON_S
    with pytest.raises(concurrent.futures.TimeoutError):
        next(concurrent.futures.as_completed([future], 0.05))


_IMPORTS = "<frozen importlib._bootstrap>"


def _code(file: str, name: str, step: str, **names: object) -> Callable[..., object]:
    """Return a function with that name and file name: a frame of it looks like one of the import system."""
    space: dict[str, Any] = dict(names)
    exec(compile(f"def {name}(*_):\n    {step}\n", file, "exec"), space)
    function: Callable[..., object] = space[name]
    return function


def _then_wait(step: Callable[[], object]) -> None:
    step()
    threading.Event().wait(_SOON_S)


@pytest.mark.parametrize(("file", "name"), [(_IMPORTS, "cb"), ("mine.py", "__del__")])
def test_ctrl_c_that_comes_where_python_drops_exceptions_is_not_lost(file: str, name: str) -> None:
    class Thing:
        pass

    came: list[int] = []
    interrupted = _code(file, name, "raise_signal(2); came.append(1)", raise_signal=signal.raise_signal, came=came)
    things = [Thing()]
    kept = weakref.ref(things[0], interrupted)
    with pytest.raises(KeyboardInterrupt):
        _then_wait(things.clear)
    assert kept() is None
    assert came == [1]  # nothing was raised there


def test_ctrl_c_leaves_no_lock_of_the_imports_held() -> None:
    def step() -> None:
        # What _get_module_lock does: interrupted before the try, it leaves the lock to nobody.
        _code(
            _IMPORTS,
            "_get_module_lock",
            "acquire_lock(); raise_signal(2); release_lock()",
            raise_signal=signal.raise_signal,
            acquire_lock=_imp.acquire_lock,
            release_lock=_imp.release_lock,
        )()

    with pytest.raises(KeyboardInterrupt):
        _then_wait(step)
    held = _imp.lock_held()
    if held:  # so that the other tests can import
        _imp.release_lock()
    assert not held


def test_ctrl_c_ends_a_wait_inside_the_import_system() -> None:
    lock = threading.Lock()
    lock.acquire()
    wait = _code(_IMPORTS, "acquire", f"lock.acquire(True, {_SOON_S})", lock=lock)
    main = threading.get_ident()
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        wait()
    timer.join(5)


_TERMINATED = """
import signal, threading
import flow_core as flow

space = {"raise_signal": signal.raise_signal}
code = "def cb(): raise_signal(15); print('went on', flush=True)"
exec(compile(code, "<frozen importlib._bootstrap>", "exec"), space)
with flow.load(flow.Config()):
    space["cb"]()
    threading.Event().wait(40)
"""


def test_sigterm_inside_the_import_system_is_raised_a_moment_later(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _TERMINATED], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "went on\n"), done.stderr

"""A script some of whose hooks never return ends all the same: by itself, by ``clear()`` and by a signal."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import signal, sys, threading
import flow

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell has set
begun = threading.Event()

def hangs(*_given):
    begun.set()
    threading.Event().wait()

class Value:
    def __reduce__(self):
        hangs()

what, end = sys.argv[1:]
options = {what: hangs} if what != "value" else {}
executors = [flow.ThreadPoolExecutor("a"), flow.ThreadPoolExecutor("b")]
if what == "value":
    import concurrent.futures
    executors.append(concurrent.futures.ProcessPoolExecutor(1))
kernel = flow.load(flow.Config(executors=executors, retries=1, **options))

@flow.python_app(executors=["a"])
def give():
    return Value()

@flow.python_app(executors=["ProcessPoolExecutor"])
def take(value):
    pass

@flow.python_app
def fail(after):
    raise ValueError

future = take(give()) if what == "value" else fail(give())
assert begun.wait(30)
print("hangs", flush=True)
if end == "clear":
    flow.clear()
elif end != "end":
    future.result()
"""


@pytest.mark.parametrize("what", ["retry_handler", "executor_chooser", "value"])
@pytest.mark.parametrize("end", ["end", "clear", "SIGINT", "SIGTERM"])
def test_a_script_with_a_hook_that_hangs_ends(tmp_path: Path, what: str, end: str) -> None:
    (tmp_path / "script.py").write_text(_SCRIPT)
    process = subprocess.Popen(
        [sys.executable, "script.py", what, end],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "hangs\n"
        number = getattr(signal, end, None)
        if number is not None:
            process.send_signal(number)
        _, errors = process.communicate(timeout=60)  # the end may take 30 s, and not for ever
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (0 if number is None else -number), errors
    if end != "SIGTERM":
        assert "1 unfinished task was cancelled" in errors

"""How whole programs end: plainly, by Ctrl-C, and in forked children."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run_script(tmp_path: Path, text: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(text)
    return subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )


_HEAD = """
import os, threading, time
import flow_core as flow

@flow.python_app
def sleep(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
    return seconds
"""


def test_a_plain_exit_cancels_with_one_line_that_counts(tmp_path: Path) -> None:
    done = run_script(tmp_path, _HEAD + "flow.load()\nfutures = [sleep(1000) for _ in range(5)]\n")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "5 unfinished tasks were cancelled" in done.stderr


_LEAVE = """
started = threading.Event()

@flow.python_app
def block():
    started.set()
    threading.Event().wait(40)

with flow.load({config}):
    future = {app}
    {then}
"""


def test_leaving_a_with_block_says_how_many_tasks_it_cancels(tmp_path: Path) -> None:
    done = run_script(tmp_path, _HEAD + _LEAVE.format(config="", app="sleep(1000)", then="sleep(1000)"))
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert (
        "flow: 2 unfinished tasks were cancelled at the end of the with block (task 0 (sleep), task 1 (" in done.stderr
    )


def test_leaving_a_with_block_says_nothing_of_tasks_that_were_cancelled_or_waited_for(tmp_path: Path) -> None:
    then = "started.wait(30); future.cancel(kill=True)"
    done = run_script(tmp_path, _HEAD + _LEAVE.format(config="", app="block()", then=then))
    assert "unfinished" not in done.stderr
    config = "flow.Config(exit_mode='wait')"
    done = run_script(tmp_path, _HEAD + _LEAVE.format(config=config, app="sleep(0.2)", then="pass"))
    assert (done.returncode, done.stderr) == (0, "")


def test_leaving_a_with_block_by_an_exception_shows_only_that(tmp_path: Path) -> None:
    done = run_script(tmp_path, _HEAD + _LEAVE.format(config="", app="sleep(1000)", then="raise KeyError('mine')"))
    assert "KeyError: 'mine'" in done.stderr
    assert "unfinished" not in done.stderr


def test_the_end_of_a_script_names_the_task_that_cannot_be_ended_and_does_not_wait_for_it(tmp_path: Path) -> None:
    then = "started.wait(30); future.cancel(kill=True); began = time.monotonic()"
    timing = "print(time.monotonic() - began < 20)\n"
    done = run_script(tmp_path, _HEAD + _LEAVE.format(config="", app="block()", then=then) + timing)
    assert done.stdout == "True\n"
    assert "flow: left behind at the end of the run: task 0 (block) on thread threads_0" in done.stderr


def test_an_exit_with_nothing_unfinished_says_nothing(tmp_path: Path) -> None:
    done = run_script(tmp_path, _HEAD + "flow.load()\nprint(sleep(0).result())\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_ctrl_c_ends_the_program(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        _HEAD
        + """
import signal
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
with flow.load():
    sleep(1000).result()
""",
    )
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode != 0


def test_ctrl_c_while_apps_are_called_loses_no_task(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
import os, random, signal, threading, time
import flow_core as flow

@flow.python_app
def add(x):
    return x + 1

random.seed(7)
armed = threading.Event()

def interrupt():
    while armed.wait(60):
        armed.clear()
        time.sleep(random.uniform(0.0005, 0.01))
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
before = signal.getsignal(signal.SIGINT)
kernel = flow.load()
interrupts = 0
for _ in range(30):
    futures = []
    try:
        armed.set()
        future = add(0)
        while True:
            future = add(future) if len(futures) % 3 else add(0)
            futures.append(future)
    except KeyboardInterrupt:
        interrupts += 1
    for future in futures:
        future.result(timeout=20)
kernel.wait_for_current_tasks()
print(interrupts, kernel.summary().failed, kernel.summary().unfinished, kernel._reactor.bugs)
kernel.cleanup()
print(signal.getsignal(signal.SIGINT) is before)
""",
    )
    assert done.stdout == "30 0 0 0\nTrue\n", done.stderr


def test_a_forked_child_has_no_kernel_and_hangs_on_nothing(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        _HEAD
        + """
with flow.load():
    future = sleep(0.5)
    child = os.fork()
    if child == 0:
        for action in (lambda: future.result(), lambda: sleep(0)):
            try:
                action()
            except Exception as error:
                print(type(error).__name__, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(future.result())
""",
    )
    assert done.stdout.split() == ["KernelClosedError", "KernelClosedError", "0.5"], done.stderr


_OPEN_END = """
import concurrent.futures, sys
from flow_core.executors.threads import ThreadPoolExecutor

if __name__ == "__main__":
    kernel = flow.load(flow.Config(executors=[{executor}], checkpoint_mode="dfk_exit"))
    assert sleep(0).result() == 0
    futures = [sleep(0.2) for _ in range({pending})]
    if futures:
        futures[-1].add_done_callback(lambda future: print("callback", flush=True))
    print(kernel.run_dir, flush=True)
    {then}
"""
_THREADS, _PROCESSES = "ThreadPoolExecutor(max_threads=1)", "concurrent.futures.ProcessPoolExecutor(1)"


@pytest.mark.parametrize("executor", [_THREADS, _PROCESSES], ids=["threads", "processes"])
@pytest.mark.parametrize(
    ("pending", "then", "code"),
    [(0, "", 0), (3, "", 0), (3, "raise RuntimeError", 1), (3, "sys.exit(3)", 3)],
    ids=["done", "pending", "error", "exit"],
)
def test_a_script_that_leaves_its_kernel_open_has_it_cleaned_up(
    tmp_path: Path, executor: str, pending: int, then: str, code: int
) -> None:
    done = run_script(tmp_path, _HEAD + _OPEN_END.format(executor=executor, pending=pending, then=then))
    assert done.returncode == code
    run_dir, *callbacks = done.stdout.splitlines()
    assert callbacks == ["callback"][:pending]
    log = Path(run_dir, "flow.log").read_text()
    assert "[ERROR]" not in log
    assert " ended: " in log


_FORKS_IN_TASK = (
    """
import os, signal, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forks in processes with threads
# Before Flow is imported, so that the signal comes while the child still has the parent's handlers.
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
"""
    + _HEAD
    + """
@flow.python_app
def forks():
    child = os.fork()
    if not child:
        time.sleep(30)
        os._exit(0)
    return os.waitpid(child, 0)[1], signal.pthread_sigmask(signal.SIG_BLOCK, ())

with flow.load():
    waits = sleep(1)
    print(forks().result(), waits.result())
"""
)


def test_a_child_that_is_terminated_as_it_is_forked_dies_and_leaves_the_kernel_alone(tmp_path: Path) -> None:
    done = run_script(tmp_path, _FORKS_IN_TASK)
    assert (done.stdout, done.stderr) == ("(15, set()) 1\n", "")


_LOCKS = """
import os, threading
from flow_core.fork_locks import renewed_after_fork
locks = [renewed_after_fork(made()) for made in (threading.Lock, threading.RLock, threading.Condition)]
held, free = threading.Event(), threading.Event()

def hold():
    with locks[0], locks[1], locks[2]:
        held.set()
        free.wait(40)

threading.Thread(target=hold).start()
held.wait(40)
child = os.fork()
if not child:
    os._exit(0 if all(lock.acquire(timeout=5) for lock in locks) else 1)
print(os.waitpid(child, 0)[1])
free.set()
"""


def test_locks_that_other_threads_held_are_free_in_a_forked_child(tmp_path: Path) -> None:
    assert run_script(tmp_path, _LOCKS).stdout == "0\n"

"""Looks at what threads are doing, as the watches of hooks and full pools take them."""

from __future__ import annotations

import subprocess
import sys

_COLLECTS_MEANWHILE = """
import gc, sys, threading
from flow_core.hooks import where_in_users_code

class Knot: pass

me = threading.get_ident()
gc.collect()
for threshold in list(range(1, 60)) * 5:
    gc.disable()
    knot = Knot(); knot.itself = knot; knot.local = threading.local(); knot.local.x = 1; del knot
    gc.set_threshold(threshold, 1, 1)
    gc.enable()
    where_in_users_code(me)
    assert gc.isenabled()
print("done")
"""


def test_a_look_does_not_hang_where_garbage_with_thread_locals_is_due() -> None:
    # In a process of its own: a hang holds the lock that even a timeout of the test would need.
    done = subprocess.run([sys.executable, "-c", _COLLECTS_MEANWHILE], capture_output=True, text=True, timeout=40)
    assert done.stdout == "done\n", done.stderr


_FORKS_MEANWHILE = """
import gc, os, threading
from flow_core.hooks import where_in_users_code

me, stop = threading.get_ident(), threading.Event()

def look():
    while not stop.is_set():
        where_in_users_code(me)

thread = threading.Thread(target=look)
thread.start()
for _ in range(200):
    child = os.fork()
    if not child:
        where_in_users_code(me)
        os._exit(0 if gc.isenabled() else 3)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        break
stop.set()
thread.join()
print("child", code)
"""


def test_children_that_are_forked_meanwhile_collect_garbage_and_can_look() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORKS_MEANWHILE], capture_output=True, text=True, timeout=40
    )
    assert done.stdout == "child 0\n", done.stderr


_INTERRUPTED = """
import gc, signal, threading, time
from flow_core.hooks import frame_of

class Stop(Exception): pass

def stop(*_):
    raise Stop

signal.signal(signal.SIGALRM, stop)
me, off, looked, end = threading.get_ident(), 0, 0, time.monotonic() + 2
while time.monotonic() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002)
        while True:
            frame_of(me)
            looked += 1
    except Stop:
        off += not gc.isenabled()
print("off", off, looked > 100)
"""


def test_an_exception_of_a_signal_during_a_look_leaves_the_collection_of_garbage_on() -> None:
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, timeout=40)
    assert done.stdout == "off 0 True\n", done.stderr

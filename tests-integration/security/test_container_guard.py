"""Another user at the door of the process that removes containers: it is not taken for it, and holds nothing up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from security_attacker import FLOOD, Attacker

# Takes each name that it can foresee or sees on a command line, and lets nobody in.
TAKE = """
import os, socket, sys
kept = []
def take(name):
    end = socket.socket(socket.AF_UNIX)
    try:
        end.bind("\\0" + name)
    except OSError:
        return False
    end.listen(0)
    full = socket.socket(socket.AF_UNIX)
    full.setblocking(False)
    full.connect("\\0" + name)
    kept.extend((end, full))
    return True
for number in range(80):
    take(f"flow-container-guard-{sys.argv[1]}-{sys.argv[2]}" + "-" * number)
print("taken", flush=True)
while True:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = open(f"/proc/{entry}/cmdline").read().split("\\0")
            except OSError:
                continue
            for word in words:
                if word.startswith("flow-container-guard-"):
                    take(word)
"""
TELL = """
import os, sys
from flow_core.remote.container_removal import guarded
print(os.getpid(), flush=True)
sys.stdin.readline()
guarded.begin("one", ["true"])
with open("/proc/net/unix") as sockets:
    print([line.split()[-1][1:] for line in sockets if "@flow-container-guard-" in line], flush=True)
sys.stdin.readline()
for number in range(200):
    guarded.begin(f"{number}", ["true"])
    guarded.end(f"{number}", ["true"])
print("done", flush=True)
"""


@contextmanager
def owner() -> Iterator[subprocess.Popen[str]]:
    """A process of this user's that will have containers."""
    process = subprocess.Popen(
        [sys.executable, "-c", TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    # A wait of the kernel's would be for ever: the test ends it, and fails by what is missing.
    ends = threading.Timer(40.0, process.kill)
    ends.start()
    try:
        yield process
    finally:
        ends.cancel()
        process.kill()
        process.communicate(timeout=30)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.timeout(90)
def test_a_name_that_another_user_can_foresee_is_not_that_of_the_guard(attacker: Attacker) -> None:
    with owner() as process:
        stranger = attacker.start(TAKE, os.geteuid(), line(process))
        try:
            while line(stranger) != "taken":
                assert stranger.poll() is None
            go_on(process)
            assert "flow-container-guard" in line(process)
        finally:
            stranger.kill()
            stranger.communicate(timeout=30)


@pytest.mark.timeout(90)
def test_connections_of_another_user_without_end_keep_no_container_from_its_guard(attacker: Attacker) -> None:
    with owner() as process:
        line(process)
        before = guards()
        go_on(process)
        assert "flow-container-guard" in line(process)
        (name,) = guards() - before
        floods = [attacker.start(FLOOD, name) for _ in range(2)]
        try:
            assert [line(flood) for flood in floods] == ["begun", "begun"]
            go_on(process)
            assert line(process) == "done"
            assert [flood.poll() for flood in floods] == [None, None]
        finally:
            for flood in floods:
                flood.kill()
                flood.communicate(timeout=30)


def guards() -> set[str]:
    """Return the names of all guards of this machine."""
    with open("/proc/net/unix") as sockets:
        return {one.split()[-1][1:] for one in sockets if "@flow-container-guard-" in one}

"""Who belongs to whom among processes, also after parents have ended and ids were given again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, strategies as st

from flow_core.remote import processes
from flow_core.remote.processes import Process, Tree, below, carries, end, look, table, ticks_ago


def line(pid: int, parent: int, start: int = 0, session: int = 1, state: str = "S", name: str = "x") -> Process:
    fields = [state, parent, session, session, *[0] * 7, 3, 4, *[0] * 6, start, 0]
    return Process(f"{pid} ({name}) {' '.join(map(str, fields))}".encode())


def world(*found: Process) -> dict[int, Process]:
    return {process.pid: process for process in found}


def test_a_process_is_read_whatever_it_calls_itself() -> None:
    process = line(7, 3, start=11, session=5, state="T", name="a) R (b c")
    assert (process.pid, process.name, process.parent, process.session) == (7, "a) R (b c", 3, 5)
    assert (process.state, process.stopped, process.ticks, process.start) == ("T", True, 7, 11)


def test_this_process_is_seen_and_who_is_not_there_is_not() -> None:
    me = look(os.getpid())
    assert me is not None
    assert (me.parent, me.group, me.session) == (os.getppid(), os.getpgrp(), os.getsid(0))
    assert me.start <= ticks_ago(0)
    assert os.getpid() in table()
    assert look(1 << 22) is None


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(0, 40))
def test_all_descendants_are_found_and_nobody_else(parents: list[int], root: int) -> None:
    family = {child: line(child, parent) for child, parent in enumerate(parents, start=1) if parent < child}
    found = [one.pid for one in below([root], family)]

    def descends(pid: int) -> bool:
        while pid in family:
            pid = family[pid].parent
            if pid == root:
                return True
        return False

    assert sorted(found) == [pid for pid in family if descends(pid)]
    assert all(family[pid].parent == root or found.index(family[pid].parent) < at for at, pid in enumerate(found))


def test_who_started_before_is_left_out_with_all_below_it() -> None:
    family = world(line(1, 0), line(2, 1, start=5), line(3, 2, start=20), line(4, 1, start=20))
    assert [one.pid for one in below([1], family, since=10)] == [4]


def test_what_was_found_once_stays_known_without_its_parents() -> None:
    tree = Tree(lambda now: [now[2]] if 2 in now else [])
    assert tree.look(world(line(2, 1), line(3, 2, start=8))) == [2, 3]
    assert tree.look(world(line(3, 1, start=8), line(4, 3, start=9))) == [3, 4]
    assert tree.look(world(line(3, 1, start=50), line(4, 1, start=9))) == [4]  # the id of 3 was given again


def test_orphans_are_known_by_their_mark_from_their_start_on() -> None:
    asked: list[int] = []

    def marked(process: Process) -> bool:
        asked.append(process.pid)
        return process.name == "mine"

    now = world(
        line(10, 1, start=9, name="mine"),
        line(11, 1, start=2, name="mine"),  # began before
        line(12, 77, start=9, name="mine"),  # is no orphan
        line(13, 1, start=9, name="other"),
        line(14, 10, start=9),
    )
    tree = Tree(lambda _: [], marked, since=5, adopters=(1,))
    assert tree.look(now) == [10, 14]
    assert tree.look(now) == [10, 14]
    assert sorted(asked) == [10, 13]


def test_processes_carry_what_they_were_started_with() -> None:
    child = subprocess.Popen(["sleep", "60"], env={"FLOW_TEST_MARK": "1", "OTHER": "2"})
    try:
        deadline = time.monotonic() + 20
        while not carries(child.pid, (b"FLOW_TEST_MARK=1", b"OTHER=2")):
            assert time.monotonic() < deadline
        assert not carries(child.pid, (b"FLOW_TEST_MARK=",))
        assert not carries(1 << 22, (b"FLOW_TEST_MARK=1",))
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("stubborn", [False, True])
def test_processes_are_asked_to_end_and_then_made_to(stubborn: bool) -> None:
    code = (
        "import signal, time; " + "signal.signal(15, signal.SIG_IGN); " * stubborn + "print(flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    os.kill(child.pid, signal.SIGSTOP)
    assert end(Tree(lambda now: [now[child.pid]] if child.pid in now else []).look, 0.3 if stubborn else 20)
    assert child.wait(20) == -(signal.SIGKILL if stubborn else signal.SIGTERM)
    child.stdout.close()


def test_who_cannot_be_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_SURE_S", 0.05)
    monkeypatch.setattr(processes, "send", lambda *_: 0)
    assert not end(lambda: [1], 0)

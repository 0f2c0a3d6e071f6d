"""Questions to a running kernel from outside, and what it says by itself when nothing happens any more."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
from pathlib import Path

import pytest
from kernel_apps import Load, add

from flow_core.errors import RunNotLive
from flow_core.interfaces.waiting import Cause, CauseKind, Explanation
from flow_core.kernel.explaining import Overview, WaitingGroup
from flow_core.kernel.live import ask, is_live, why
from flow_core.kernel.standstill import Sign, Standstill, sign_of
from flow_core.testing import MemoryExecutor


def sock(run_dir: Path) -> Path:
    return run_dir / "kernel.sock"


def test_a_run_that_goes_on_answers_for_one_task_or_all(load: Load) -> None:
    kernel = load(MemoryExecutor("memory"))
    add(1)
    assert is_live(kernel.run_dir)
    assert why(kernel.run_dir, 0) == str(kernel.why(0))
    assert why(kernel.run_dir) == str(kernel.why_waiting())
    with pytest.raises(LookupError, match="none has that id yet"):
        why(kernel.run_dir, 5)


def test_only_the_user_may_ask_and_nothing_is_left_at_the_end(load: Load) -> None:
    kernel = load(MemoryExecutor("memory"))
    assert stat.S_IMODE(os.stat(sock(kernel.run_dir)).st_mode) == 0o600
    kernel.cleanup()
    assert not sock(kernel.run_dir).exists()
    assert not is_live(kernel.run_dir)
    with pytest.raises(RunNotLive, match="it has ended, and cleaned up"):
        why(kernel.run_dir)


def test_a_script_that_is_stopped_counts_as_one_that_goes_on_however_many_have_asked_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(sock(tmp_path)))
        stopped.listen(1)  # and nobody accepts
        assert [is_live(tmp_path) for _ in range(5)] == [True] * 5
        with pytest.raises(RunNotLive, match="did not answer within"):
            ask(tmp_path, "status", timeout_s=0.1)


def test_an_order_of_one_who_gave_up_waiting_is_not_carried_out(load: Load) -> None:
    kernel = load(MemoryExecutor("memory"))
    future = add(1)
    first, gone = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    with first, gone:
        first.connect(str(sock(kernel.run_dir)))  # silent: it keeps the others waiting
        gone.connect(str(sock(kernel.run_dir)))
        gone.sendall(b'{"ask": "cancel", "tasks": [0]}\n')
    assert ask(kernel.run_dir, "status")["tasks"]["unfinished"] == 1  # in the order in which they came
    assert not future.cancelled()


def test_a_deep_directory_takes_a_socket_too(load: Load, tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-rather-long-name-of-a-directory"] * 5)
    kernel = load(MemoryExecutor("memory"), run_dir=deep)
    assert why(kernel.run_dir) == "No task is unfinished."


def test_errors_say_what_became_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunNotLive, match="there is no such directory"):
        why(tmp_path / "nowhere")
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(sock(tmp_path)))
    with pytest.raises(RunNotLive, match="its script was killed, or runs on another machine"):
        why(tmp_path)
    sock(tmp_path).unlink()
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(sock(tmp_path)))
        stopped.listen()
        with pytest.raises(RunNotLive, match=r"did not answer within 0\.1 s"):
            why(tmp_path, timeout_s=0.1)


@pytest.mark.parametrize(
    "said", [b"nonsense\n", b"{}\n", b'{"why": true}\n', b'{"why": "1"}\n', b"[" * 5000 + b"\n", b"x" * 10000, b""]
)
def test_what_is_no_question_harms_nobody(load: Load, said: bytes) -> None:
    kernel = load(MemoryExecutor("memory"))
    with socket.socket(socket.AF_UNIX) as rude:
        rude.connect(str(sock(kernel.run_dir)))
        rude.sendall(said)
        rude.shutdown(socket.SHUT_WR)
        rude.settimeout(10)
        try:
            answer = rude.recv(4096)
        except ConnectionResetError:
            answer = b""
        assert not answer or "error" in json.loads(answer)
    assert why(kernel.run_dir) == "No task is unfinished."


def test_a_forked_child_leaves_the_parents_socket_alone(load: Load) -> None:
    kernel = load(MemoryExecutor("memory"))
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    assert why(kernel.run_dir) == "No task is unfinished."


# -- standstill


class Watched:
    """A standstill's world: a clock, what has happened, and what would be told."""

    def __init__(self, caplog: pytest.LogCaptureFixture, kind: CauseKind = CauseKind.NO_WORKER) -> None:
        self.now = 0.0
        self.sign: Sign | None = (0, 1, 1)
        cause = Cause(kind, "no node of 'htex' is connected yet")
        sample = Explanation("task 0 (f)", "launched", (cause,), 0)
        overview = Overview(1, (WaitingGroup("f", "launched", 1, sample),))
        self.caplog = caplog
        self.watch = Standstill(
            lambda: self.sign, lambda: overview, logging.getLogger("flow.kernel"), 600.0, lambda: self.now
        )

    def at(self, now: float) -> int:
        self.now = now
        self.watch.look()
        return sum(record.levelno == logging.WARNING for record in self.caplog.records)


def test_a_standstill_is_told_once_with_its_causes(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(caplog)
    assert [watched.at(now) for now in (0, 300, 599, 600, 660, 9000)] == [0, 0, 0, 1, 1, 1]
    (told,) = caplog.messages
    assert told.startswith("No task has started or ended for 10 min. 1 task is unfinished:\n")
    assert told.endswith("- task 0 (f), queued: no node of 'htex' is connected yet")


def test_a_second_standstill_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(caplog)
    assert [watched.at(now) for now in (0, 700)] == [0, 1]
    watched.sign = (1, 2, 1)
    assert [watched.at(now) for now in (760, 1300, 1400)] == [1, 1, 2]


def test_a_run_with_a_task_that_runs_or_with_none_stands_not_still(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(caplog)
    watched.sign = None
    assert [watched.at(now) for now in (0, 700, 5000)] == [0, 0, 0]


def test_what_an_executor_says_to_run_is_no_standstill(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(caplog, CauseKind.RUNNING)
    assert [watched.at(now) for now in (0, 700, 1400, 9000)] == [0, 0, 0, 0]


def test_the_sign_changes_with_every_start_and_end(load: Load) -> None:
    executor = MemoryExecutor("memory")
    reactor = load(executor)._reactor
    assert sign_of(reactor, lambda: ()) is None
    add(1), add(2)
    first = sign_of(reactor, lambda: ())
    assert first == sign_of(reactor, lambda: ()) != None  # noqa: E711
    executor.begin(executor.waiting[0])
    assert sign_of(reactor, lambda: ()) is None
    executor.finish(executor.running[0], 1)
    assert sign_of(reactor, lambda: ()) not in (None, first)


def test_calls_that_are_held_back_are_waited_for_though_no_task_is_unfinished(load: Load) -> None:
    reactor = load(MemoryExecutor("memory"))._reactor
    assert sign_of(reactor, lambda: ()) is None
    held = Cause(CauseKind.BACK_PRESSURE, "calls of apps wait for the sinks of events")
    assert sign_of(reactor, lambda: [held]) == (0, 0, 0)
    assert str(Overview(0, (), (held,))).endswith("- calls of apps wait for the sinks of events")

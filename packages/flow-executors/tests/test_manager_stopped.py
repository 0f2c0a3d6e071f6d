"""What a manager makes of workers that are stopped: told to go on once, then replaced; and of a silent fork server."""

from __future__ import annotations

import os
import signal
import subprocess

from hypothesis import given, strategies as st

from flow_executors.manager.worker_health import (
    Act,
    Observation,
    StoppedForkServer,
    StoppedWorkers,
    WorkerHealth,
    number_of_command,
    pause_s,
)

BOUND_S = 8.0
STEP_S = pause_s(BOUND_S)


class Answers:
    """Stands for a fork server that answers."""

    pid = 0

    def ask(self):
        pass


def stopped(key=7, ticks=3, pid=100):
    return Observation(0, pid, key, "T", ticks, (pid,))


def sees(watch, sight, seconds, begin=0.0):
    """Let it see the same for so long; return what it found: act and seconds."""
    found, now = [], begin
    while now <= begin + seconds:
        found += [(act, for_s) for act, _, for_s in watch.look([sight] if sight else [], now)]
        now += STEP_S
    return found


def test_a_worker_that_stays_stopped_is_told_to_go_on_and_then_replaced():
    assert sees(StoppedWorkers(BOUND_S), stopped(), BOUND_S) == [(Act.CONTINUE, BOUND_S / 2), (Act.REPLACE, BOUND_S)]


def test_a_worker_that_runs_between_two_looks_is_not_stopped():
    watch, found = StoppedWorkers(BOUND_S), []
    for look in range(100):  # as one is whose use of CPU is held down by stopping it again and again
        found += watch.look([stopped(ticks=look)], look * STEP_S)
    assert found == []


def test_a_task_that_stops_itself_again_is_not_told_to_go_on_a_second_time():
    watch = StoppedWorkers(BOUND_S)
    assert sees(watch, stopped(), BOUND_S / 2) == [(Act.CONTINUE, BOUND_S / 2)]
    assert sees(watch, None, STEP_S, BOUND_S / 2 + STEP_S) == []
    begin = BOUND_S / 2 + 3 * STEP_S
    assert sees(watch, stopped(ticks=50), BOUND_S, begin) == [(Act.REPLACE, BOUND_S)]


def test_another_task_of_the_same_worker_is_told_to_go_on_again():
    watch = StoppedWorkers(BOUND_S)
    sees(watch, stopped(), BOUND_S / 2)
    assert sees(watch, stopped(key=8), BOUND_S / 2, BOUND_S / 2 + STEP_S) == [(Act.CONTINUE, BOUND_S / 2)]


def test_nobody_was_stopped_while_the_manager_was():
    watch = StoppedWorkers(BOUND_S)
    sees(watch, stopped(), BOUND_S / 4)
    assert watch.look([stopped()], 1000.0) == []
    assert sees(watch, None, BOUND_S, 1000.0 + STEP_S) == []


def test_a_worker_that_waits_for_a_file_system_is_named_once_and_left_alone():
    waits = Observation(0, 100, 7, "D", 3)
    assert sees(StoppedWorkers(BOUND_S), waits, 5 * BOUND_S) == [(Act.NAME, BOUND_S)]


def test_one_stopped_process_of_a_task_of_ranks_is_told_to_go_on_and_then_the_task_is_given_up():
    with subprocess.Popen(["sleep", "300"]) as command:
        given_up, told, now = [], [], 0.0
        health = WorkerHealth(Answers(), lambda *how: given_up.append(how), told.append, BOUND_S)
        while not given_up and now < 2 * BOUND_S:
            os.kill(command.pid, signal.SIGSTOP)  # again, where it was continued
            os.waitid(os.P_PID, command.pid, os.WSTOPPED | os.WNOWAIT)
            health.answered()
            health.look({}, now, (), {command.pid: 7})
            now += STEP_S
        command.kill()
    assert [number_of_command(number) for number, _ in given_up] == [command.pid]
    assert f"was stopped (state T, process {command.pid} (sleep) of its ranks) for " in given_up[0][1]
    assert "told to go on" in told[0]


@given(st.lists(st.sampled_from(["T", "R", "tick", "key"]), max_size=200))
def test_only_who_was_stopped_at_every_look_of_the_bound_is_replaced(story):
    watch, key, ticks, for_looks = StoppedWorkers(BOUND_S), 1, 0, 0
    for number, what in enumerate(story):
        for_looks = for_looks + 1 if what == "T" else 0
        key, ticks = key + (what == "key"), ticks + (what == "tick")
        seen = [] if what == "R" else [stopped(key, ticks)]
        for_looks += what in ("tick", "key")
        replaced = [finding for finding in watch.look(seen, number * STEP_S) if finding.act is Act.REPLACE]
        assert bool(replaced) == (for_looks * STEP_S > BOUND_S)
        if replaced:
            for_looks = 0


def test_a_fork_server_is_silent_from_the_first_question_that_it_does_not_answer():
    silence = StoppedForkServer(BOUND_S)
    silence.asked(0.0)
    silence.answered()
    assert silence.for_s(1.0) == 0.0
    for look in range(1, 10):
        silence.asked(look * STEP_S)
    assert silence.for_s(10 * STEP_S) == 9 * STEP_S


def test_a_fork_server_is_not_silent_by_the_time_that_the_manager_was_stopped():
    silence = StoppedForkServer(BOUND_S)
    silence.asked(0.0)
    silence.asked(1000.0)
    assert silence.for_s(1000.0) == 0.0

"""Commands that look at runs and steer them, asked in the process of the script itself: the socket does not mind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import flow
from flow import AUTO_LOGNAME, Config, MonitoringHub, bash_app, python_app
from flow.cli.main import commands
from flow.cli.top import Speed, picture
from flow.runs.find import run_at
from flow.runs.status import Status
from flow_core.kernel.failure_tally import FailureGroup
from flow_core.kernel.live import ask
from flow_core.kernel.summary import Summary

opened = threading.Event()


@python_app
def held(x: object) -> object:
    opened.wait(60)
    return x


@python_app
def wrong(x: int) -> None:
    raise ValueError(f"no {x}")


@bash_app
def said(word: str, stdout: object = AUTO_LOGNAME) -> str:
    return f"echo one; echo {word}"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(commands, arguments)


def end(kernel: Any) -> Any:
    """End a run in good order: threads that still hold tasks would be waited for."""
    opened.set()
    kernel.wait_for_current_tasks()
    kernel.cleanup()
    return kernel


def asked(*arguments: str) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Begin a run with two failed tasks, one that has written, two that run and one that waits for those."""
    monkeypatch.chdir(tmp_path)
    opened.clear()

    def begin(**options: Any) -> Any:
        kernel = flow.load(
            Config(executors=[flow.ThreadPoolExecutor(max_threads=2)], unseen_failures="ignore", **options)
        )
        for future in (wrong(0), wrong(1), said("two")):
            future.exception()
        first = held(1)
        held([first, first][0])
        held("x" * 500)
        return kernel

    yield begin
    opened.set()
    flow.clear()


def test_a_list_of_runs_tells_their_states_and_numbers(run: Callable[..., Any]) -> None:
    end(run())
    opened.clear()
    run()
    lines = invoke("ls").output.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["001", "running"], ["000", "failed"]]
    ended = asked("ls")[1]
    assert (ended["tasks"]["submitted"], ended["tasks"]["failed"]) == (6, 2)


def test_status_of_a_run_that_goes_on_names_executors_failures_and_unfinished_apps(run: Callable[..., Any]) -> None:
    run()
    text = invoke("status").output
    for part in ("running for", "2 failed", "3 unfinished", "executor threads (ThreadPoolExecutor)", "2 x wrong"):
        assert part in text
    found = asked("status", "0")
    assert sum(found["apps"]["held"].values()) == 3
    assert found["failures"][0]["kind"] == "ValueError"


def test_status_of_an_ended_run_comes_from_its_record(run: Callable[..., Any]) -> None:
    end(run())
    text = invoke("status", "000").output
    assert "ended, with failed tasks" in text
    assert "2 x wrong: ValueError" in text
    assert "4 done" in text


def test_a_run_whose_script_was_killed_is_told_from_one_that_ended(run: Callable[..., Any]) -> None:
    kernel = run()
    record = kernel.run_dir / "run.json"
    begun = record.read_text()
    end(kernel)
    # As a killed script leaves it: without an end, and of a process that is not there.
    found = json.loads(begun)
    record.write_text(json.dumps({**found, "pid": 2**22 + 1}))
    assert run_at(kernel.run_dir).state == "killed"
    record.write_text(json.dumps({**found, "host": "elsewhere"}))
    assert run_at(kernel.run_dir).state == "unknown"
    # It is dead, and its parent has not asked for its end.
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
        record.write_text(json.dumps({**found, "pid": dead.pid, "began_ns": time.time_ns()}))
        assert run_at(kernel.run_dir).state == "killed"
    # The number of the process belongs to another one by now, which began later.
    record.write_text(json.dumps({**found, "began_ns": 1}))
    assert run_at(kernel.run_dir).state == "killed"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run_id": 1}', "\0", '{"failures": 3}'])
def test_a_damaged_record_is_none(run: Callable[..., Any], text: str) -> None:
    kernel = end(run())
    (kernel.run_dir / "run.json").write_text(text)
    assert run_at(kernel.run_dir).record is None
    assert invoke("ls").exit_code == 0


@pytest.mark.parametrize(
    "damage",
    [
        {"began_ns": "yesterday"},
        {"began_ns": 10**30},
        {"ended_ns": -1},
        {"ended_ns": float("inf")},
        {"tasks": [1]},
        {"tasks": {"failed": "many"}},
        {"failures": {"first": 1}},
        {"executors": None},
        {"pid": 1.5},
        {"name": None},
        {"monitored": "yes"},
    ],
    ids=repr,
)
def test_a_record_with_nonsense_in_it_is_none(run: Callable[..., Any], damage: dict[str, object]) -> None:
    record = end(run()).run_dir / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **damage}))
    assert run_at(record.parent).record is None
    for command in ("ls", "status", "top"):
        assert invoke(command).exit_code == 0


def test_a_run_that_ended_on_a_full_disk_does_not_look_killed(run: Callable[..., Any]) -> None:
    kernel = run()
    begun = (kernel.run_dir / "run.json").read_bytes()
    (kernel.run_dir / ".run.json.part").mkdir()  # as on a full disk, nothing can be written there
    end(kernel)
    assert run_at(kernel.run_dir).state == "failed"
    assert "4 done, 2 failed" in invoke("status").output
    assert len((kernel.run_dir / "run.json").read_bytes()) >= len(begun)


def test_a_record_of_another_version_is_read_as_far_as_it_is_known(run: Callable[..., Any]) -> None:
    record = end(run()).run_dir / "run.json"
    other = {"tasks": {"submitted": 3, "of_later": 1}, "later": [1], "failures": [{"app": "f"}]}
    record.write_text(json.dumps({**json.loads(record.read_text()), **other}))
    assert "tasks: 3" in invoke("status").output


def test_a_killed_run_took_until_it_was_last_heard_of(run: Callable[..., Any]) -> None:
    kernel = run()
    record = kernel.run_dir / "run.json"
    begun = json.loads(record.read_text())
    end(kernel)
    record.write_text(json.dumps({**begun, "pid": 2**22 + 1, "began_ns": 10**18}))
    os.utime(kernel.run_dir / "flow.log", ns=(0, 10**18 + 5 * 10**9))
    assert asked("status")["duration_s"] == 5
    assert "killed: its script ended without cleaning up, after 5 s" in invoke("status").output


def test_tasks_of_a_run_without_monitoring_are_the_unfinished_ones(run: Callable[..., Any]) -> None:
    run()
    found = asked("tasks")
    assert [one["app"] for one in found["tasks"]] == ["held"] * 3
    assert found["unfinished_only"]
    assert "2 x wrong" in invoke("tasks", "--failed").output
    assert asked("tasks", "--state", "waiting")["total"] == 1


def test_tasks_of_an_ended_run_without_monitoring_are_said_not_to_be_recorded(run: Callable[..., Any]) -> None:
    end(run())
    result = invoke("tasks")
    assert "MonitoringHub" in str(result.exception)
    result = invoke("show", "5")
    assert "MonitoringHub" in result.output
    assert "ValueError" in invoke("show", "0").output or "ValueError" in invoke("show", "1").output


def test_tasks_of_a_run_with_monitoring_are_those_that_ended_too(run: Callable[..., Any]) -> None:
    end(run(monitoring=MonitoringHub(resource_monitoring_enabled=False)))
    found = asked("tasks", "--failed", "--app", "wrong")
    assert [one["error"] for one in found["tasks"]] == ["ValueError: no 0", "ValueError: no 1"]
    assert "raise ValueError" in invoke("show", "1").output
    assert "wrong" in invoke("status").output
    assert invoke("blocks").exit_code == 0


def test_a_state_that_is_none_is_refused_with_those_there_are(run: Callable[..., Any]) -> None:
    run()
    result = invoke("tasks", "--state", "sleeping")
    assert result.exit_code == 2
    assert "running, queued, waiting" in result.output


def test_a_task_is_shown_with_its_arguments_and_why_it_is_not_done(run: Callable[..., Any]) -> None:
    run()
    text = invoke("show", "4").output
    assert "task 4 (held)" in text
    assert "<task 3>" in text
    assert "waits for" in text
    assert len(asked("show", "5")["arguments"][0]) < 100


def test_an_argument_of_the_users_own_type_is_named_and_not_asked(run: Callable[..., Any]) -> None:
    class Rude:
        def __repr__(self) -> str:
            raise SystemExit("asked")

    run()
    held(Rude())
    assert asked("show", "6")["arguments"] == ["<Rude>"]


def test_output_of_a_task_and_the_log_of_the_run_are_written(run: Callable[..., Any]) -> None:
    run()
    assert invoke("logs", "2").output == "one\ntwo\n"
    assert invoke("logs", "2", "-n", "1").output == "two\n"
    assert "began in" in invoke("logs").output
    assert "only with stdout=" in invoke("logs", "0").output
    assert "say which block" in invoke("logs", "block").output


def test_following_ends_with_the_run_and_loses_no_line(run: Callable[..., Any]) -> None:
    kernel = run()
    ended = threading.Timer(0.3, end, (kernel,))
    ended.start()
    text = invoke("logs", "--follow").output
    ended.join()
    # Without what the script itself says on standard error, which is the same stream here.
    assert text == (kernel.run_dir / "flow.log").read_text()


def test_following_ends_when_nobody_reads_it_any_more(run: Callable[..., Any]) -> None:
    run()
    command = [sys.executable, "-m", "flow", "logs", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        assert b"began in" in following.stdout.readline()
        following.stdout.close()
        assert following.wait(30) in (0, 1)  # 1: the end comes while it still writes


def test_a_name_that_has_no_meaning_is_refused(run: Callable[..., Any]) -> None:
    run()
    result = invoke("logs", "2", "3")
    assert result.exit_code == 2
    assert "'3' has no meaning after '2'" in result.output


def test_the_first_failure_of_a_kind_is_shown_while_the_run_goes_on(run: Callable[..., Any]) -> None:
    run()
    first = asked("status")["failures"][0]["first"]
    assert asked("show", str(first))["error"] == f"ValueError: no {first}"
    result = invoke("show", str(1 - first))
    assert result.exit_code == 1
    assert "it has ended" in result.output


def test_of_a_script_that_does_not_answer_just_that_is_said(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = run()
    monkeypatch.setattr("flow.cli.ls._ASK_S", 0.1)
    monkeypatch.setattr("flow.runs.tasks.ask", partial(ask, timeout_s=0.1))
    stopped = Path("runinfo/001")
    stopped.mkdir()
    (stopped / "run.json").write_text((kernel.run_dir / "run.json").read_text())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stopped / "kernel.sock"))
        listener.listen()  # and nobody accepts
        assert "not answering" in invoke("ls").output
        assert "did not answer" in str(invoke("show", "3").exception)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is needed")
@pytest.mark.parametrize("command", [["ls"], ["logs"], ["status", "--json"]], ids=" ".join)
def test_a_full_disk_is_told_in_a_line(run: Callable[..., Any], command: list[str]) -> None:
    run()
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "flow", *command], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [b"Error: the output cannot be written: No space left on device"]


def test_more_tasks_than_one_request_holds_are_cancelled(run: Callable[..., Any]) -> None:
    run()
    waiting = [held(number) for number in range(1200)]
    assert invoke("cancel", *(str(future.tid) for future in waiting)).exit_code == 0
    assert all(future.cancelled() for future in waiting)


@pytest.mark.parametrize("command", [["ls"], ["status"], ["status", "0"], ["why", "0"], ["cancel", "3"]], ids=" ".join)
def test_a_directory_that_may_not_be_looked_into_is_named(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    look = os.stat

    def refuse(path: Any, **options: Any) -> os.stat_result:  # as for another user: root itself may look into all
        if str(path).startswith("theirs"):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **options)

    end(run())
    monkeypatch.setattr(os, "stat", refuse)
    result = invoke(*command, "--run-dir", "theirs")
    assert result.exit_code == 1
    assert "cannot be looked at: Permission denied" in result.output + str(result.exception)


def test_a_task_is_cancelled_and_one_that_runs_or_has_ended_is_not(run: Callable[..., Any]) -> None:
    run()
    waits = held("later")
    result = invoke("cancel", str(waits.tid), "0", "3")
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"task {waits.tid}: cancelled",
        "task 0: no task 0 is unfinished: it has ended",
        "task 3: it runs already: only --kill ends it",
    ]
    assert waits.cancelled()


def test_scaling_of_what_has_no_blocks_is_refused(run: Callable[..., Any]) -> None:
    run()
    assert "has no blocks" in invoke("scale", "threads", "2").output
    assert "this run has threads" in invoke("scale", "other", "2").output
    assert invoke("scale", "threads", "-1").exit_code == 2


def test_orders_to_an_ended_run_say_that_none_goes_on(run: Callable[..., Any]) -> None:
    end(run())
    for command in (["cancel", "3"], ["scale", "threads", "1"]):
        assert "goes on" in str(invoke(*command).exception)


def test_a_picture_fits_a_small_terminal() -> None:
    status = Status(
        run="runinfo/003",
        state="running",
        name="script.py",
        began_ns=0,
        now_ns=10**10,
        tasks=dict.fromkeys([one.name for one in fields(Summary)], 7),
        apps={f"app_{number}" * 9: {"running": number, "failed": 1} for number in range(100)},
        failures=[FailureGroup("app" * 40, "ValueError", 2, 3, "ValueError: " + "long " * 50)],
    )
    console = Console(width=80, height=24, record=True, force_terminal=False)
    console.print(picture(status, 3.0, console.height))
    lines = console.export_text().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any("more apps" in line for line in lines)


def test_speed_is_that_of_the_last_half_minute() -> None:
    speed = Speed()
    assert speed.add(0.0, 1000) is None
    assert speed.add(10.0, 1100) == 10.0
    for now in range(11, 80):
        found = speed.add(float(now), 1100)
    assert found == 0.0


def test_top_writes_one_picture_where_there_is_no_terminal(run: Callable[..., Any]) -> None:
    run()
    assert "3 unfinished" in invoke("top").output

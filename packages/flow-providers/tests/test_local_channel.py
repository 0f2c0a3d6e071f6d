from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import psutil
import pytest

from flow_providers.channels import process as processes
from flow_providers.channels.local import LocalChannel
from flow_providers.errors import (
    BadPermsScriptPath,
    BadScriptPath,
    ChannelExecFailed,
    ChannelTimeout,
    FileCopyException,
    FileExists,
)


@pytest.fixture
def channel(tmp_path) -> LocalChannel:
    return LocalChannel(userhome=str(tmp_path), envs={"A": "channel", "B": "channel"})


def test_a_command_gives_its_exit_code_and_output(channel) -> None:
    code, out, err = channel.execute_wait("echo out; echo err >&2; exit 7", 10)
    assert (code, out, err) == (7, "out\n", "err\n")


def test_a_command_killed_by_a_signal_says_128_and_the_signal(channel) -> None:
    assert channel.execute_wait("kill -9 $$", 10).exit_code == 137


def test_variables_of_the_call_override_those_of_the_channel(channel) -> None:
    assert channel.execute_wait("echo $A $B", 10, envs={"B": "call"}).stdout == "channel call\n"


def test_commands_run_in_the_home_of_the_channel(channel, tmp_path) -> None:
    assert channel.execute_wait("pwd", 10).stdout.strip() == str(tmp_path)


def test_output_that_is_no_utf8_is_replaced_not_raised(channel) -> None:
    assert channel.execute_wait("printf 'a\\377b'", 10).stdout == "a�b"


def test_a_command_that_is_too_slow_is_killed_with_all_it_started(channel, tmp_path) -> None:
    with pytest.raises(ChannelTimeout, match="did not end within") as caught:
        channel.execute_wait("echo before; sleep 987 & echo $! > child; sleep 987", 0.5)
    assert caught.value.stdout == "before\n"
    child = int((tmp_path / "child").read_text())
    psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], timeout=10)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_command_cannot_start_where_there_is_no_directory() -> None:
    with pytest.raises(ChannelExecFailed, match="cannot start"):
        LocalChannel(userhome="/nowhere/at/all").execute_wait("true", 10)


def test_a_started_process_can_be_polled_and_waited_for(channel, tmp_path) -> None:
    os.mkfifo(tmp_path / "gate")
    process = channel.execute_no_wait("read line < gate; exit 5")
    assert process.poll() is None
    (tmp_path / "gate").write_text("go\n")
    assert process.wait(10) == 5
    assert process.poll() == 5


def test_a_started_process_can_be_terminated_with_its_children(channel, tmp_path) -> None:
    os.mkfifo(tmp_path / "ready")
    process = channel.execute_no_wait("sleep 987 & echo $! > ready; wait")
    child = psutil.Process(int((tmp_path / "ready").read_text()))
    process.terminate()
    process.terminate()
    assert process.poll() == 143
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_start_that_takes_too_long_is_given_up_and_ended_once_it_is_made(channel, monkeypatch) -> None:
    gate, made = threading.Event(), []

    def slow(cmd, environment, cwd, output, start=processes._start):
        assert gate.wait(20)
        made.append(start(cmd, environment, cwd, output))
        return made[0]

    monkeypatch.setattr(processes, "_start", slow)
    with pytest.raises(ChannelExecFailed, match=r"not started within 0.05 s: does the file system of .* answer"):
        channel.execute_no_wait("sleep 987", 0.05)
    gate.set()
    deadline = time.monotonic() + 20
    while not made or made[0].poll() is None:
        assert time.monotonic() < deadline, "the late process was left running"
        time.sleep(0.01)


def test_waiting_for_a_process_has_a_deadline(channel) -> None:
    process = channel.execute_no_wait("sleep 987")
    with pytest.raises(ChannelTimeout):
        process.wait(0.05)
    process.terminate()


def test_pushed_files_are_private_and_replace_older_ones(channel, tmp_path) -> None:
    source = tmp_path / "x.txt"
    source.write_text("1")
    channel.push_file(str(source), "there")
    source.write_text("2")
    path = channel.push_file(str(source), "there")
    assert path == str(tmp_path / "there" / "x.txt")
    assert Path(path).read_text() == "2"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(tmp_path / "there") == ["x.txt"]


def test_pushing_a_file_to_where_it_is_copies_nothing(channel, tmp_path) -> None:
    (tmp_path / "x").write_text("1")
    assert channel.push_file(str(tmp_path / "x"), ".") == str(tmp_path / "x")


def test_a_script_directory_that_is_a_file_is_a_bad_script_path(channel, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadScriptPath, match="not a directory"):
        channel.push_bytes(b"", "x", "file")


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is forbidden to root")
def test_a_script_directory_without_permission_says_so(channel, tmp_path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(BadPermsScriptPath, match="no permission"):
        channel.push_bytes(b"", "x", "closed")


def test_pulled_files_do_not_overwrite(channel, tmp_path) -> None:
    (tmp_path / "x").write_text("1")
    target = channel.pull_file("x", str(tmp_path / "here"))
    assert Path(target).read_text() == "1"
    with pytest.raises(FileExists, match="not overwritten"):
        channel.pull_file("x", str(tmp_path / "here"))


def test_pulling_a_missing_file_says_so(channel, tmp_path) -> None:
    with pytest.raises(FileCopyException, match="missing"):
        channel.pull_file("missing", str(tmp_path / "here"))


def test_directories_can_be_made_and_asked_for(channel) -> None:
    assert not channel.isdir("a/b")
    channel.makedirs("a/b")
    assert channel.isdir("a/b")
    channel.makedirs("a/b", exist_ok=True)
    with pytest.raises(FileExists):
        channel.makedirs("a/b")


def test_the_users_script_directory_wins_over_an_offered_one(tmp_path) -> None:
    channel = LocalChannel()
    assert channel.script_dir is None
    channel.offer_script_dir(str(tmp_path / "run1"))
    channel.offer_script_dir(str(tmp_path / "run2"))
    assert channel.script_dir == str(tmp_path / "run2")
    channel.script_dir = str(tmp_path / "mine")
    channel.offer_script_dir(str(tmp_path / "run3"))
    assert channel.script_dir == str(tmp_path / "mine")


def test_a_timeout_does_not_wait_for_what_left_the_process_group(channel, tmp_path) -> None:
    started = time.monotonic()
    with pytest.raises(ChannelTimeout):
        channel.execute_wait("setsid sleep 20 & echo $! > pid; sleep 987", 0.3)
    assert time.monotonic() - started < 15
    psutil.Process(int((tmp_path / "pid").read_text())).kill()


def test_what_a_command_gave_is_three_values(tmp_path):
    result = LocalChannel(script_dir=str(tmp_path)).execute_wait("echo out; echo err >&2; exit 3")
    exit_code, stdout, stderr = result
    assert (exit_code, stdout, stderr) == (3, "out\n", "err\n")
    assert (result[0], result[1], result[-1], len(result)) == (exit_code, stdout, stderr, 3)

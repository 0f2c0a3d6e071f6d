"""Loggers: a stream, a file, the log of a run; nothing unless asked, nothing twice, nothing after the end."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import flow_core as flow
from flow_core.observe import logging as flow_logging
from flow_core.observe.log_file import LogFile
from flow_core.observe.logging import open_run_log, set_file_logger, set_stream_logger


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    for name, handlers in list(flow_logging._ours.items()):
        for handler in list(handlers):
            flow_logging._remove(name, handler)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_by_itself_the_library_logs_nothing() -> None:
    program = "import logging, flow_core.observe.logging; logging.getLogger('flow.kernel').error('not to be seen')"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert (result.stdout, result.stderr) == ("", "")


def test_stream_and_file_agree_in_format_level_and_behaviour(tmp_path: Path) -> None:
    stream = io.StringIO()
    set_stream_logger(stream=stream)
    set_file_logger(tmp_path / "debug.log")
    logger = logging.getLogger("flow.kernel")
    logger.debug("at %s", "debug")
    logger.info("at info")
    assert stream.getvalue() == (tmp_path / "debug.log").read_text()
    assert [line.split("] ")[1] for line in stream.getvalue().splitlines()] == ["at debug", "at info"]


def test_setting_a_logger_twice_does_not_double_the_lines(tmp_path: Path) -> None:
    stream = io.StringIO()
    for _ in range(3):
        set_stream_logger(stream=stream)
        set_file_logger(tmp_path / "debug.log")
    logging.getLogger("flow").info("once")
    assert len(stream.getvalue().splitlines()) == 1
    assert len(lines(tmp_path / "debug.log")) == 1


def test_level_and_format_are_the_users() -> None:
    stream = io.StringIO()
    set_stream_logger(name="flow.kernel", level=logging.WARNING, format_string="<%(message)s>", stream=stream)
    logging.getLogger("flow.kernel").info("quiet")
    logging.getLogger("flow.kernel.part").warning("loud")
    logging.getLogger("flow.executors").error("elsewhere")
    assert stream.getvalue() == "<loud>\n"


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_a_logger_that_was_set_can_be_taken_back(kind: str, tmp_path: Path) -> None:
    logger = logging.getLogger("flow")
    before = (logger.level, logger.propagate, list(logger.handlers))
    stream = io.StringIO()
    detach = set_stream_logger(stream=stream) if kind == "stream" else set_file_logger(tmp_path / "debug.log")
    logger.info("seen")
    detach()
    detach()
    logger.info("not seen")
    assert (logger.level, logger.propagate, logger.handlers) == before
    written = stream.getvalue() if kind == "stream" else (tmp_path / "debug.log").read_text()
    assert [line.split("] ")[1] for line in written.splitlines()] == ["seen"]


def test_to_take_an_earlier_logger_back_leaves_the_one_in_its_place() -> None:
    first, second = io.StringIO(), io.StringIO()
    detach = set_stream_logger(stream=first)
    set_stream_logger(stream=second)
    detach()
    logging.getLogger("flow").info("line")
    assert (first.getvalue(), second.getvalue().count("line")) == ("", 1)


def test_the_run_log_tells_info_and_nothing_after_its_close(tmp_path: Path) -> None:
    log = open_run_log(tmp_path)
    assert log.path == tmp_path / "flow.log"
    log.logger.info("begun")
    log.logger.debug("details")
    log.close()
    log.close()
    log.logger.error("too late")
    assert [line.split("] ")[1] for line in lines(log.path)] == ["begun"]


def test_the_level_is_what_it_was_after_the_close(tmp_path: Path) -> None:
    logger = logging.getLogger("flow")
    before = (logger.level, logger.propagate, list(logger.handlers))
    log = open_run_log(tmp_path)
    assert logger.isEnabledFor(logging.INFO)
    assert not logger.isEnabledFor(logging.DEBUG)
    log.close()
    assert (logger.level, logger.propagate, logger.handlers) == before


def test_a_debug_stream_beside_the_run_log_does_not_make_the_log_longer(tmp_path: Path) -> None:
    log = open_run_log(tmp_path)
    stream = io.StringIO()
    set_stream_logger(stream=stream)
    log.logger.debug("details")
    assert "details" in stream.getvalue()
    assert lines(log.path) == []
    log.close()
    log.logger.debug("more")
    assert "more" in stream.getvalue()


def test_two_runs_have_two_logs(tmp_path: Path) -> None:
    for name in ("000", "001"):
        (tmp_path / name).mkdir()
    one, two = open_run_log(tmp_path / "000"), open_run_log(tmp_path / "001")
    one.close()
    two.logger.info("only the second")
    two.close()
    assert (len(lines(one.path)), len(lines(two.path))) == (0, 1)


def test_json_lines_hold_what_text_lines_hold(tmp_path: Path) -> None:
    log = open_run_log(tmp_path, fmt="json")
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("flow.kernel").exception("task %d failed", 3, extra={"task_id": 3})
    log.close()
    (line,) = [json.loads(text) for text in lines(log.path)]
    assert (line["level"], line["logger"], line["message"], line["task_id"]) == (
        "ERROR",
        "flow.kernel",
        "task 3 failed",
        3,
    )
    assert line["time"].endswith("+00:00")
    assert "ValueError: no" in line["error"]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'xml' is unknown"):
        open_run_log(tmp_path, fmt="xml")


def _user_script(body: str, tmp_path: Path) -> str:
    program = f"""
import logging
{body}
from flow_core.observe.logging import open_run_log
log = open_run_log({str(tmp_path)!r})
logging.getLogger("flow.kernel").info("an info line")
logging.getLogger("flow.kernel").warning("a warning")
log.close()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    return result.stderr


def test_a_run_log_does_not_print_its_info_lines_on_the_users_terminal(tmp_path: Path) -> None:
    assert _user_script("", tmp_path) == ""
    printed = _user_script("logging.basicConfig()", tmp_path)
    assert "a warning" in printed
    assert "an info line" not in printed


@pytest.mark.parametrize(
    "asked",
    ["logging.basicConfig(level=logging.INFO)", "logging.basicConfig(); logging.getLogger('flow').setLevel(10)"],
)
def test_info_lines_reach_the_users_own_handlers_when_asked_for(tmp_path: Path, asked: str) -> None:
    assert "an info line" in _user_script(asked, tmp_path)


def test_lines_a_task_come_when_debug_is_asked_for_while_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = threading.Event()
    with flow.load(flow.Config(run_dir=tmp_path)) as kernel:
        future = kernel.submit(gate.wait, 10)
        flow.set_file_logger(tmp_path / "debug.log")
        gate.set()
        assert future.result(10)
        kernel.wait_for_current_tasks()
    assert "task 0 (wait) ended as exec_done" in (tmp_path / "debug.log").read_text()
    assert "ended as exec_done" not in (kernel.run_dir / "flow.log").read_text()
    assert capsys.readouterr().err == ""


def test_a_log_that_cannot_be_written_says_so_once(capfd: pytest.CaptureFixture[str]) -> None:
    set_file_logger("/dev/full")
    for number in range(3):
        logging.getLogger("flow.kernel").error("line %d", number)
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "flow: /dev/full cannot be written (No space left on device): lines are lost"


def test_a_log_says_how_many_lines_are_missing_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    full, write = threading.Event(), os.write

    def limited(fd: int, data: memoryview) -> int:
        if not full.is_set():
            return write(fd, data)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("flow_core.observe.log_file.os.write", limited)
    set_file_logger(tmp_path / "debug.log", format_string="%(message)s")
    logger = logging.getLogger("flow.kernel")
    logger.error("first")
    full.set()
    logger.error("second")
    logger.error("third")
    full.clear()
    logger.error("fourth")
    assert lines(tmp_path / "debug.log") == [
        "first",
        "2 lines are missing here: this log could not be written",
        "fourth",
    ]
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_file_that_does_not_answer_keeps_one_thread_and_costs_the_others_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flow_core.observe.log_file._PATIENCE_S", 0.2)
    os.mkfifo(tmp_path / "log")  # which is full after 64 KiB
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    set_file_logger(tmp_path / "log", format_string="%(message)s")
    logger = logging.getLogger("flow.kernel")
    first = threading.Thread(target=logger.error, args=("x" * 100_000,))
    first.start()
    read = b""
    while len(read) < 1000:  # it writes
        read += _read(reader, 1000)
    logger.error("second")
    logger.error("third")
    (line,) = capfd.readouterr().err.splitlines()
    assert "cannot be written (the file system does not answer): lines are lost" in line
    (handler,) = [one for one in logging.getLogger("flow").handlers if isinstance(one, LogFile)]
    handler.close()  # as the end of a run does: it must not wait either
    while first.is_alive():
        read += _read(reader, 100_000)
    logger.error("fourth")
    while not read.endswith(b"fourth\n"):
        read += _read(reader, 100_000)
    assert read.decode() == "x" * 100_000 + "\n2 lines are missing here: this log could not be written\nfourth\n"
    os.close(reader)


def _read(reader: int, size: int) -> bytes:
    try:
        return os.read(reader, size)
    except BlockingIOError:
        time.sleep(0.001)
        return b""

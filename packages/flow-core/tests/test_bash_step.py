"""Command lines run by bash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flow_core.errors import (
    AppBadFormatting,
    AppException,
    AppTimeout,
    BadStdStreamFile,
    BashAppNoReturn,
    BashExitFailure,
)
from flow_core.interfaces.call import DEFAULT_SPEC, NodeContext, TaskSpec
from flow_core.remote.bash import BashStep
from flow_core.remote.run import execute


def bash(command: str | Callable[[], Any], spec: TaskSpec = DEFAULT_SPEC, **settings: Any) -> object:
    step = BashStep("app", environment=spec.environment, **settings)
    compose = command if callable(command) else lambda: command
    return execute(compose, (), {}, spec, (step,), NodeContext(executor="here"))


def gone(pid: int) -> bool:
    """Tell whether a process has ended; the dead that nobody reaped have."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- what runs


def test_the_result_of_a_command_is_0() -> None:
    assert bash("true") == 0


def test_it_is_bash_that_runs_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    bash(f'x=(1 2 3); echo "${{#x[@]}} $(( RANDOM * 0 )) $BASH_VERSION" &> {out}')
    assert out.read_text().startswith("3 0 5")


def test_a_script_of_several_lines_runs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    bash(f"\nfor i in 1 2\ndo\n  echo $i >> {out}\ndone\n")
    assert out.read_text() == "1\n2\n"


def test_a_very_long_command_runs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    bash(f": {'x' * 300_000}\necho done > {out}")
    assert out.read_text() == "done\n"


def test_a_command_that_looks_like_an_option_is_a_command() -> None:
    with pytest.raises(BashExitFailure) as caught:
        bash("-l")
    assert caught.value.exitcode == 127


def test_standard_input_is_empty(tmp_path: Path) -> None:
    out = tmp_path / "out"
    bash(f"cat > {out}")
    assert out.read_bytes() == b""


def test_the_environment_of_the_spec_is_set(tmp_path: Path) -> None:
    bash(f'echo "$GREETING:$HOME" > {tmp_path}/out', TaskSpec(environment=(("GREETING", "hi there"),)))
    assert (tmp_path / "out").read_text() == f"hi there:{os.environ.get('HOME', '')}\n"
    assert "GREETING" not in os.environ


def test_the_command_has_a_process_group_of_its_own(tmp_path: Path) -> None:
    bash(f"cut -d ' ' -f 5 /proc/$$/stat > {tmp_path}/out; echo $$ >> {tmp_path}/out")
    group, pid = (tmp_path / "out").read_text().split()
    assert group == pid


# -- composing


def formatted(template: str, *args: object) -> Callable[[], str]:
    return lambda: template.format(*args)


def percent(template: str, values: object) -> Callable[[], str]:
    return lambda: template % values


def test_placeholders_without_a_value_are_bad_formatting() -> None:
    with pytest.raises(AppBadFormatting, match=r"'app'.*KeyError: 'name'") as caught:
        bash(formatted("echo {name}"))
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    "compose",
    [
        formatted("{} {}", "one"),
        formatted("{"),
        formatted("}"),
        formatted("{:d}", "x"),
        formatted("{:q}", "x"),
        formatted("{0} {}", "x"),
        percent("%s %s", ("one",)),
        percent("%s", ("one", "two")),
        percent("%d", "x"),
        lambda: "{inputs[1]}".format(inputs=["one"]),
        percent("%(name)s", {}),
        lambda: "{name}".format_map({"other": 1}),
        lambda: "{}".join("ab").format(1).strip().replace("1", "{name}").format(other=1),
        lambda: "null \0 byte",
    ],
)
def test_other_mistakes_of_formatting_are_too(compose: Callable[[], object]) -> None:
    with pytest.raises(AppBadFormatting):
        bash(compose)


TABLE = {"a": 1, "format": "{}"}
TEMPLATE = "{}"


@pytest.mark.parametrize(
    "compose",
    [
        lambda: f"echo {TABLE['zz']}",
        lambda: TEMPLATE.format(TABLE["zz"]),
        lambda: TEMPLATE.format(dict(TABLE).pop("zz")),
        lambda: TEMPLATE.format("one", [].pop()),
        lambda: TABLE["zz"].format(1),  # type: ignore[attr-defined]  # it fails before
        lambda: percent("echo %s", TABLE["zz"])(),
        lambda: list[str]()[0],
        lambda: str(["x"][int(TEMPLATE.format(1))]),
        lambda: dict[str, str]().pop(TEMPLATE.format(1)),
    ],
)
def test_a_look_up_of_the_functions_own_that_fails_stays_itself(compose: Callable[[], object]) -> None:
    with pytest.raises(LookupError) as caught:
        bash(compose)
    assert type(caught.value) in (KeyError, IndexError)


def test_exceptions_that_the_function_raises_itself_stay_themselves() -> None:
    def raises() -> str:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        bash(raises)
    with pytest.raises(ZeroDivisionError):
        bash(lambda: 1 / 0)
    with pytest.raises(ValueError, match="invalid literal"):
        bash(lambda: int("x"))


@pytest.mark.parametrize("value", [None, 5, b"true", ["true"]])
def test_a_function_that_returns_no_string_is_told_so(value: object) -> None:
    with pytest.raises(BashAppNoReturn, match="return the command line"):
        bash(lambda: value)


# -- streams


def test_streams_are_appended_to_by_default_and_directories_made(tmp_path: Path) -> None:
    out, err = tmp_path / "a" / "b" / "out", tmp_path / "c" / "err"
    for number in (1, 2):
        bash(f"echo o{number}; echo e{number} >&2", stdout=(str(out), "a"), stderr=(str(err), "a"))
    assert (out.read_text(), err.read_text()) == ("o1\no2\n", "e1\ne2\n")


def test_a_mode_may_overwrite_or_demand_a_new_file(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    bash("echo 1", stdout=(out, "x"))
    bash("echo 2", stdout=(out, "w"))
    assert Path(out).read_text() == "2\n"
    with pytest.raises(BadStdStreamFile, match="mode 'x'"):
        bash("echo 3", stdout=(out, "x"))


def test_both_streams_may_share_a_file(tmp_path: Path) -> None:
    both = (str(tmp_path / "both"), "w")
    bash("echo 1; echo 2 >&2; echo 3", stdout=both, stderr=both)
    assert Path(both[0]).read_text() == "1\n2\n3\n"


def test_a_stream_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadStdStreamFile, match=r"stderr.*file/under"):
        bash("true", stderr=(str(tmp_path / "file" / "under"), "a"))
    with pytest.raises(BadStdStreamFile):
        bash("true", stdout=(str(tmp_path), "w"))


# -- failures


def test_another_exit_code_is_a_failure_that_shows_it_all(tmp_path: Path) -> None:
    err = str(tmp_path / "err")
    Path(err).write_text("of an earlier try\n")
    with pytest.raises(BashExitFailure) as caught:
        bash("echo why >&2; exit 3", stderr=(err, "a"))
    assert (caught.value.exitcode, caught.value.stderr_tail) == (3, "why")
    for part in ("'app'", "exit code 3", "command: echo why >&2; exit 3", "why"):
        assert part in str(caught.value)
    assert "earlier" not in str(caught.value)


def test_only_the_last_lines_of_stderr_are_shown(tmp_path: Path) -> None:
    with pytest.raises(BashExitFailure) as caught:
        bash("for i in $(seq 100000); do echo line $i; done >&2; false", stderr=(str(tmp_path / "err"), "a"))
    lines = caught.value.stderr_tail.split("\n")
    assert lines[-1] == "line 100000"
    assert len(lines) == 20


def test_a_missing_command_and_one_that_cannot_run_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("true")
    with pytest.raises(BashExitFailure, match="not found") as missing:
        bash("no-such-command")
    with pytest.raises(BashExitFailure, match="cannot be executed") as forbidden:
        bash(str(tmp_path / "script"))
    assert (missing.value.exitcode, forbidden.value.exitcode) == (127, 126)


def test_death_by_a_signal_is_a_negative_exit_code() -> None:
    with pytest.raises(BashExitFailure, match="SIGKILL") as caught:
        bash("kill -KILL $$")
    assert caught.value.exitcode == -signal.SIGKILL
    with pytest.raises(BashExitFailure, match="SIGSEGV") as inner:
        bash("(kill -SEGV $BASHPID); exit $?")
    assert inner.value.exitcode == 128 + signal.SIGSEGV


def test_stderr_that_is_not_captured_is_shown_where_the_workers_own_is_a_file(tmp_path: Path) -> None:
    script = (
        "import os\n"
        "from flow_core.interfaces.call import NodeContext\n"
        "from flow_core.remote.bash import BashStep\n"
        "os.write(2, b'before\\n')\n"
        "try:\n    BashStep('app').run(lambda: 'echo why >&2; exit 1', NodeContext(main_thread=True))\n"
        "except Exception as error:\n    print(error.stderr_tail)\n"
    )
    with open(tmp_path / "worker.log", "wb") as log:
        done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=log, text=True, timeout=50)
    assert done.stdout == "why\n"
    assert (tmp_path / "worker.log").read_text() == "before\nwhy\n"


def test_the_error_shows_standard_error_alone_where_both_streams_go_to_the_workers_log(tmp_path: Path) -> None:
    script = (
        "from flow_core.interfaces.call import NodeContext\n"
        "from flow_core.remote.bash import BashStep\n"
        "command = 'echo THE REAL ERROR >&2; seq 1 400; exit 3'\n"
        "for _ in range(2):\n"
        "    try:\n        BashStep('app').run(lambda: command, NodeContext(main_thread=True))\n"
        "    except Exception as error:\n"
        "        open('told', 'a').write(error.stderr_tail + '|')\n"
    )
    with open(tmp_path / "worker.log", "ab") as log:
        run = [sys.executable, "-c", script]
        subprocess.run(run, stdout=log, stderr=log, cwd=tmp_path, timeout=50, check=True)
    assert (tmp_path / "told").read_text() == "THE REAL ERROR|THE REAL ERROR|"
    lines = (tmp_path / "worker.log").read_text().split("\n")
    assert (lines.count("THE REAL ERROR"), lines.count("400"), len(lines)) == (2, 2, 2 * 401 + 1)


def test_standard_error_is_in_the_workers_log_while_the_command_runs(tmp_path: Path) -> None:
    script = (
        "from flow_core.interfaces.call import NodeContext\n"
        "from flow_core.remote.bash import BashStep\n"
        "command = 'echo why >&2; until [ -s worker.log ]; do sleep 0.01; done; echo seen'\n"
        "BashStep('app').run(lambda: command, NodeContext(main_thread=True))\n"
    )
    with open(tmp_path / "worker.log", "ab") as log:
        run = [sys.executable, "-c", script]
        subprocess.run(run, stdout=log, stderr=log, cwd=tmp_path, timeout=50, check=True)
    assert (tmp_path / "worker.log").read_text() == "why\nseen\n"


def test_a_command_may_empty_its_standard_error_and_write_on(tmp_path: Path) -> None:
    script = (
        "from flow_core.interfaces.call import NodeContext\n"
        "from flow_core.remote.bash import BashStep\n"
        "command = 'echo one two three >&2; echo four > /dev/stderr; echo five >&2; false'\n"
        "try:\n    BashStep('app').run(lambda: command, NodeContext(main_thread=True))\n"
        "except Exception as error:\n    open('told', 'w').write(error.stderr_tail)\n"
    )
    with open(tmp_path / "worker.log", "ab") as log:
        run = [sys.executable, "-c", script]
        subprocess.run(run, stdout=log, stderr=log, cwd=tmp_path, timeout=50, check=True)
    assert (tmp_path / "told").read_text() == "four\nfive"


def test_a_shell_that_cannot_be_started_is_an_error_of_ours() -> None:
    with pytest.raises(AppException, match=r"bash cannot be started in /.*: .*too long"):
        bash("true", TaskSpec(environment=(("HUGE", "x" * 10_000_000),)))


# -- ending


def test_the_walltime_ends_the_whole_process_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(AppTimeout, match=r"walltime of 0\.5 s"):
        bash(f"sleep 50 & echo $! $$ > {pids}; sleep 50", TaskSpec(walltime_s=0.5))
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: gone(int(pid)))  # type: ignore[misc]  # mypy sees no type for the default


def test_a_group_that_ignores_the_first_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flow_core.remote.bash.GRACE_S", 0.3)
    pids = tmp_path / "pids"
    with pytest.raises(AppTimeout):
        bash(f"trap '' TERM; echo $$ > {pids}; while true; do sleep 0.1; done", TaskSpec(walltime_s=0.5))
    wait_until(lambda: gone(int(pids.read_text())))


def test_a_group_may_clean_up_when_its_walltime_ends(tmp_path: Path) -> None:
    done = tmp_path / "done"
    with pytest.raises(AppTimeout):
        bash(f"trap 'echo cleaned > {done}; exit' TERM; sleep 50 & wait", TaskSpec(walltime_s=0.5))
    assert done.read_text() == "cleaned\n"


@pytest.mark.parametrize(
    "how", ["(setsid bash -c '{}' &)", "setsid bash -c '{}' & sleep 50", "setsid env -i bash -c '{}'"]
)
def test_the_walltime_ends_what_has_left_the_group_too(tmp_path: Path, how: str) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(AppTimeout):
        bash(how.format(f"echo $$ > {pids}; exec sleep 50") + "; sleep 50", TaskSpec(walltime_s=0.5))
    wait_until(lambda: gone(int(pids.read_text())))


def test_the_walltime_ends_a_command_that_is_stopped(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(AppTimeout):
        bash(f"echo $$ > {pids}; kill -STOP $$", TaskSpec(walltime_s=0.5))
    wait_until(lambda: gone(int(pids.read_text())))


def test_the_walltime_of_one_command_spares_what_another_left_running(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    bash(f"(setsid bash -c 'echo $$ > {pids}; exec sleep 50' &); until [ -s {pids} ]; do sleep 0.01; done")
    with pytest.raises(AppTimeout):
        bash("sleep 50", TaskSpec(walltime_s=0.1))
    left = int(pids.read_text())
    assert not gone(left)
    os.kill(left, 9)


def test_a_command_that_ends_in_time_is_not_touched() -> None:
    assert bash("true", TaskSpec(walltime_s=50)) == 0


def test_an_exception_raised_in_the_waiting_thread_ends_the_group(tmp_path: Path) -> None:
    import ctypes

    pids = tmp_path / "pids"
    raised: list[BaseException] = []

    def run() -> None:
        try:
            bash(f"echo $$ > {pids}; sleep 50")
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: pids.exists() and bool(pids.read_text()))
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt))
    thread.join(30)
    assert [type(error) for error in raised] == [KeyboardInterrupt]
    wait_until(lambda: gone(int(pids.read_text())))


def test_an_exception_while_bash_is_being_started_ends_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    fork = subprocess.Popen._execute_child  # type: ignore[attr-defined]  # where an asynchronous exception may come

    def interrupted(self: Any, *args: Any) -> None:
        fork(self, *args)
        started.append(self.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "_execute_child", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bash("sleep 50")
    wait_until(lambda: gone(started[0]))

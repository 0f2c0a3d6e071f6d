from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import flow
from flow import Config, File, python_app
from flow.cli.main import commands, main
from flow.utils import get_all_checkpoints
from flow_core.errors import StagingError
from flow_monitor.errors import MonitorError
from flow_monitor.testing.made import make_database
from flow_monitor.testing.synthetic import SyntheticRun
from flow_staging.kept import place
from flow_staging.transfer.cache import CachePolicy, ContentCache
from flow_staging.transfer.retry import Control
from flow_staging.transfer.verify import Remote


@python_app(cache=True)
def double(x):
    return 2 * x


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(commands, arguments, catch_exceptions=False)


@pytest.fixture
def two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for first in (0, 3):
        with flow.load(Config(checkpoint_mode="task_exit")):
            assert [double(x).result() for x in range(first, first + 5)]
    return tmp_path


def test_checkpoints_are_listed(two_runs: Path) -> None:
    said = invoke("checkpoint", "ls").output
    assert "runinfo/000" in said.replace("\n", "")
    assert said.count("whole") == 2


def test_no_checkpoints_are_said_to_be_none(tmp_path: Path) -> None:
    assert "no checkpoints" in invoke("checkpoint", "ls", "--run-dir", str(tmp_path)).output


def test_a_whole_checkpoint_is_verified(two_runs: Path) -> None:
    result = invoke("checkpoint", "verify", "runinfo/000")
    assert result.exit_code == 0
    assert "5 records of 5 calls, whole" in result.output


def test_a_damaged_checkpoint_is_told_with_the_place(two_runs: Path) -> None:
    file = two_runs / "runinfo" / "000" / "checkpoint" / "tasks.log"
    file.write_bytes(file.read_bytes()[:-3])
    result = invoke("checkpoint", "verify", "runinfo/000")
    assert result.exit_code == 1
    assert "DAMAGED" in result.output
    assert "offset" in result.output


def test_checkpoints_become_one(two_runs: Path) -> None:
    result = invoke("checkpoint", "compact", "runinfo/000", "runinfo/001", "--into", "merged")
    assert "10 records became 8" in result.output
    assert "8 records of 8 calls, whole" in invoke("checkpoint", "verify", "merged").output


def test_why_a_call_was_run_again_is_told(two_runs: Path) -> None:
    said = invoke("cache", "why", "runinfo/001").output.splitlines()
    assert len(said) == 2
    assert said[0].startswith("3 x ")
    assert said[0].endswith(".double: argument 'x'")
    assert said[1].startswith("2 x ")
    assert "nothing changed; the run did not load their checkpoint" in said[1]
    assert invoke("cache", "why", "runinfo/000").output.endswith(".double: nothing stored\n")


def test_the_newest_run_is_asked_about_where_none_is_named(two_runs: Path) -> None:
    os.rename("runinfo/000", "runinfo/999")
    os.rename("runinfo/001", "runinfo/1000")
    said = invoke("cache", "why").output.splitlines()
    assert said[0] == "runinfo/1000:"
    assert said[1:] == invoke("cache", "why", "runinfo/1000").output.splitlines()
    result = invoke("cache", "why", "--run-dir", "elsewhere")
    assert result.exit_code == 2
    assert "there is no run under 'elsewhere'" in result.output


def test_a_call_that_was_never_run_before_is_not_said_to_have_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    @python_app(cache=True)
    def inverse(x: int) -> float:
        return 1 / x

    for x in (0, 1):
        with flow.load(flow.Config(checkpoint_mode="task_exit")):
            inverse(x).exception()
    (_, said) = invoke("cache", "why").output.splitlines()
    assert said.endswith("not run before; the nearest call, which failed (ZeroDivisionError), differs in: argument 'x'")
    (_, said) = invoke("cache", "why", "--all").output.splitlines()
    assert "with these arguments is stored; the nearest, task 0 in " in said


def test_an_earlier_call_with_the_same_arguments_is_compared_rather_than_another_of_the_same_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(first: int, second: int, x: int) -> None:
        @python_app(cache=True)
        def f(x: int) -> int:
            return x + first + second

        with flow.load(flow.Config(checkpoint_mode="task_exit")):
            f(x).result()

    for first, second, x in ((1, 1, 1), (2, 2, 9), (2, 2, 1)):
        run(first, second, x)
    (_, said) = invoke("cache", "why").output.splitlines()
    assert said.endswith("closure 'first' (1 -> 2), closure 'second' (1 -> 2)")


@pytest.mark.parametrize("run", ["1", "001", "runinfo/001"])
def test_a_run_may_be_named_by_its_number(run: str, two_runs: Path) -> None:
    assert "3 x" in invoke("cache", "why", run).output
    assert "5 records" in invoke("checkpoint", "verify", run).output
    assert "10 records became 8" in invoke("checkpoint", "compact", "0", run, "--into", "merged").output


def test_runs_are_looked_for_where_the_option_says(two_runs: Path) -> None:
    os.rename("runinfo", "elsewhere")
    assert "5 records" in invoke("checkpoint", "verify", "1", "--run-dir", "elsewhere").output
    result = invoke("cache", "why", "7", "--run-dir", "elsewhere")
    assert result.exit_code == 2
    assert "there is no '7', neither as a path nor as a run under 'elsewhere'" in result.output


def test_where_all_was_remembered_nothing_had_to_be_run(two_runs: Path) -> None:
    with flow.load(Config(checkpoint_mode="task_exit", checkpoint_files=["runinfo/000"])):
        double(0).result()
        flow.dfk().checkpoint()
    assert "no call of a cached app was run whose result is remembered" in invoke("cache", "why", "2").output


def test_a_call_that_had_failed_before_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = tmp_path / "wanted"

    @python_app(cache=True)
    def step(number: int, where: str) -> int:
        if not os.path.exists(where):
            raise FileNotFoundError(where)
        return number

    for _ in range(2):
        with flow.load(flow.Config(checkpoint_mode="task_exit")):
            for future in [step(number, str(wanted)) for number in range(3)]:
                future.exception()
        wanted.touch()
    (said,) = invoke("cache", "why", "runinfo/001").output.splitlines()
    assert said.startswith("3 x ")
    assert said.endswith("the earlier call failed (FileNotFoundError), and failures are not kept")


def test_what_has_changed_in_a_helper_a_file_or_an_output_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def app(number: int) -> Any:
        def grow(x: int) -> int:
            return x + number

        @python_app(cache=True)
        def step(inputs: Any = (), outputs: Any = ()) -> int:
            Path(outputs[0]).write_text("made")
            return grow(1)

        return step

    def run(number: int, text: str) -> str:
        Path("data.txt").write_text(text)
        with flow.load(Config(checkpoint_mode="task_exit", checkpoint_files=get_all_checkpoints())):
            app(number)(inputs=[File("data.txt")], outputs=[File("out.txt")]).result()
        return invoke("cache", "why", sorted(os.listdir("runinfo"))[-1]).output.strip()

    assert run(1, "one").endswith("nothing stored")
    assert run(2, "one").endswith("closure 'grow' (number of helper grow(): 1 -> 2)")
    assert run(2, "three").endswith("file 'data.txt' (3 -> 5 bytes)")
    os.unlink("out.txt")
    assert run(2, "three").endswith("nothing changed, but an output was gone")


def test_a_script_is_run_under_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.py").write_text(
        "from flow import Config\nfrom flow.executors import ThreadPoolExecutor\n"
        "config = Config(executors=[ThreadPoolExecutor(label='of_the_site')])\n"
    )
    (tmp_path / "script.py").write_text(
        "import sys, flow\n\n@flow.python_app\ndef name():\n    return 'ran'\n\n"
        "print(name().result(), *flow.dfk().executors, *sys.argv[1:])\n"
    )
    result = invoke("run", "--config", "site.py", "script.py", "--depth", "3")
    assert result.output.strip() == "ran of_the_site --depth 3"


def test_the_traceback_of_a_script_begins_with_the_scripts_own_frames(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("def fail():\n    raise KeyError('mine')\n\nfail()\n")
    command = [sys.executable, "-c", "from flow.cli.main import main; main()", "run", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Traceback")
    assert "script.py" in lines[1]
    assert done.stderr.count('  File "') == 2
    assert lines[-1] == "KeyError: 'mine'"


def test_an_error_of_flow_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.py").write_text("from flow import Config\nconfig = Config(retires=1)\n")
    (tmp_path / "script.py").write_text("")
    with pytest.raises(SystemExit) as caught:
        main(["run", "-c", "site.py", "script.py"])
    assert caught.value.code == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("flow: site.py, line 2: ")
    assert "retries" in said
    assert "\n" not in said


def test_the_monitoring_database_is_made_again_from_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flow.monitoring import MonitoringHub

    monkeypatch.chdir(tmp_path)
    with flow.load(Config(monitoring=MonitoringHub())):
        double(1).result()
    for file in (tmp_path / "runinfo").glob("monitoring.db*"):
        file.unlink()
    assert "events written to" in invoke("monitor", "rebuild", "0").output
    assert json.loads(invoke("monitor", "export", "wfformat", "0").output)["schemaVersion"] == "1.5"
    assert (tmp_path / "runinfo" / "monitoring.db").exists()
    assert "up to date" in invoke("monitor", "upgrade").output


@pytest.fixture
def monitored_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_database(tmp_path / "runinfo", SyntheticRun(run_id="abc-1", tasks=20))
    return tmp_path


def test_a_run_is_exported_as_wfformat_and_crate_and_metrics(monitored_run: Path) -> None:
    assert invoke("monitor", "export", "wfformat", "abc", "-o", "run.json").exit_code == 0
    assert json.loads((monitored_run / "run.json").read_text())["schemaVersion"] == "1.5"
    assert "ro-crate-metadata.json" in invoke("monitor", "export", "rocrate", "crate").output
    assert re.search(r'^flow_tasks\{.*run="abc-1"', invoke("monitor", "export", "prometheus").output, re.MULTILINE)


@pytest.mark.parametrize("which", [["abc"], ["--all"], []], ids=str)
def test_a_run_is_exported_as_a_database_of_parsls_tables(monitored_run: Path, which: list[str]) -> None:
    told = invoke("monitor", "export", "parsl-db", "parsl.db", *which)
    assert (told.exit_code, "20 rows in task" in told.output) == (0, True)
    with pytest.raises(MonitorError, match="is there already"):
        invoke("monitor", "export", "parsl-db", "parsl.db", *which)
    assert invoke("monitor", "export", "parsl-db", "other.db", "abc", "--all").exit_code == 2


def test_a_run_that_is_not_there_is_named(monitored_run: Path) -> None:
    result = invoke("monitor", "export", "wfformat", "xyz")
    assert result.exit_code == 1
    assert "there is no run 'xyz'" in result.output


def test_a_pipe_gets_whole_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOW_CACHE", str(tmp_path))
    url = f"http://h/{'a' * 300}"
    with ContentCache(place(), CachePolicy()).entry(url, Control(50)) as entry:
        assert entry is not None
        with entry.part() as part:
            part.write(b"x")
            assert entry.keep(part, url, Remote()) is not None
    assert url in invoke("files", "ls").output


def test_files_that_are_kept_are_shown_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOW_CACHE", str(tmp_path))
    assert f"{tmp_path}/{os.getuid()}: 0 URLs, 0 bytes" in invoke("files").output
    with ContentCache(place(), CachePolicy()).entry("http://me:pw@h/a", Control(50)) as entry:
        assert entry is not None
        with entry.part() as part:
            part.write(b"x" * 10_000)
            assert entry.keep(part, "http://me:pw@h/a", Remote()) is not None
    assert "1 URLs" in invoke("files", "size").output
    assert "http://me:***@h/a" in invoke("files", "ls").output
    with ContentCache(place(), CachePolicy()).entry("http://h/b", Control(50)) as entry:
        assert entry is not None
        assert "on its way" in invoke("files", "ls").output
    assert "0 URLs removed" in invoke("files", "clear", "--unused-for", "1").output
    assert "1 URLs removed" in invoke("files", "clear", "--directory", str(place())).output
    assert list(place().glob("*.data")) == []
    monkeypatch.setenv("FLOW_CACHE", "relative")
    with pytest.raises(StagingError, match="absolute path"):
        invoke("files")

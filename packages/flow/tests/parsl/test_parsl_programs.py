from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import parsl
from parsl import python_app, bash_app, join_app, File
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.providers import LocalProvider

@python_app
def where(x):
    import os
    import parsl
    from parsl.providers import SlurmProvider
    return x, parsl.__spec__.origin, SlurmProvider.__name__, os.getpid() != int(os.environ["SCRIPT"])

@bash_app
def say(x, stdout=parsl.AUTO_LOGNAME, stderr=parsl.AUTO_LOGNAME, outputs=()):
    return f"echo {x} > {outputs[0]}; echo said"

@join_app
def both(n):
    return [where(i) for i in range(n)]

if __name__ == "__main__":
    import os
    os.environ["SCRIPT"] = str(os.getpid())
    kinds = {"threads": ThreadPoolExecutor, "processes": lambda: HighThroughputExecutor(
        label="h", max_workers_per_node=1, provider=LocalProvider())}
    with parsl.load(Config(executors=[kinds[sys.argv[1]]()])) as dfk:
        print(where(3).result(timeout=60))
        future = say("hi", outputs=[File("out.txt")])
        print(future.outputs[0].result(timeout=60).filepath, open(future.stdout).read().strip())
        print([one[0] for one in both(2).result(timeout=60)])
        print(dfk.run_dir.endswith("/000"))
"""


def run(tmp_path: Path, *arguments: str, script: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    (tmp_path / "script.py").write_text(script)
    if arguments[0] == "flow":
        command = [sys.executable, "-c", "from flow.cli.main import main; main()", *arguments[1:]]
    else:
        command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(("kind", "elsewhere"), [("threads", False), ("processes", True)])
def test_a_program_of_parsl_runs_unchanged(tmp_path: Path, kind: str, elsewhere: bool) -> None:
    done = run(tmp_path, "flow.compat.parsl", "script.py", kind)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"(3, 'flow.compat.parsl', 'SlurmProvider', {elsewhere})",
        "out.txt said",
        "[0, 1]",
        "True",
    ]


def test_flow_run_makes_the_same_of_a_script(tmp_path: Path) -> None:
    done = run(tmp_path, "flow", "run", "--parsl", "script.py", "threads")
    assert done.stdout.splitlines()[0] == "(3, 'flow.compat.parsl', 'SlurmProvider', False)", done.stderr


def test_a_module_is_run_as_well(tmp_path: Path) -> None:
    done = run(tmp_path, "flow.compat.parsl", "-m", "script", "threads")
    assert done.stdout.splitlines()[1] == "out.txt said", done.stderr


def test_a_script_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "flow.compat.parsl", "other.py")
    assert (done.returncode, done.stderr) == (2, "flow: other.py: there is no such script\n")


@pytest.mark.parametrize("name", ["other", "other.module", "script.module", ".script"])
def test_a_module_that_is_not_there_is_one_line(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, "flow.compat.parsl", "-m", name, script="")
    missing = "other" if name == "other.module" else name
    assert (done.returncode, done.stderr) == (2, f"flow: there is no module {missing!r}\n")


def test_flow_run_names_a_module_that_is_not_there(tmp_path: Path) -> None:
    done = run(tmp_path, "flow", "run", "--parsl", "-m", "other")
    assert done.returncode == 2
    assert "There is no module 'other'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_is_not_taken_for_a_script_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    done = run(tmp_path, "flow", "run", "--parsl", "folder")
    assert done.returncode == 2
    assert "'folder' is not a file" in done.stderr


@pytest.mark.parametrize("program", [("flow", "run", "--parsl"), ("flow.compat.parsl",)])
def test_an_error_of_syntax_is_shown_as_python_shows_it(tmp_path: Path, program: tuple[str, ...]) -> None:
    done = run(tmp_path, *program, "script.py", script="import parsl\nprint('x'\n")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == '  File "script.py", line 2'
    assert done.stderr.splitlines()[-1] == "SyntaxError: '(' was never closed"


@pytest.mark.parametrize("words", [("script.py",), ("-m", "script")])
@pytest.mark.parametrize("program", [("flow", "run", "--parsl"), ("flow.compat.parsl",)])
def test_a_traceback_begins_in_the_script(tmp_path: Path, program: tuple[str, ...], words: tuple[str, ...]) -> None:
    done = run(tmp_path, *program, *words, script="def fail():\n    1 / 0\n\n\nfail()\n")
    files = [line for line in done.stderr.splitlines() if line.startswith("  File ")]
    assert [("script.py" in line) for line in files] == [True, True]


def test_an_installed_parsl_is_said_to_be_not_in_use(tmp_path: Path) -> None:
    (tmp_path / "parsl").mkdir()
    (tmp_path / "parsl" / "__init__.py").write_text("raise RuntimeError('the other one')\n")
    script = "import parsl\nprint(parsl.__spec__.origin)\n"
    done = run(tmp_path, "flow.compat.parsl", "script.py", script=script)
    assert done.stdout == "flow.compat.parsl\n"
    assert done.stderr == f"flow: `import parsl` is flow.compat.parsl; a Parsl in {tmp_path / 'parsl'} is not used\n"


def test_an_installed_parsl_that_was_imported_before_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "parsl.py").write_text("")
    script = "import parsl, flow.compat.parsl\nflow.compat.parsl.install()\n"
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "ConfigurationError: parsl of an installed Parsl was imported before" in done.stderr


def test_processes_of_a_pool_import_it_too(tmp_path: Path) -> None:
    script = """
import concurrent.futures, multiprocessing
import parsl
from parsl.config import Config

@parsl.python_app
def where():
    return parsl.__spec__.origin

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        with parsl.load(Config(executors=[pool])):
            print(where().result(timeout=60))
"""
    assert run(tmp_path, "flow.compat.parsl", "script.py", script=script).stdout == "flow.compat.parsl\n"


def test_the_compat_package_needs_no_installing(tmp_path: Path) -> None:
    script = """
import flow.compat.parsl as parsl
from flow.compat.parsl.config import Config

@parsl.python_app
def double(x):
    return 2 * x

with parsl.load(Config()):
    print(double(4).result(timeout=60), parsl.dfk().task_count)
"""
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "8 1\n", done.stderr


def test_scripts_are_left_their_directory_and_arguments(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "helper.py").write_text("here = __file__\n")
    (tmp_path / "below" / "script.py").write_text("import sys, helper\nprint(helper.here, *sys.argv)\n")
    done = run(tmp_path, "flow.compat.parsl", os.path.join("below", "script.py"), "--depth", "3")
    assert done.stdout == f"{tmp_path / 'below' / 'helper.py'} {os.path.join('below', 'script.py')} --depth 3\n"

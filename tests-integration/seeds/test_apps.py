"""Chapter: apps."""

from __future__ import annotations

import venv
from pathlib import Path

import pytest

import flow
from flow import bash_app, join_app, python_app
from flow.errors import AppTimeout, BashAppNoReturn, BashExitFailure, MissingOutputs

pytestmark = pytest.mark.usefixtures("kernel")


def test_map_and_reduce_take_futures_as_inputs():
    @python_app
    def double(x):
        return x * 2

    @python_app
    def add_up(inputs=[]):
        return sum(inputs)

    assert add_up(inputs=[double(number) for number in range(10)]).result() == 90


def test_a_python_app_copies_from_inputs_to_outputs(workdir: Path):
    @python_app
    def copy_line(inputs=[], outputs=[]):
        with open(inputs[0]) as source, open(outputs[0], "w") as target:
            target.write(source.readline())

    Path("in.txt").write_text("first\nsecond\n")
    copied = copy_line(inputs=[str(Path("in.txt").absolute())], outputs=[str(Path("out.txt").absolute())])
    assert Path(copied.outputs[0].result()).read_text() == "first\n"


def test_an_app_that_runs_past_its_walltime_is_stopped():
    @python_app
    def too_long():
        import time

        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            time.sleep(0.01)

    with pytest.raises(AppTimeout, match="walltime"):
        too_long(walltime=0.2).result()


def test_standard_output_goes_to_an_automatically_named_file(kernel: flow.DataFlowKernel):
    @bash_app
    def echo(arg, inputs=[], stderr=flow.AUTO_LOGNAME, stdout=flow.AUTO_LOGNAME):
        return f"echo {arg} {inputs[0]} {inputs[1]}"

    future = echo("Hello", inputs=["World", "!"], label="greeting")
    future.result()
    assert Path(future.stdout).read_text() == "Hello World !\n"
    assert "task_logs" in future.stdout
    assert "greeting" in future.stdout
    assert Path(future.stdout).is_relative_to(kernel.run_dir)


def test_standard_output_can_be_overwritten_by_mode(tmp_path: Path):
    @bash_app
    def echo(text, stdout=None):
        return f"echo {text}"

    path = str(tmp_path / "mode.txt")
    echo("one", stdout=path).result()
    echo("two", stdout=path).result()
    assert Path(path).read_text() == "one\ntwo\n"
    echo("three", stdout=(path, "w")).result()
    assert Path(path).read_text() == "three\n"


def test_a_bash_app_that_succeeds_gives_zero():
    @bash_app
    def succeed():
        return "true"

    assert succeed().result() == 0


def test_a_bash_app_that_fails_tells_its_exit_code_and_what_it_said(workdir: Path):
    @bash_app
    def fail(stderr=None):
        return "echo no such sample >&2; exit 7"

    with pytest.raises(BashExitFailure, match="7") as caught:
        fail(stderr=str(Path("fail.err").absolute())).result()
    assert caught.value.exitcode == 7
    assert "no such sample" in str(caught.value)


def test_a_declared_output_that_is_not_made_is_named():
    @bash_app
    def forget(outputs=[]):
        return "true"

    forgotten = forget(outputs=["never-made.txt"])
    with pytest.raises(MissingOutputs, match=r"never-made\.txt"):
        forgotten.result()
    with pytest.raises(MissingOutputs):
        forgotten.outputs[0].result()


def test_a_bash_app_must_return_its_command():
    @bash_app
    def silent():
        return None

    with pytest.raises(BashAppNoReturn, match="silent"):
        silent().result()


def test_a_script_of_several_lines_is_run_by_bash():
    @bash_app
    def script(stdout=flow.AUTO_LOGNAME):
        return """
        total=0
        for number in 1 2 3; do
            total=$(( total + number ))
        done
        echo "${total}"
        """

    future = script()
    future.result()
    assert Path(future.stdout).read_text().strip() == "6"


def test_a_join_app_decides_at_run_time_what_to_call():
    @python_app
    def square(x):
        return x * x

    @python_app
    def how_many():
        return 4

    @join_app
    def squares(count):
        return [square(number) for number in range(count)]

    assert squares(how_many()).result() == [0, 1, 4, 9]


def test_decorators_take_arguments_or_none():
    @python_app()
    def one():
        return 1

    @python_app(cache=True)
    def two():
        return 2

    assert (one().result(), two().result()) == (1, 2)


def test_a_bash_app_runs_a_program_of_another_python(workdir: Path):
    venv.create(workdir / "other", with_pip=False)

    @bash_app
    def prefix_of(environment, stdout="prefix.txt"):
        return f"source {environment}/bin/activate && python -c 'import sys; print(sys.prefix)'"

    assert prefix_of(workdir / "other").result() == 0
    assert Path("prefix.txt").read_text().splitlines()[-1] == str(workdir / "other")

"""Chapter: the tutorial, from the first app to a configuration of one's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import flow
from flow import File, bash_app, python_app
from flow.channels import LocalChannel
from flow.config import Config
from flow.executors import HighThroughputExecutor
from flow.executors.threads import ThreadPoolExecutor
from flow.providers import LocalProvider

pytestmark = pytest.mark.usefixtures("kernel")


@python_app
def greet():
    return "Hello World!"


@python_app
def times(a, b):
    return a * b


def test_a_python_app_returns_its_value_through_a_future():
    assert greet().result() == "Hello World!"


def test_an_app_takes_ordinary_arguments():
    assert times(5, 9).result() == 45


def test_an_app_imports_what_it_needs_in_its_body():
    @python_app
    def base_name(path):
        import os.path

        return os.path.basename(path)

    assert base_name("/a/b/c.txt").result() == "c.txt"


def test_a_bash_app_writes_its_output_where_its_defaults_say(workdir: Path):
    @bash_app
    def echo(stdout="echo-hello.stdout", stderr="echo-hello.stderr"):
        return 'echo "Hello World!"'

    echo().result()
    assert Path("echo-hello.stdout").read_text() == "Hello World!\n"
    Path("echo-hello.stdout").unlink()


def test_files_are_passed_by_name(workdir: Path):
    @bash_app
    def join_files(inputs=[], outputs=[]):
        return "cat {} > {}".format(" ".join(inputs), outputs[0])

    parts = [os.path.join(os.getcwd(), f"hello-{number}.txt") for number in range(3)]
    for number, part in enumerate(parts):
        Path(part).write_text(f"hello {number}\n")
    joined = join_files(inputs=parts, outputs=[os.path.join(os.getcwd(), "all_hellos.txt")])
    with open(joined.outputs[0].result()) as stream:
        assert stream.read() == "hello 0\nhello 1\nhello 2\n"


def test_an_app_future_is_not_done_before_its_app_is(workdir: Path):
    @python_app
    def wait_for(path):
        import os
        import time

        deadline = time.monotonic() + 30
        while not os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.005)
        return "Hello World!"

    signal = Path("go-on").absolute()
    future = wait_for(str(signal))
    assert not future.done()
    signal.touch()
    assert future.result() == "Hello World!"
    assert future.done()
    signal.unlink()


def test_a_data_future_ends_with_its_file(workdir: Path):
    @bash_app
    def say(message, outputs=[]):
        return f"echo {message} &> {outputs[0]}"

    said = say("Hello World!", outputs=[os.path.join(os.getcwd(), "hello-world.txt")])
    assert len(said.outputs) == 1
    with open(said.outputs[0].result()) as stream:
        assert stream.read() == "Hello World!\n"
    assert said.done()


def test_a_file_object_is_given_to_an_app_and_made_by_one(workdir: Path):
    @bash_app
    def copy(inputs=[], outputs=[]):
        return f"cat {inputs[0]} &> {outputs[0]}"

    source = Path("cat-in.txt").absolute()
    source.write_text("Hello World!\n")
    copied = copy(inputs=[File(str(source))], outputs=[File(os.path.join(os.getcwd(), "cat-out.txt"))])
    with open(copied.outputs[0].result()) as stream:
        assert stream.read() == "Hello World!\n"


def test_sequential_workflow_passes_a_future_on(workdir: Path):
    @python_app
    def generate(limit):
        from random import randint

        return randint(1, limit)

    @bash_app
    def save(variable, outputs=[]):
        return f"echo {variable} &> {outputs[0]}"

    number = generate(10)
    saved = save(number, outputs=[os.path.join(os.getcwd(), "sequential-output.txt")])
    with open(saved.outputs[0].result()) as stream:
        assert int(stream.read()) == number.result()


def test_parallel_dataflow_goes_through_files(workdir: Path):
    @bash_app
    def generate(outputs=[]):
        return f"echo $(( RANDOM )) &> {outputs[0]}"

    @bash_app
    def concat(inputs=[], outputs=[]):
        return "cat {} > {}".format(" ".join(inputs), outputs[0])

    @python_app
    def total(inputs=[]):
        with open(inputs[0]) as stream:
            return sum(int(line) for line in stream)

    made = [generate(outputs=[os.path.join(os.getcwd(), f"random-{number}.txt")]) for number in range(5)]
    for one in made:
        one.result()
    everything = concat(
        inputs=[one.outputs[0].filepath for one in made], outputs=[os.path.join(os.getcwd(), "all.txt")]
    )
    expected = sum(int(Path(one.outputs[0].filepath).read_text()) for one in made)
    assert total(inputs=[everything.outputs[0]]).result() == expected


def test_monte_carlo_estimates_pi():
    @python_app
    def pi(total):
        import random

        edge = 10000
        centre = edge / 2
        inside = 0
        for _ in range(total):
            x, y = random.randint(1, edge), random.randint(1, edge)
            inside += (x - centre) ** 2 + (y - centre) ** 2 < centre**2
        return inside * 4 / total

    @python_app
    def mean(a, b, c):
        return (a + b + c) / 3

    a, b, c = pi(20_000), pi(20_000), pi(20_000)
    average = mean(a, b, c)
    assert average.result() == pytest.approx((a.result() + b.result() + c.result()) / 3)
    assert 3.0 < average.result() < 3.3


def test_the_same_script_runs_under_either_configuration(own_run: Path):
    local_threads = Config(executors=[ThreadPoolExecutor(max_threads=8, label="local_threads")])
    local_htex = Config(
        executors=[
            HighThroughputExecutor(
                label="htex_Local",
                worker_debug=True,
                cores_per_worker=1,
                provider=LocalProvider(channel=LocalChannel(), init_blocks=1, max_blocks=1),
            )
        ],
        strategy=None,
    )
    for config in (local_threads, local_htex):
        flow.clear()
        kernel = flow.load(config)
        assert times(6, 7).result() == 42
        kernel.cleanup()

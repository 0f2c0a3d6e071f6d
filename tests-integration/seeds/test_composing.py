"""Chapter: composing a workflow."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flow import File, bash_app, python_app

pytestmark = pytest.mark.usefixtures("kernel")


def test_procedural_workflow(workdir: Path):
    @python_app
    def generate(limit):
        from random import randint

        return randint(1, limit)

    @bash_app
    def save(message, outputs=[]):
        return f"echo {message} &> {outputs[0]}"

    message = generate(10)
    saved = save(message, outputs=["output.txt"])
    with open(saved.outputs[0].result()) as stream:
        assert int(stream.read()) == message.result()


def test_a_task_waits_for_all_tasks_it_depends_on():
    @python_app
    def stamp(*after):
        import time

        began = time.time()
        time.sleep(0.05)
        return began, time.time()

    left, right = stamp(), stamp()
    below = stamp(left, right)
    assert below.result()[0] >= max(left.result()[1], right.result()[1])


def test_independent_tasks_run_at_the_same_time(workdir: Path):
    """Each of two tasks waits for a sign of the other: neither could end if they ran one after the other."""

    @python_app
    def meet(own, other):
        import time
        from pathlib import Path

        Path(own).touch()
        deadline = time.monotonic() + 30
        while not Path(other).exists():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    first, second = str(Path("first").absolute()), str(Path("second").absolute())
    both = [meet(first, second), meet(second, first)]
    assert [one.result() for one in both] == [True, True]


def test_a_loop_makes_parallel_tasks():
    @python_app
    def generate(limit):
        from random import randint

        return randint(1, limit)

    numbers = [generate(limit) for limit in range(1, 5)]
    assert all(1 <= number.result() <= limit for limit, number in enumerate(numbers, 1))


def test_parallel_dataflow_over_files(workdir: Path):
    @bash_app
    def generate(outputs=[]):
        return f"echo $(( RANDOM % (10 - 5 + 1 ) + 5 )) &> {outputs[0]}"

    @bash_app
    def concat(inputs=[], outputs=[], stdout="stdout.txt", stderr="stderr.txt"):
        return "cat {} >> {}".format(" ".join(map(str, inputs)), outputs[0])

    @python_app
    def total(inputs=[]):
        with open(inputs[0].filepath) as stream:
            return sum(int(line) for line in stream)

    made = [generate(outputs=[File(str(Path(f"random-{number}.txt").absolute()))]) for number in range(5)]
    everything = concat(inputs=[one.outputs[0] for one in made], outputs=["all.txt"])
    answer = total(inputs=[everything.outputs[0]]).result()
    assert 25 <= answer <= 50
    Path("all.txt").unlink()


def test_the_graph_grows_while_it_runs():
    @python_app
    def add(*numbers):
        return sum(numbers)

    level = [add(1) for _ in range(16)]
    while len(level) > 1:
        level = [add(*pair) for pair in zip(level[::2], level[1::2], strict=True)]
    assert level[0].result() == 16


def test_a_long_chain_is_no_trouble():
    @python_app
    def increment(x):
        return x + 1

    began = time.monotonic()
    future = increment(0)
    for _ in range(299):
        future = increment(future)
    assert future.result(timeout=50) == 300
    assert time.monotonic() - began < 50

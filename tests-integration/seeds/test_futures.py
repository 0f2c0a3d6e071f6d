"""Chapter: futures."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, as_completed, wait
from pathlib import Path

import pytest

from flow import AppFuture, DataFuture, File, bash_app, python_app

pytestmark = pytest.mark.usefixtures("kernel")


@python_app
def double(x):
    return x * 2


@bash_app
def say(message, outputs=[]):
    return f"echo {message} &> {outputs[0]}"


def test_an_app_future_is_a_standard_future():
    future = double(10)
    assert isinstance(future, AppFuture)
    assert isinstance(future, Future)
    assert future.result() == 20


def test_an_app_future_holds_the_exception_of_its_app():
    @python_app
    def bad_divide(x):
        return 6 / x

    future = bad_divide(0)
    with pytest.raises(ZeroDivisionError):
        future.result()
    assert isinstance(future.exception(), ZeroDivisionError)


def test_standard_ways_of_waiting_work():
    futures = [double(number) for number in range(20)]
    done, pending = wait(futures, timeout=30)
    assert not pending
    assert {future.result() for future in done} == set(range(0, 40, 2))
    assert len(list(as_completed(futures, timeout=30))) == 20


def test_an_app_future_can_be_awaited():
    async def both() -> list[int]:
        return await asyncio.gather(double(1), double(2))

    assert asyncio.run(both()) == [2, 4]


def test_a_data_future_gives_the_file(workdir: Path):
    said = say("Hello World!", outputs=["hello1.txt"])
    (made,) = said.outputs
    assert isinstance(made, DataFuture)
    assert isinstance(made.result(), File)
    assert made.filename == "hello1.txt"
    assert made.tid == said.tid
    assert Path(made.result().filepath).read_text() == "Hello World!\n"


def test_a_data_future_makes_an_edge(workdir: Path):
    @python_app
    def read(inputs=[]):
        with open(inputs[0].filepath) as stream:
            return stream.read()

    said = say("passed on", outputs=[File(str(Path("edge.txt").absolute()))])
    assert read(inputs=[said.outputs[0]]).result() == "passed on\n"


def test_futures_of_items_and_attributes_are_futures():
    @python_app
    def pair():
        return {"left": [1, 2], "right": complex(3, 4)}

    future = pair()
    assert future["left"][1].result() == 2
    assert future["right"].imag.result() == 4.0
    assert double(future["left"][0]).result() == 2


def test_the_repr_tells_the_state():
    future = double(1)
    future.result()
    assert "AppFuture" in repr(future)
    assert "finished" in repr(future) or "exec_done" in repr(future)

"""What users write, and the types they may rely on: in mypy with the plug-in | in pyright, where that is another."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from concurrent.futures import as_completed, wait
from typing import TypedDict, TypeVar

import flow
import flow.executors
import flow.providers
from flow import AppFuture, Config, File, MonitoringHub, bash_app, join_app, python_app
from flow.addresses import address_by_hostname
from flow.channels import LocalChannel
from flow.executors import HighThroughputExecutor, ThreadPoolExecutor
from flow.launchers import SrunLauncher
from flow.providers import LocalProvider, SlurmProvider

T = TypeVar("T")


class Entry(TypedDict):
    size: int
    name: str


class Point:
    x: float = 0.0

    @property
    def size(self) -> int:
        return 1


@python_app
def double(x: int, note: str = "") -> int:
    return 2 * x


@python_app(cache=True, executors=["threads"])
def half(x: float) -> float:
    return x / 2


@python_app
def table(n: int) -> dict[str, float]:
    return {"a": 1.0}


@python_app
def words(text: str) -> list[str]:
    return text.split()


@python_app
def pair(n: int) -> tuple[int, str]:
    return n, ""


@python_app
def entry(n: int) -> Entry:
    return {"size": 1, "name": ""}


@python_app
def point(n: int) -> Point:
    return Point()


@python_app
def total(*numbers: int, scale: float = 1.0, **more: str) -> float:
    return sum(numbers) * scale


@python_app
def maybe(x: int | None) -> int:
    return x or 0


@python_app
def twice(x: T) -> list[T]:
    return [x, x]


@python_app
def untyped(x, y=1):  # type: ignore[no-untyped-def]
    return x


@python_app
def walled(x: int, walltime: str) -> int:
    return x


@bash_app
def save(text: str, inputs: Sequence[str] = (), stdout: str | None = None) -> str:
    return f"echo {text}"


@join_app
def several(n: int) -> list[AppFuture[int]]:
    return [double(i) for i in range(n)]


class Model:
    @python_app
    def fit(self, x: int) -> str:
        return ""


config = Config(
    executors=[
        HighThroughputExecutor(
            label="htex", provider=SlurmProvider("debug", channel=LocalChannel(), launcher=SrunLauncher())
        ),
        ThreadPoolExecutor(label="threads", max_threads=2),
        flow.executors.LowLatencyExecutor(provider=flow.providers.LocalProvider(), address=address_by_hostname),
    ],
    monitoring=MonitoringHub(),
)
reveal_type(LocalProvider())  # LocalProvider
reveal_type(HighThroughputExecutor())  # HighThroughputExecutor
reveal_type(flow.executors.ThreadPoolExecutor())  # ThreadPoolExecutor
reveal_type(flow.providers.SlurmProvider("debug"))  # SlurmProvider

# arguments, each of which may be a future of its type, and the keywords of every app
reveal_type(double(1))  # AppFuture[int]
reveal_type(double(double(1)).result())  # int
double(x=double(1), note="n", walltime=3, label="l", resource_specification={"cores": 2})
half(double(1))
maybe(double(1))
maybe(None)
total(1, double(2), scale=half(1), extra="x", label="l")
save("a", inputs=[double(1), File("x")], stdout="out.txt")
save(text="a", outputs=["x", File("y")], stderr=flow.AUTO_LOGNAME)
save(words("a")[0])
double(pair(1)[0])
half(table(1)["a"])
half(point(1).x)
untyped(double(1), y=2)
walled(1, walltime="mine")
double.options(walltime=3, label="l")(double(1))
reveal_type(Model().fit(double(1), label="x").result())  # str
reveal_type(several(double(2)).result())  # list[int]
reveal_type(twice(1).result())  # list[int]

# parts of results
reveal_type(table(1)["a"])  # DerivedFuture[float]
reveal_type(words("a b")[0].result())  # str
reveal_type(several(2)[0])  # DerivedFuture[int]
reveal_type(pair(1)[1])  # DerivedFuture[str] | DerivedFuture[int | str]
reveal_type(entry(1)["size"])  # DerivedFuture[int] | DerivedFuture[object]
reveal_type(point(1).x)  # DerivedFuture[float] | DerivedFuture[Any]
reveal_type(point(1).size.result())  # int | Any

# what others do with futures
for future in as_completed([double(1), double(2)]):
    reveal_type(future.result())  # int
for finished in concurrent.futures.as_completed({double(1): "a"}):
    reveal_type(finished)  # Future[int]
done, _ = wait([half(1)])
reveal_type(done)  # set[Future[float]]
for mapped in flow.map(double, range(3), max_in_flight=10):
    reveal_type(mapped)  # AppFuture[int]


async def waits() -> float:
    return await half(1)

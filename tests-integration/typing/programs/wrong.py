"""Mistakes of users in calls of apps, each on a line that says so: mypy's plug-in finds these lines and no other."""

from __future__ import annotations

from collections.abc import Sequence

from flow import AppFuture, bash_app, join_app, python_app


class Point:
    x: float = 0.0


@python_app
def double(x: int, note: str = "") -> int:
    return 2 * x


@python_app
def half(x: float) -> float:
    return x / 2


@python_app
def point(n: int) -> Point:
    return Point()


@python_app
def pair(n: int) -> tuple[int, str]:
    return n, ""


@python_app
def total(*numbers: int, scale: float = 1.0, **more: str) -> float:
    return sum(numbers) * scale


@python_app
def walled(x: int, walltime: str) -> int:
    return x


@bash_app
def save(text: str, inputs: Sequence[str] = ()) -> str:
    return f"echo {text}"


@join_app
def several(n: int) -> list[AppFuture[int]]:
    return [double(i) for i in range(n)]


class Model:
    @python_app
    def fit(self, x: int) -> str:
        return ""


double(1)
double(nope=1)  # wrong: no such parameter
double()  # wrong: an argument is missing
double(1, "a", 3)  # wrong: one too many
double("a")  # wrong: not of its type
double(1, note=3)  # wrong: not of its type
double(half(1))  # wrong: a future of another type
double([double(1)])  # wrong: futures in a list are not waited for
double(point(1).x)  # wrong: a part of another type
double(pair(1)[1])  # wrong: a part of another type
double(1, walltime="x")  # wrong: walltime is a number of seconds
double(1, label=3)  # wrong: a label is a text
double(1, resource_specification=2)  # wrong: resources are a mapping
double.options(label="l")("a")  # wrong: not of its type
walled(1, walltime=3)  # wrong: here it is the function's own parameter
total("x")  # wrong: not of its type
total(1, more=3)  # wrong: not of its type
save(3)  # wrong: not of its type
several(1, 2)  # wrong: one too many
several("a")  # wrong: not of its type
print(point(1).y)  # wrong: results have no such attribute
Model().fit("a")  # wrong: not of its type
Model().fit()  # wrong: an argument is missing
Model().fit(1, 2)  # wrong: one too many
total(1, double(2), scale=half(1), extra="x")

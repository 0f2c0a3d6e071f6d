"""Tasks in containers of podman, beside podman itself on the same machine in the same run.

python benchmarks/containers/tasks.py IMAGE [--tasks 20] [--rounds 5] [--kept 300]

own    bash apps that run ``true``, one at a time, each in a container of its own; beside ``podman run`` with the words
       that Flow gives (bar 1.2 x), and with no more than ``--rm``
kept   bash apps, and python apps, one at a time and all at once, in kept containers, on one worker with one core; bar
       20 tasks/s
python python apps, each in a container of its own, beside ``podman run python3 -c pass``

The rounds of the two sides alternate. IMAGE must be there, with Python of this version: ``podman.sh image`` of the
tests makes one. ``CONTAINERS_CONF`` counts as for podman itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable

import flow
from flow import Config, Container, HighThroughputExecutor, bash_app, python_app
from flow.providers import LocalProvider


@bash_app
def shell() -> str:
    return "true"


@python_app
def nothing() -> None:
    return None


def podman(image: str, words: list[str], command: list[str]) -> Callable[[], object]:
    """Return a function that runs a command by ``podman run``."""
    line = ["podman", "run", "--rm", *words, image, *command]
    return lambda: subprocess.run(line, check=True, stdin=subprocess.DEVNULL, timeout=120)


def took(call: Callable[[], object], times: int) -> float:
    """Return seconds a call, of calls one after another."""
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


def compared(what: str, calls: dict[str, Callable[[], object]], tasks: int, rounds: int) -> None:
    """Print the medians of the rounds of each, and the ratios of the first to the others, round by round."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(took(call, tasks))
    first, *others = calls
    print(f"{what}: " + ", ".join(f"{name} {statistics.median(values) * 1e3:.0f} ms" for name, values in found.items()))
    for name in others:
        ratios = sorted(mine / theirs for mine, theirs in zip(found[first], found[name], strict=True))
        shown = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"    {first} to {name}: median {statistics.median(ratios):.2f} x ({shown})")


def rate(what: str, app: Callable[[], flow.AppFuture[object]], tasks: int) -> None:
    """Print how many tasks a second there are, one at a time and all at once."""
    app().result(120)
    alone = took(lambda: app().result(120), tasks)
    began = time.perf_counter()
    for future in [app() for _ in range(tasks)]:
        future.result(120)
    all_s = time.perf_counter() - began
    print(f"{what}: one at a time {alone * 1e3:.1f} ms ({1 / alone:.0f}/s), all at once {tasks / all_s:.0f}/s")


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kept", type=int, default=300)
    given = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        free = HighThroughputExecutor(label="free", max_workers=1, provider=LocalProvider(max_blocks=1))
        one = HighThroughputExecutor(
            label="one", max_workers=1, cpu_affinity=f"list:{core}", provider=LocalProvider(max_blocks=1)
        )
        with flow.load(Config(executors=[free, one])):
            words = ["--init", "--network=host", "--entrypoint=", "--security-opt=label=disable", "--user=0:0"]
            words += [f"--volume={home}:{home}", f"--workdir={home}"]
            own = Container(given.image, "podman")
            run_shell, run_python = (app.options(container=own, executors=["free"]) for app in (shell, nothing))
            compared(
                "own",
                {
                    "flow": lambda: run_shell().result(120),
                    "podman run with these words": podman(given.image, words, ["/bin/sh", "-c", "true"]),
                    "podman run": podman(given.image, [], ["/bin/sh", "-c", "true"]),
                },
                given.tasks,
                given.rounds,
            )
            compared(
                "python",
                {
                    "flow": lambda: run_python().result(120),
                    "podman run with these words": podman(given.image, words, ["python3", "-c", "pass"]),
                },
                given.tasks,
                given.rounds,
            )
            kept = Container(given.image, "podman", keep=True)
            rate("kept, bash", shell.options(container=kept, executors=["one"]), given.kept)
            rate("kept, python", nothing.options(container=kept, executors=["one"]), given.kept)


if __name__ == "__main__":
    main()

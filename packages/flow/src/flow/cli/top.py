"""``flow top``: a view of a run in the terminal that follows it."""

from __future__ import annotations

import threading
import time
from collections import deque

import click
from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.text import Text

from flow.cli.runs import database_option, found_run, run_dir_option
from flow.runs import text
from flow.runs.find import run_at
from flow.runs.status import Status, status_of
from flow_core.errors import RunNotLive
from flow_core.interfaces.waiting import duration
from flow_core.printable import printable

_LEAST_S = 1.0  # seconds between looks: a person reads along
_SHARE = 100  # seconds of rest after a look, for each that it cost the script: one per cent is the most it pays
_WINDOW_S = 30.0  # seconds over which the speed is taken


class Speed:
    """Tasks that end a second, over the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, ended: int) -> float | None:
        """Take a number of ended tasks; return the speed, None before the second look."""
        self._seen.append((now, ended))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        (since, before), (_, last) = self._seen[0], self._seen[-1]
        return (last - before) / (now - since) if now > since else None


@click.command()
@click.argument("run", required=False)
@run_dir_option
@database_option
@click.option("--once", is_flag=True, help="Write one picture, and end: also where there is no terminal.")
def top(run: str | None, run_dir: str, database: str | None, once: bool) -> None:
    """Follow RUN, by default the newest, in the terminal: tasks, speed, executors and blocks, failures; Ctrl-C ends it.

    The script is looked at once a second at most, and less often where it has so many tasks that a look takes long.
    Without a terminal one picture is written.
    """
    chosen = found_run(run, run_dir)
    console = Console()
    speed = Speed()
    if once or not console.is_terminal:
        console.print(picture(status_of(chosen, database), None, console.height))
        return
    pause = threading.Event()
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                try:
                    found = status_of(chosen, database, timeout_s=5.0)
                except RunNotLive as error:
                    live.update(Text(printable(str(error))), refresh=True)
                    pause.wait(_LEAST_S)
                    continue
                per_s = speed.add(time.monotonic(), found.ended_tasks)
                live.update(picture(found, per_s, console.height), refresh=True)
                if not run_at(chosen.path).live:
                    break
                pause.wait(max(_LEAST_S, found.cost_s * _SHARE))
    except KeyboardInterrupt:
        return
    console.print(picture(status_of(chosen, database), None, console.height))


def picture(found: Status, per_s: float | None, height: int) -> Group:
    """Return the view of a run: lines, and as much of the table of apps as the terminal has room for."""
    lines = [text.heading(found), text.task_counts(found), _speed(found, per_s)]
    lines += [*text.executor_lines(found), *found.held, *text.failure_lines(found)]
    parts: list[ConsoleRenderable] = [
        Text(printable(line), style="red" if line.startswith("failed:") else "", overflow="ellipsis", no_wrap=True)
        for line in lines
        if line
    ]
    table = text.app_table(found, most=max(1, height - len(parts) - 4))
    if table is not None:
        parts += [Text(""), table]
    return Group(*parts)


def _speed(found: Status, per_s: float | None) -> str:
    if per_s is None:
        return text.speed(found)
    unfinished = found.tasks.get("unfinished", 0)
    left = f"; {duration(unfinished / per_s)} left at that, if no more are called" if per_s and unfinished else ""
    return f"speed: {per_s:,.3g} tasks end a second now{left}"

"""``flow show``: all that is known of one task."""

from __future__ import annotations

from typing import Any

import click

from flow.cli.runs import database_option, found_run, json_option, run_dir_option, run_option, write_json
from flow.cli.telling import say
from flow.runs.logs import last_lines, of_task
from flow.runs.tasks import describe_task
from flow.runs.text import moment, state_text

_LINES = 10  # lines of each output that are shown; `flow logs` has all


@click.command()
@click.argument("task", type=click.IntRange(min=0))
@run_option
@run_dir_option
@database_option
@json_option
def show(task: int, run: str | None, run_dir: str, database: str | None, as_json: bool) -> None:
    """Show TASK: its states and tries, where it ran, its error, the end of its output, why it is not done.

    TASK is its number in the run, by default the newest one.
    """
    chosen = found_run(run, run_dir)
    try:
        found = describe_task(chosen, database, task)
    except LookupError as error:
        raise click.ClickException(str(error.args[0])) from None
    paths = of_task(chosen, task, (str(found.get("stdout") or ""), str(found.get("stderr") or "")))
    if as_json:
        write_json({**found, "output_files": list(map(str, paths))})
        return
    for line in _lines(found):
        say(line)
    for path in paths:
        lines = last_lines(path, _LINES)
        say(f"{path}: {'empty' if not lines else ''}")
        for line in lines:
            say(f"  {line}")


def _lines(found: dict[str, Any]) -> list[str]:
    label = f", {found['label']}" if found.get("label") else ""
    lines = [f"task {found['task']} ({found['app']}{label}): {state_text(str(found['state']))}"]
    if found.get("arguments"):
        lines.append(f"arguments: {', '.join(map(str, found['arguments']))}")
    if found.get("depends"):
        lines.append(f"depends on: {', '.join(f'task {one}' for one in found['depends'][:20])}")
    lines += [f"{moment(one['time_ns'])}  {state_text(one['status'])}" for one in found.get("history", ())]
    for one in found.get("tries", ()):
        where = [
            f"{name} {one[name]}"
            for name in ("executor", "block", "host", "worker", "pid")
            if one[name] not in ("", None)
        ]
        took = _seconds(one["time_running"], one["time_returned"])
        lines.append(f"try {one['try_id'] + 1}: {_verdict(one['verdict'])}{took}, {', '.join(where)}")
        if one["error"] and one["error"] != found.get("error"):
            lines.append(f"  {one['error']}")
    if found.get("why"):
        lines += str(found["why"]).splitlines()
    trace = str(found.get("traceback") or "")
    if trace:
        lines += ["", *trace.rstrip().splitlines()]
    elif found.get("error"):
        lines.append(f"error: {found['error']}")
    return lines


def _verdict(name: str | None) -> str:
    return name.lower().replace("_", " ") if name else "not ended"


def _seconds(begin: int | None, end: int | None) -> str:
    return "" if begin is None or end is None else f" after {(end - begin) / 1e9:,.2f} s"

"""``flow logs``: what a task, a block or a worker has written, or the log of the run."""

from __future__ import annotations

import select
from pathlib import Path

import click

from flow.cli.runs import database_option, found_run, run_dir_option, run_option
from flow.cli.telling import say
from flow.runs import logs as files
from flow.runs.find import Run, run_at

_POLL_S = 0.5  # seconds between looks at files that are followed; a person reads along


@click.command()
@click.argument("what", required=False, metavar="[TASK|block|worker|run]")
@click.argument("name", required=False)
@run_option
@run_dir_option
@database_option
@click.option("--executor", default="*", help="Only of the executor of this label.")
@click.option("--lines", "-n", default=200, show_default=True, type=click.IntRange(min=0), help="Last lines of a file.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is added, until the run ends or Ctrl-C.")
def logs(
    what: str | None,
    name: str | None,
    run: str | None,
    run_dir: str,
    database: str | None,
    executor: str,
    lines: int,
    follow: bool,
) -> None:
    """Write the end of what a run has written.

    `flow logs 7` is the standard output and error of task 7, `flow logs block 0` the output of a block's job with the
    logs of its managers, `flow logs worker 1` the logs of worker 1 of each manager (`worker MANAGER/1` of one), and
    `flow logs` the log of the run.
    """
    if name is not None and what not in ("block", "worker"):
        raise click.UsageError(f"{name!r} has no meaning after {what!r}: only `block` and `worker` take a name")
    chosen = found_run(run, run_dir)
    paths = _paths(chosen, what, name, executor, database)
    with files.Follower(paths) as follower:
        for path, end in zip(paths, follower.ends, strict=True):
            if len(paths) > 1:
                say(f"==> {path} <==")
            for line in files.last_lines(path, lines, end):
                say(line)
        if follow:
            _follow(chosen, follower, names=len(paths) > 1)


def _follow(chosen: Run, follower: files.Follower, *, names: bool) -> None:
    # Told when what reads this output has ended (`| head`), which else showed with the next line only.
    reader, last = select.poll(), False
    reader.register(1, 0)
    while True:
        for path, line in follower.lines():
            say(f"{path.name}: {line}" if names else line)
        if last:
            return
        # Once more, a moment after its end: the last lines come with it.
        last = not run_at(chosen.path).live
        if reader.poll(_POLL_S * 1000):
            return


def _paths(chosen: Run, what: str | None, name: str | None, executor: str, database: str | None) -> list[Path]:
    if what is None or what == "run":
        found, meant = files.of_run(chosen), "log of the run"
    elif what.isdecimal():
        found, meant = (
            files.of_task(chosen, int(what), _recorded(chosen, int(what), database)),
            f"output of task {what}",
        )
    elif what in ("block", "worker"):
        if name is None:
            raise click.UsageError(f"say which {what}: flow logs {what} 0")
        found = files.of_block(chosen, name, executor) if what == "block" else files.of_worker(chosen, name, executor)
        meant = f"file of {what} {name}"
    else:
        raise click.UsageError(f"{what!r} is no task's number, and neither `block`, `worker` nor `run`")
    if not found:
        hint = ""
        if what is not None and what.isdecimal():
            hint = ": a task's output is in a file only with stdout= and stderr= (or AUTO_LOGNAME)"
        raise click.ClickException(f"run {chosen.path} has no {meant}{hint}")
    return found


def _recorded(chosen: Run, task: int, database: str | None) -> tuple[str, ...]:
    """Return the names of a task's output files as its database has them; none without one."""
    from flow.runs.tasks import describe_task
    from flow_core.errors import FlowError

    try:
        found = describe_task(chosen, database, task)
    except (FlowError, LookupError):
        return ()
    return str(found.get("stdout") or ""), str(found.get("stderr") or "")

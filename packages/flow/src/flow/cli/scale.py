"""``flow scale``: more or fewer blocks for an executor of a run that goes on."""

from __future__ import annotations

import click

from flow.cli.runs import found_run, json_option, run_dir_option, run_option, write_json
from flow.cli.telling import say
from flow_core.interfaces.waiting import count
from flow_core.kernel.live import ask

_ANSWER_S = 75.0  # seconds: more than the script itself waits for a scheduler's commands


@click.command()
@click.argument("label")
@click.argument("blocks", type=click.IntRange(min=0))
@run_option
@run_dir_option
@json_option
def scale(label: str, blocks: int, run: str | None, run_dir: str, as_json: bool) -> None:
    """Bring the executor LABEL of a run of yours to BLOCKS blocks, within max_blocks of its provider.

    Only idle blocks are given back. The strategy of the run goes on afterwards: it gives idle blocks back, and asks for
    more where tasks wait.
    """
    chosen = found_run(run, run_dir, live=True)
    try:
        found = ask(chosen.path, "scale", _ANSWER_S, label=label, blocks=blocks)
    except LookupError as error:
        raise click.ClickException(str(error.args[0])) from None
    if as_json:
        write_json(found)
        return
    if found["added"]:
        say(f"{label}: {count(len(found['added']), 'block')} asked for: {', '.join(found['added'])}")
    elif found["freed"]:
        say(f"{label}: {count(len(found['freed']), 'block')} given back: {', '.join(found['freed'])}")
    elif found["before"] > blocks:
        say(f"{label}: none of its {found['before']} blocks is idle, and only idle ones are given back")
    else:
        say(f"{label}: it has {count(blocks, 'block')} already")

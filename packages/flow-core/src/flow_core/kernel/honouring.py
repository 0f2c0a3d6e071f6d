"""Which executors honour what a task asks for, and the refusal where none does: pure, by what executors declare."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from flow_core.apps.definition import AppKind
from flow_core.errors import ConfigurationError, TaskRefused
from flow_core.guard import attribute, is_a, name_of, shown
from flow_core.interfaces.container import Container
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.task_fields import TASK_FIELDS
from flow_core.option_names import did_you_mean

BY_HIGH_THROUGHPUT: Final = frozenset(
    (
        *("cores", "memory", "gpus", "priority", "running_time_min", "walltime", "environment", "container"),
        *("nodes", "ranks_per_node", "ranks", "cores_per_rank", "gpus_per_rank", "exclusive"),
        "warn_before_end_s",
    )
)
"""What the HighThroughputExecutor honours, for advice where a Config has none. A test compares it with the class."""

_SHOWN: Final = 4  # executors that a message names; the others are counted

_ADVICE: Final = {
    "named": "nodes offer none",
    "disk": "nobody books disk space",
}


def check_honours(executors: Mapping[str, Executor]) -> None:
    """Refuse executors whose ``honours`` is no collection of names of fields.

    Raises:
        ConfigurationError: naming the executor and what is wrong.
    """
    for label, executor in executors.items():
        declared = attribute(executor, "honours")
        if not is_a(declared, frozenset):
            raise ConfigurationError(
                f"executor {label!r}: honours must be a frozenset of names of {', '.join(TASK_FIELDS)}, not "
                f"{shown(declared)}"
            )
        for field in declared:
            if field not in TASK_FIELDS:
                raise ConfigurationError(
                    f"executor {label!r}: honours names {shown(field)}, which no task can ask for"
                    f"{did_you_mean(field, TASK_FIELDS)}"
                )


def check_warning(executors: Mapping[str, Executor], warn_before_end_s: float | None) -> None:
    """Refuse ``Config(warn_before_end_s=)`` where an executor cannot tell its tasks that their block ends.

    Raises:
        ConfigurationError: naming the executors that cannot.
    """
    unable = (
        []
        if warn_before_end_s is None
        else [repr(label) for label, one in executors.items() if not honours(one, "warn_before_end_s", AppKind.PYTHON)]
    )
    if unable:
        raise ConfigurationError(
            f"warn_before_end_s={warn_before_end_s!r} is for all apps, and executor {' and '.join(unable)} cannot "
            "tell tasks that their block ends: give it to the apps that are to be told, by "
            "@python_app(warn_before_end_s=)"
        )


def refuse_warning_of_ranks(app: str, warn_before_end_s: float) -> None:
    """Refuse a warning to an app whose function runs on ranks: these are processes of the launcher, not a worker.

    Raises:
        TaskRefused: always.
    """
    raise TaskRefused(
        f"app {app!r} asks for warn_before_end_s={warn_before_end_s:g}, and its function runs on ranks, which cannot "
        "be told that their block ends: leave it out, or have a bash app run the ranks, whose command gets a signal"
    )


def honours(executor: Executor, field: str, kind: AppKind) -> bool:
    """Return whether an executor does what a task of an app of this kind asks for by one field."""
    # Variables belong to a whole process: beside other tasks only the commands of bash apps can have their own.
    if field == "environment" and kind is not AppKind.BASH and attribute(executor, "in_process", False) is True:
        return False
    declared = attribute(executor, "honours")
    return is_a(declared, frozenset) and field in declared


def willing(
    app: str,
    kind: AppKind,
    asked: Mapping[str, object],
    executors: Sequence[Executor],
    named: bool,
    others: Collection[Executor],
) -> tuple[Executor, ...]:
    """Return those of a task's executors that honour all that it asks for.

    Args:
        app: Name of its app.
        kind: The kind of its app.
        asked: What it asks for, by field.
        executors: The executors that it may run on.
        named: Whether its app or its call named these: then each must honour all of it.
        others: All executors of the Config, for advice.

    Raises:
        TaskRefused: none does, or one that was named does not; the message says which does not honour what, and what
            to do.
    """
    container = asked.get("container")
    if "warn_before_end_s" in asked and is_a(container, Container) and (kind is not AppKind.BASH or container.keep):
        raise TaskRefused(
            f"app {app!r} asks for warn_before_end_s and for {container!r}: in containers only the command of a bash "
            "app that has one of its own can be told that its block ends; leave one of them out"
        )
    lacking = {one: [field for field in asked if not honours(one, field, kind)] for one in executors}
    able = tuple(one for one, fields in lacking.items() if not fields)
    if able and (not named or len(able) == len(executors)):
        return able
    bad = [field for field in asked if any(field in fields for fields in lacking.values())]
    what = " and ".join(f"{field}={shown(asked[field])}" for field in bad)
    if kind is AppKind.JOIN:
        raise TaskRefused(
            f"join app {app!r} asks for {what}: its function runs in the script's own process, where nothing honours "
            "that; give it to the apps that it calls"
        )
    who = "; ".join(
        f"executor {one.label!r} ({_kind(one)}) does not honour {' and '.join(fields)}"
        for one, fields in list(lacking.items())[:_SHOWN]
        if fields
    )
    more = f"; {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
    better = [one for one in others if all(honours(one, field, kind) for field in asked)]
    raise TaskRefused(f"app {app!r} asks for {what}: {who}{more}. {_advice(bad, kind, better)}")


def _kind(executor: Executor) -> str:
    """Return the name of an executor's class; of one that was wrapped, that of the user's own."""
    wrapped = attribute(executor, "wrapped")
    return name_of(executor if wrapped is None else wrapped)


def _advice(bad: Sequence[str], kind: AppKind, better: Sequence[Executor]) -> str:
    out = " and ".join(bad)
    if better:
        them = " or ".join(repr(one.label) for one in better[:_SHOWN])
        return f"Executor {them} of the Config does: name it by executors=, or leave {out} out"
    if bad == ["environment"] and kind is not AppKind.BASH:
        return (
            "The variables of one python app cannot be set beside other tasks of the same process: use a bash app, or "
            "an executor whose workers are processes"
        )
    if BY_HIGH_THROUGHPUT.issuperset(bad):
        return f"A HighThroughputExecutor honours that: add one to the Config, or leave {out} out"
    advice = "; ".join(_ADVICE[field] for field in bad if field in _ADVICE)
    return f"No executor of Flow's own does: leave {out} out ({advice})"

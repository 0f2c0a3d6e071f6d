"""The options of a manager, and its command line. Keys are never on it: the environment names their file."""

from __future__ import annotations

import math
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from string import Formatter

from flow_core.errors import ConfigurationError

LAUNCH_CMD = "{python} -m {module} {debug} {options}"
"""The default template of the command; ``{options}`` stands for all options but ``debug``."""

_WITHOUT_EFFECT = ("task_url", "result_url")
_KINDS: Mapping[str, Callable[[str], object]] = {"int": int, "float": float}

_HELP = {
    "executor": "label of the executor",
    "run_id": "name of the run",
    "block": "block that this manager belongs to",
    "addresses": "addresses of the interchange, all of which are tried, separated by commas",
    "port": "port of the interchange",
    "cores_per_worker": "cores that one worker stands for",
    "mem_per_worker": "memory in GB that one worker needs; 0 for any",
    "max_workers": "most workers to start",
    "prefetch_capacity": "most tasks to take beyond the workers; -1 for as many as is good",
    "heartbeat_period": "seconds between two heartbeats",
    "heartbeat_threshold": "seconds of silence after which the other side is taken as lost",
    "logdir": "directory of logs",
    "accelerators": "accelerators to give to workers: entries separated by blanks",
    "cpu_affinity": "how workers are pinned to CPUs",
    "drain_period": "seconds after which this manager takes no more tasks and leaves; 0 for never",
    "working_dir": "directory of staged files",
    "max_result_bytes": "largest result",
    "sampler": "resource sampler to run on this node, as JSON",
    "walltime": "seconds that the block lasts; 0 where not known",
    "debug": "write more to the log",
    "max_worker_log_bytes": "most bytes of a worker's log, whose middle is cut; 0 for no limit",
}


@dataclass(frozen=True, slots=True)
class ManagerOptions:
    """All that a manager is told, in the order of ``_HELP``; there each is explained."""

    executor: str
    run_id: str
    block: str
    addresses: tuple[str, ...]
    port: int
    cores_per_worker: float = 1.0
    mem_per_worker: float = 0.0
    max_workers: float = math.inf
    prefetch_capacity: int = -1
    heartbeat_period: float = 30.0
    heartbeat_threshold: float = 120.0
    logdir: str = ""
    accelerators: str = ""
    cpu_affinity: str = "none"
    drain_period: float = 0.0
    working_dir: str = ""
    max_result_bytes: int = 16 << 30
    sampler: str = ""
    walltime: float = 0.0
    debug: bool = False
    max_worker_log_bytes: int = 64 << 20

    def arguments(self) -> list[str]:
        """Return the options as arguments of a command, all but ``debug``; defaults are left out."""
        words = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "debug" and value != field.default:
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                words.append(f"--{field.name.replace('_', '-')}" + ("" if value is True else f"={text}"))
        return words

    def command(
        self,
        template: str | None = None,
        *,
        python: str = sys.executable,
        module: str = "flow_executors.manager",
        extra: Mapping[str, object] | None = None,
    ) -> str:
        """Return the shell command of a manager from the option ``launch_cmd`` (None for the default).

        Fields of the template: every option by its name, ``options`` (all of them), ``debug``, ``python``,
        ``module`` (the manager's), ``task_url`` and ``result_url`` (both the interchange's only URL), and what
        ``extra`` holds (``nodes_per_block``). To a template without ``options`` they are appended.

        Raises:
            ConfigurationError: the template names an unknown field.
        """
        template = template or LAUNCH_CMD
        url = f"tcp://{self.addresses[0] if self.addresses else '127.0.0.1'}:{self.port}"
        known: dict[str, object] = {field.name: getattr(self, field.name) for field in fields(self)}
        known |= {"options": shlex.join(self.arguments()), "python": shlex.quote(python), "module": module}
        known |= {"addresses": ",".join(self.addresses), "debug": "--debug" if self.debug else ""}
        known |= {"task_url": url, "result_url": url}
        known |= extra or {}
        named = {name for _, name, _, _ in _parsed(template) if name is not None}
        unknown = sorted(named - known.keys())
        if unknown:
            raise ConfigurationError(
                f"launch_cmd={template!r} has unknown fields {', '.join(unknown)}; known: {', '.join(sorted(known))}"
            )
        if "options" not in named:
            template += " {options}"
        return template.format_map(known).strip()


def parser() -> ArgumentParser:
    """Return the parser of the command line."""
    made = ArgumentParser(prog="python -m flow_executors.manager", description="Runs the workers of one node.")
    for field in fields(ManagerOptions):
        names = [f"--{field.name.replace('_', '-')}"]
        if "_" in field.name:
            names.append(f"--{field.name}")
        if field.name == "debug":
            made.add_argument("-d", *names, action="store_true", help=_HELP["debug"])
        elif field.type == "bool":
            made.add_argument(*names, action="store_true", help=_HELP[field.name])
        elif field.name in ("executor", "run_id", "block", "addresses", "port"):
            made.add_argument(*names, required=True, help=_HELP[field.name], type=_types()[field.name])
        else:
            made.add_argument(*names, default=field.default, help=_HELP[field.name], type=_types()[field.name])
    made.add_argument("-c", dest="cores_per_worker", type=float, help=_HELP["cores_per_worker"])
    for name in _WITHOUT_EFFECT:
        made.add_argument(f"--{name}", help="without effect: the interchange has one URL, known by addresses and port")
    return made


def from_arguments(words: Sequence[str] | None = None) -> ManagerOptions:
    """Parse a command line; ends the process with a usage message if it is wrong."""
    found: Namespace = parser().parse_args(words)
    return ManagerOptions(**{name: value for name, value in vars(found).items() if name not in _WITHOUT_EFFECT})


def _types() -> Mapping[str, Callable[[str], object]]:
    kinds: dict[str, Callable[[str], object]] = {"addresses": _addresses}
    for field in fields(ManagerOptions):
        kinds.setdefault(field.name, _KINDS.get(str(field.type), str))
    return kinds


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _parsed(template: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(f"launch_cmd={template!r} is no template: {error}; write {{{{ for a brace") from None

"""The options of a manager, and its command line. Keys are never on it: the environment names their file."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from string import Formatter
from typing import NoReturn

from flow_core.errors import ConfigurationError
from flow_core.option_records import about, options_of
from flow_executors.common.node_options import NodeOptions, PrefetchOptions

LAUNCH_CMD = "{python} -P -m {module} {debug} {options}"
"""The default template of the command; ``{options}`` stands for all options but ``debug``."""

_WITHOUT_EFFECT = ("task_url", "result_url")
_KINDS: Mapping[str, Callable[[str], object]] = {"int": int, "float": float}
_REQUIRED = ("executor", "run_id", "block", "addresses", "port")
# What stands for None on a command line and in a template.
_UNSET: Mapping[str, object] = {"mem_per_worker": 0.0, "drain_period": 0.0, "prefetch_capacity": -1, "working_dir": ""}


@dataclass
class ManagerOptions(PrefetchOptions, NodeOptions):
    """All options of a manager."""

    executor: str = field(metadata=about("Label of the executor."))
    run_id: str = field(metadata=about("Name of the run."))
    block: str = field(metadata=about("Block that this manager belongs to."))
    addresses: tuple[str, ...] = field(
        metadata=about("Addresses of the interchange, all of which are tried, separated by commas.")
    )
    port: int = field(metadata=about("Port of the interchange."))
    _: KW_ONLY
    logdir: str = field(default="", metadata=about("Directory of logs."))
    accelerators: str = field(
        default="", metadata=about("Accelerators to give to workers: entries separated by blanks.")
    )
    mpi_launcher: str = field(default="auto", metadata=about("Launcher of tasks of ranks, or a function, pickled."))
    sampler: str = field(default="", metadata=about("Resource sampler to run on this node, as JSON."))
    walltime: float = field(default=0.0, metadata=about("Seconds that the block lasts; 0 where not known."))
    debug: bool = field(default=False, metadata=about("Write more to the log."))

    def arguments(self) -> list[str]:
        """Return the options as arguments of a command, all but ``debug``; defaults are left out."""
        words = []
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name != "debug" and value is not None and value != option.default:
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                words.append(f"--{option.name.replace('_', '-')}" + ("" if value is True else f"={text}"))
        return words

    def command(
        self,
        template: str | None = None,
        *,
        python: str | None = None,
        module: str = "flow_executors.manager",
        extra: Mapping[str, object] | None = None,
    ) -> str:
        """Return the shell command of a manager from the option ``launch_cmd`` (None for the default).

        Fields of the template: every option by its name, ``options`` (all of them), ``debug``, ``python``,
        ``module`` (the manager's), ``task_url`` and ``result_url`` (both the interchange's only URL), and what
        ``extra`` holds (``nodes_per_block``). To a template without ``options`` they are appended. ``python`` is shell
        code that stands for an interpreter; None for that of this process.

        Raises:
            ConfigurationError: the template names an unknown field.
        """
        template = template or LAUNCH_CMD
        url = f"tcp://{self.addresses[0] if self.addresses else '127.0.0.1'}:{self.port}"
        known: dict[str, object] = {option.name: getattr(self, option.name) for option in fields(self)}
        known |= {name: unset for name, unset in _UNSET.items() if known[name] is None}
        known |= {
            "options": shlex.join(self.arguments()),
            "python": python or shlex.quote(sys.executable),
            "module": module,
        }
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


class _Parser(ArgumentParser):
    """Tells of options that it does not know on which node and in which release that is."""

    def error(self, message: str) -> NoReturn:
        """End the process with status 2."""
        from flow_executors import __version__

        self.exit(
            2,
            f"flow: the manager on node {os.uname().nodename}, of flow-executors {__version__}, does not understand "
            f"the options that it was started with ({message}): is the script's release another? Make them agree, or "
            "let the executor bring its own (bootstrap=True)\n",
        )


def parser() -> ArgumentParser:
    """Return the parser of the command line."""
    made = _Parser(prog="python -m flow_executors.manager", description="Runs the workers of one node.")
    documentation = {option.name: option.documentation for option in options_of(ManagerOptions)}
    for option in fields(ManagerOptions):
        names = [f"--{option.name.replace('_', '-')}"]
        if "_" in option.name:
            names.append(f"--{option.name}")
        if option.name == "debug":
            names.insert(0, "-d")
        elif option.name == "cores_per_worker":
            names.insert(0, "-c")
        text = documentation[option.name]
        if option.type == "bool":
            made.add_argument(*names, action="store_true", help=text)
        elif option.name in _REQUIRED:
            made.add_argument(*names, required=True, help=text, type=_reader(option.name, str(option.type)))
        else:
            made.add_argument(*names, default=option.default, help=text, type=_reader(option.name, str(option.type)))
    for name in _WITHOUT_EFFECT:
        made.add_argument(f"--{name}", help="without effect: the interchange has one URL, known by addresses and port")
    return made


def from_arguments(words: Sequence[str] | None = None) -> ManagerOptions:
    """Parse a command line; ends the process with a usage message if it is wrong."""
    found: Namespace = parser().parse_args(words)
    return ManagerOptions(**{name: value for name, value in vars(found).items() if name not in _WITHOUT_EFFECT})


def _reader(name: str, kind: str) -> Callable[[str], object]:
    """Return what makes the value of an option from its text on the command line."""
    if name == "addresses":
        return _addresses
    read = _KINDS.get(kind.removesuffix(" | None"), str)
    if name not in _UNSET:
        return read

    def value(text: str) -> object:
        found = read(text)
        return None if found == _UNSET[name] else found

    return value


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _parsed(template: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(f"launch_cmd={template!r} is no template: {error}; write {{{{ for a brace") from None

"""Special keywords of a call: standard streams, resources, walltime, labels; checked and made into Flow's data."""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from flow_core.apps.definition import GROWING, AppDefinition, CallOptions, StdStream
from flow_core.errors import BadStdStreamFile, ConfigurationError
from flow_core.file_names import check_path
from flow_core.files import File
from flow_core.interfaces.call import DEFAULT_SPEC, Resources, TaskSpec
from flow_core.interfaces.container import Container
from flow_core.option_names import did_you_mean

SPECIAL_KEYWORDS: Final = ("inputs", "outputs", "stdout", "stderr", "walltime", "label", "resource_specification")
"""Keywords of a call that Flow understands; functions that have such parameters get them, too."""

_TASKS_A_DIRECTORY = 10_000  # logs of tasks: a directory with a million names is slow to list on shared file systems
_WRITING_MODE = re.compile(r"[awx][+bt]{0,2}")


class _AutoLogname(str):
    """The type of AUTO_LOGNAME: text, so that it may stand wherever a path may; one object a process."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "AUTO_LOGNAME"

    def __reduce__(self) -> str:
        return "AUTO_LOGNAME"


AUTO_LOGNAME: Final[str] = _AutoLogname("flow.AUTO_LOGNAME")
"""As ``stdout=`` or ``stderr=``: let Flow name the file, ``task_logs/NNNN/task_NNNN_app[_label].stdout`` of the run."""


# -- standard streams


def resolve_streams(
    options: CallOptions, name: Callable[[str], StdStream]
) -> tuple[StdStream | None, StdStream | None]:
    """Return where standard output and error of one task go.

    Args:
        options: Those of its call.
        name: Returns what takes the place of AUTO_LOGNAME, for ``stdout`` or ``stderr``.

    Raises:
        BadStdStreamFile: what takes that place has a mode of its own, or is no path, and the call gives a mode.
    """
    return _resolved(options.stdout, "stdout", name), _resolved(options.stderr, "stderr", name)


def _resolved(stream: StdStream | None, kind: str, name: Callable[[str], StdStream]) -> StdStream | None:
    if isinstance(stream, tuple):
        target, mode = stream
        if target != AUTO_LOGNAME:
            return stream
        found = name(kind)
        if isinstance(found, (str, os.PathLike)):
            return found, mode
        raise BadStdStreamFile(f"{kind}=(AUTO_LOGNAME, {mode!r}) needs a path to write there, not {found!r}")
    if isinstance(stream, str) and stream == AUTO_LOGNAME:
        return name(kind)
    return stream


def auto_name(kind: str, app: str, label: str, task_id: int, run_dir: str | os.PathLike[str]) -> str:
    """Return the file of AUTO_LOGNAME in the directory of a run."""
    suffix = f"_{_file_safe(label)}" if label else ""
    folder = f"{task_id // _TASKS_A_DIRECTORY:04d}"
    return os.path.join(run_dir, "task_logs", folder, f"task_{task_id:04d}_{_file_safe(app)}{suffix}.{kind}")


def _file_safe(text: str) -> str:
    # Names of files have 255 bytes at most, which app and label share with the number of the task.
    return re.sub(r"[^\w.+-]+", "-", text)[:100]


def checked_stream(value: object, keyword: str, app: str) -> StdStream | None:
    """Return what was given as ``stdout=`` or ``stderr=`` if it can name a stream.

    Raises:
        BadStdStreamFile: it cannot; the message names the app and says what can.
    """
    if value == "":
        raise BadStdStreamFile(f"app {app!r}: {keyword}='' names no file")
    if isinstance(value, File) and value.kind != "file":
        raise BadStdStreamFile(f"app {app!r}: {keyword}={value!r} is not one file: give a path or a File")
    if value is None or isinstance(value, File):
        return value
    if isinstance(value, (str, os.PathLike)):
        _check_place(value, keyword, app)
        return value
    if isinstance(value, tuple) and len(value) == 2:
        target, mode = value
        if isinstance(target, (str, os.PathLike)) and isinstance(mode, str) and _WRITING_MODE.fullmatch(mode):
            _check_place(target, keyword, app)
            return target, mode
        raise BadStdStreamFile(
            f"app {app!r}: {keyword}={value!r}: the pair must be (path, mode), with a mode of open() that writes: "
            "'a' (append), 'w' (overwrite) or 'x' (must be new)"
        )
    raise BadStdStreamFile(
        f"app {app!r}: {keyword} must be a path, a pair (path, mode), a File or AUTO_LOGNAME, "
        f"not {type(value).__name__} {value!r}"
    )


def _check_place(target: str | os.PathLike[str], keyword: str, app: str) -> None:
    path = os.fspath(target)
    try:
        check_path(path, f"app {app!r}: {keyword}={path!r}")
    except ConfigurationError as error:
        raise BadStdStreamFile(str(error)) from None


# -- resources

_NUMBERS: Final = ("cores", "memory", "gpus", "disk", "running_time_min", "cores_per_rank", "gpus_per_rank")
_INTEGERS: Final = ("priority", "nodes", "ranks_per_node", "ranks")
RESOURCE_KEYS: Final = (*_NUMBERS, *_INTEGERS, "exclusive", "environment", "container", "named", "warn_before_end_s")
"""Keys of a resource specification: memory and disk in MiB, rounded up; running_time_min in seconds. Of a task of ranks
memory and disk are those of each node."""
RESOURCE_ALIASES: Final = {"num_nodes": "nodes", "num_ranks": "ranks"}
"""Other names of keys, as another system calls them."""
_OF_RANKS: Final = ("nodes", "ranks_per_node", "ranks", "cores_per_rank", "gpus_per_rank", "exclusive")
_MOST_RANKS: Final = 10_000_000  # beyond every machine; their product with cores stays a number that messages hold

_MOST: Final = 1e15  # of an amount, beyond every machine: messages have 64 bits for it
_MOST_INTEGER: Final = 2**63 - 1


def task_spec(app: str, walltime: object = None, resources: object = None) -> TaskSpec:
    """Return the shared TaskSpec for a walltime in seconds and a resource specification.

    Raises:
        ConfigurationError: a key is unknown or a value impossible; the message names it.
    """
    if walltime is None and not resources:
        return DEFAULT_SPEC
    key = _key(walltime, resources)
    # Calls ask for the same over and over, so it is checked once.
    spec = None if key is None else _seen.get(key)
    if spec is None:
        spec = _checked_spec(app, walltime, resources)
        if key is not None:
            if len(_seen) >= _MOST_SEEN:
                _seen.clear()
            _seen[key] = spec
    return spec


def with_ranks(resources: Mapping[str, object]) -> Mapping[str, object]:
    """Return what a task asks for whose function runs on ranks: one rank, where it states none."""
    stated = any(key in resources for key in ("nodes", "ranks_per_node", "ranks", *RESOURCE_ALIASES))
    return resources if stated else {**resources, "ranks": 1}


_MOST_SEEN = 4096  # specifications that are known; a bound for scripts that ask for something else in each call
_seen: dict[tuple[object, ...], TaskSpec] = {}


def _key(walltime: object, resources: object) -> tuple[object, ...] | None:
    """Return a key of what was asked for, None where it holds dicts; types are part of it, since 1 equals True."""
    given = resources if isinstance(resources, dict) else {None: resources}
    values = tuple(given.values())
    key = (walltime, type(walltime), tuple(given), values, tuple(map(type, values)))
    try:
        hash(key)
    except Exception:  # a dict has no hash, and one of the user's own may raise anything
        return None
    return key


def _checked_spec(app: str, walltime: object, resources: object) -> TaskSpec:
    if resources is not None and not isinstance(resources, Mapping):
        raise ConfigurationError(
            f"app {app!r}: resource_specification must be a dict such as {{'cores': 2}}, not {resources!r}"
        )
    limit_s = None if walltime is None else checked_walltime(app, walltime)
    return _interned(_spec(app, limit_s, dict(resources or {})))


@lru_cache(maxsize=4096)
def _interned(spec: TaskSpec) -> TaskSpec:
    return spec


def _spec(app: str, walltime_s: float | None, given: dict[object, object]) -> TaskSpec:
    for key in [*given]:
        name = RESOURCE_ALIASES.get(key) if isinstance(key, str) else None
        if name is not None and name in given:
            raise ConfigurationError(f"app {app!r}: resources {name!r} and {key!r} are one: give one of them")
        if name is not None:
            given[name] = given.pop(key)
        elif key not in RESOURCE_KEYS:
            raise ConfigurationError(f"app {app!r}: unknown resource {key!r}{did_you_mean(key, RESOURCE_KEYS)}")
    number: dict[str, float] = {key: _at_least_0(app, key, given[key]) for key in _NUMBERS if key in given}
    integer: dict[str, int] = {key: _integer(app, key, given[key]) for key in _INTEGERS if key in given}
    exclusive = _flag(app, "exclusive", given.get("exclusive"))
    nodes, ranks_per_node, ranks = _ranks(app, number, integer, bool(exclusive))
    container = _container(app, given.get("container"))
    if container is not None:
        _refuse_ranks(app, container, number, integer)
    return TaskSpec(
        resources=Resources(
            cores=number.get("cores", 1.0),
            memory_mb=math.ceil(number.get("memory", 0)),
            gpus=number.get("gpus", 0.0),
            disk_mb=math.ceil(number.get("disk", 0)),
            nodes=nodes,
            ranks_per_node=ranks_per_node,
            named=_named(app, given.get("named")),
            ranks=ranks,
            cores_per_rank=number.get("cores_per_rank") or None,
            gpus_per_rank=number.get("gpus_per_rank") or None,
            exclusive=exclusive or None,
        ),
        priority=integer.get("priority", 0),
        running_time_min_s=number.get("running_time_min", 0.0),
        walltime_s=walltime_s,
        environment=_environment(app, given.get("environment")),
        container=container,
        warn_before_end_s=_warning(app, given.get("warn_before_end_s")),
    )


def _ranks(
    app: str, number: Mapping[str, float], integer: Mapping[str, int], exclusive: bool
) -> tuple[int, int, int | None]:
    """Return nodes, most ranks on each, and ranks altogether (None where the task has none), of what is asked for.

    Raises:
        ConfigurationError: the keys contradict each other; the message names them.
    """
    nodes, each, ranks = integer.get("nodes"), integer.get("ranks_per_node"), integer.get("ranks")
    asked = [key for key in _OF_RANKS if integer.get(key) or number.get(key) or (key == "exclusive" and exclusive)]
    if not asked:
        return 1, 1, None
    for plain, of_a_rank, least in (("cores", "cores_per_rank", 1), ("gpus", "gpus_per_rank", 0)):
        if number.get(plain, 0) > least:
            raise ConfigurationError(
                f"app {app!r}: resource {plain!r} is that of a task without ranks, and {asked[0]!r} makes it one with "
                f"ranks: give {of_a_rank!r} instead"
            )
    if ranks is not None and nodes is None and each is not None:
        nodes = -(-ranks // each)
    elif ranks is not None and nodes is not None:
        if ranks < nodes:
            raise ConfigurationError(f"app {app!r}: {ranks} 'ranks' leave some of its {nodes} 'nodes' without one")
        if each is not None and nodes * each != ranks:
            raise ConfigurationError(
                f"app {app!r}: {nodes} 'nodes' with {each} 'ranks_per_node' are {nodes * each} 'ranks', not {ranks}: "
                "give two of the three"
            )
        each = -(-ranks // nodes)
    # Ranks alone stand beside one node with one rank: so it is told that they may be anywhere.
    nodes, each = nodes or 1, each or 1
    ranks = nodes * each if ranks is None else ranks
    if max(ranks, nodes) > _MOST_RANKS:
        raise ConfigurationError(f"app {app!r}: {_shown(ranks)} ranks are more than {_MOST_RANKS}")
    return nodes, each, ranks


def _refuse_ranks(app: str, container: Container, number: Mapping[str, float], integer: Mapping[str, int]) -> None:
    """Refuse ranks of a task in a container, in which no launcher could start them on the task's nodes.

    ``exclusive`` alone is no request for ranks: it gives the container a node to itself.
    """
    asked = [key for key in _OF_RANKS if number.get(key) or integer.get(key)]
    if asked:
        raise ConfigurationError(
            f"app {app!r}: {container!r} is a container of one task, in which no ranks of MPI can be started, and "
            f"{asked[0]!r} asks for ranks: leave one of them out, or give the image to the whole pool, by container= "
            "of the executor"
        )


def _flag(app: str, key: str, value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise ConfigurationError(f"app {app!r}: resource {key!r} must be True or False, not {_shown(value)}")


def _at_least_0(app: str, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST:
        raise ConfigurationError(
            f"app {app!r}: resource {key!r} must be a number of at least 0 and at most {_MOST:.0e}, not {_shown(value)}"
        )
    return float(value)


def _shown(value: object) -> str:
    """Return the repr of a value, or of a whole number that is too long for that how many bits it has."""
    too_long = isinstance(value, int) and value.bit_length() > 256
    return f"one of {value.bit_length()} bits" if too_long and isinstance(value, int) else repr(value)


LONGEST_S: Final = 1e9
"""Seconds, more than 30 years. Clocks and timers of the system take no times that are much longer."""


def checked_walltime(app: str, value: object) -> float:
    """Return a walltime in seconds. Raises ConfigurationError: it is none."""
    return _seconds(app, "walltime", value, "; leave it out, or pass None, for no limit")


def _warning(app: str, value: object) -> float | None:
    if value is None:
        return None
    return _seconds(app, "warn_before_end_s", value, ": as many as it takes to save the work")


def _seconds(app: str, option: str, value: object, advice: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LONGEST_S:
        raise ConfigurationError(
            f"app {app!r}: {option} must be a number of seconds above 0 and at most {LONGEST_S:.0e}, not {value!r}"
            f"{advice}"
        )
    return float(value)


def checked_signal(value: object, app: str) -> int:
    """Return the number of a signal that is given by its name or number; of SIGTERM for None.

    Raises:
        ConfigurationError: there is no such signal, or one that a program cannot catch.
    """
    if value is None:
        return signal.SIGTERM
    number: object = value
    if isinstance(value, str):
        number = getattr(signal, value if value.startswith("SIG") else f"SIG{value}", None)
    if isinstance(number, bool) or not isinstance(number, int) or number not in signal.valid_signals() - _NOT_CAUGHT:
        raise ConfigurationError(
            f"app {app!r}: warn_signal must be a signal that a program can catch, such as 'SIGTERM' or 'SIGUSR1', not "
            f"{value!r}"
        )
    return int(number)


def check_grows(app: AppDefinition, spec: TaskSpec) -> None:
    """Check that a call of an app whose tasks grow states what grows.

    Raises:
        ConfigurationError: it does not; the message says what is missing.
    """
    stated = {"memory": spec.resources.memory_mb, "walltime": spec.walltime_s}
    for name, _ in app.growth:
        if not stated[name]:
            where = "walltime=" if name == "walltime" else "the key 'memory' of resource_specification="
            raise ConfigurationError(
                f"app {app.name!r}: grow_on_retry lets {name} grow, and this call states none: give it {where}"
            )


_NOT_CAUGHT: Final = frozenset((signal.SIGKILL, signal.SIGSTOP))
_MOST_GROWTH: Final = 1e6


def checked_growth(value: object, app: str) -> tuple[tuple[str, float], ...]:
    """Return factors by which what ran out grows, by name.

    Raises:
        ConfigurationError: they are for something else, or no factors.
    """
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"app {app!r}: grow_on_retry must be a dict such as {{'memory': 2, 'walltime': 1.5}}, not {value!r}"
        )
    for name, factor in value.items():
        if name not in GROWING:
            raise ConfigurationError(
                f"app {app!r}: grow_on_retry names {name!r}, which does not grow{did_you_mean(name, GROWING)}"
            )
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 1 < factor <= _MOST_GROWTH:
            raise ConfigurationError(
                f"app {app!r}: the factor of {name!r} in grow_on_retry must be a number above 1, not {factor!r}"
            )
    return tuple(sorted((str(name), float(factor)) for name, factor in value.items()))


def _integer(app: str, key: str, value: object) -> int:
    least = -_MOST_INTEGER if key == "priority" else 1
    # What is handed on is the number alone, not an enumeration's member or another class's object that is one.
    number = int.__index__(value) if isinstance(value, int) and not isinstance(value, bool) else None
    if number is None or not least <= number <= _MOST_INTEGER:
        bounds = "below 2**63 either way" if key == "priority" else "of at least 1 and below 2**63"
        raise ConfigurationError(f"app {app!r}: resource {key!r} must be a whole number {bounds}, not {_shown(value)}")
    return number


def _environment(app: str, value: object) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"app {app!r}: environment must be a dict of names and values, not {value!r}")
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ConfigurationError(f"app {app!r}: {name!r} cannot be the name of an environment variable")
        if not isinstance(text, str) or "\0" in text:
            raise ConfigurationError(f"app {app!r}: environment variable {name!r} must be text, not {text!r}")
        try:
            os.fsencode(name), os.fsencode(text)
        except UnicodeEncodeError:
            raise ConfigurationError(
                f"app {app!r}: environment variable {name!r} must be text that can be written as UTF-8, not {text!r}"
            ) from None
    return tuple(sorted(value.items()))


def _named(app: str, value: object) -> tuple[tuple[str, float], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ConfigurationError(f"app {app!r}: resource 'named' must be a dict of names and amounts, not {value!r}")
    return tuple(sorted((name, _at_least_0(app, name, amount)) for name, amount in value.items()))


def _container(app: str, value: object) -> Container | None:
    if value is None or isinstance(value, Container):
        return value
    if isinstance(value, str):
        try:
            return Container(value)
        except ConfigurationError as error:
            raise ConfigurationError(f"app {app!r}: {error}") from None
    raise ConfigurationError(f"app {app!r}: container must be the name of an image or a Container, not {value!r}")

"""Chooses how the files of a task get to it and back, and what runs around its function."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache, partial
from os import PathLike, fspath
from pathlib import Path

from flow_core.apps.definition import AppDefinition, AppKind, CallOptions, StdStream
from flow_core.aside import within
from flow_core.errors import NoStagingError
from flow_core.files import File, masked
from flow_core.guard import attribute, one_line, pass_signal
from flow_core.hooks import Calling, hook_name, is_own
from flow_core.interfaces.call import TaskStep
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.staging import Direction, Staging, Transfer
from flow_core.remote.bash import BashStep
from flow_core.remote.outputs import CheckOutputs, MakeDirectories
from flow_core.staging.defaults import load_default_staging
from flow_core.staging.holding import hold, let_go
from flow_core.staging.moves import Moved, Moves
from flow_core.staging.noop import NoOpFileStaging
from flow_core.staging.places import Places
from flow_core.staging.replace import has_files, replaced

_STREAMS = ("stdout", "stderr")
_SHARED = ("inputs", "outputs", *_STREAMS)
_NO_STEPS: tuple[TaskStep, ...] = ()
_CLOSE_S = 2.0

_logger = logging.getLogger("flow.staging")

Mover = Callable[[], Future[None]]


@dataclass(frozen=True, slots=True)
class StagingPlan:
    """What the kernel does for one try of a task.

    Attributes:
        args: Positional arguments for the function, Files replaced by copies that know their local path.
        kwargs: Keyword arguments likewise, without special keywords that the function does not take.
        outputs: The declared outputs as the task knows them.
        steps: All steps around the function, outermost first.
        stage_in: Moves files in on the submit side, before the task is handed to its executor; None: nothing to do.
        stage_out: Moves files out on the submit side, to be called only after the task ended well.
        on_node: What is moved by the steps, that is by the node.
    """

    args: tuple[object, ...]
    kwargs: dict[str, object]
    outputs: tuple[File, ...] = ()
    steps: tuple[TaskStep, ...] = ()
    stage_in: Mover | None = None
    stage_out: Mover | None = None
    on_node: tuple[Transfer, ...] = ()


class StagingManager:
    """Makes the plans of a run. Any thread.

    Args:
        default: The methods for executors without ``storage_access``; None means the installed ones, which are not
            looked for before a file needs more than its own path.
        max_moves: How many tasks' files are moved at once on the submit side; others wait for their turn.
        run_dir: Where remote files go for executors without ``working_dir``: into ``staged`` there.
        moved: Called for each file that was moved on the submit side, or was not, with the error then.
        apart: Whether the users' own methods are called by the thread of hooks.
    """

    def __init__(
        self,
        default: Sequence[Staging] | None = None,
        max_moves: int = 10,
        run_dir: Path | None = None,
        moved: Moved | None = None,
        *,
        apart: bool = False,
    ) -> None:
        self._given = None if default is None else tuple(default)
        self._local = NoOpFileStaging()
        self._loaded: tuple[Staging, ...] | None = None
        self._lock = threading.Lock()
        self._used: dict[int, Staging] = {}
        self.places = Places(run_dir)
        self.moves = Moves(max_moves, moved, apart=apart)

    def plan(
        self,
        task_id: int,
        executor: Executor,
        app: AppDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        options: CallOptions,
        directory_of_call: Callable[[], str] = lambda: "",
    ) -> StagingPlan:
        """Plan one try of a task on an executor. Arguments hold no futures, streams no AUTO_LOGNAME any more.

        Relative paths are relative to the directory of the call, which is asked for only if there are files; on an
        executor with a ``working_dir``, whose nodes may not have that one, to the directory that the task runs in.

        Raises:
            NoStagingError: a file can be moved by no method of the executor.
        """
        kind = app.kind
        if kwargs and not app.takes.issuperset(_SHARED):
            kwargs = {name: value for name, value in kwargs.items() if name in app.takes or name not in _SHARED}
        simple = kind is AppKind.JOIN or (not options.outputs and options.stdout is None and options.stderr is None)
        if simple and not (has_files(args) or has_files(kwargs)):
            if kind is AppKind.BASH:
                return StagingPlan(args, kwargs, steps=_bash_alone(app.name, options.spec.environment))
            return StagingPlan(args, kwargs)
        directory = directory_of_call()
        if kind is AppKind.JOIN:  # its body runs here and hands files on to other apps
            return _placed(args, kwargs, directory)
        if executor.working_dir is not None:
            directory = ""
        return _Planner(self, task_id, executor, app, options, directory).plan(args, kwargs)

    def method(self, executor: Executor, file: File, direction: Direction, who: str = "a file") -> Staging | None:
        """Return the first method of an executor that can move a file, or None. ``who`` asks, for messages."""
        if executor.storage_access is None and self._given is None and file.scheme == "file":
            return self._local
        for method in self.methods(executor):
            if _can(method, file, direction, who):
                self._use(method)
                return method
        return None

    def _use(self, method: Staging) -> None:
        if id(method) in self._used:
            return
        with self._lock:
            if id(method) not in self._used:
                self._used[id(method)] = method
                hold(method)

    def methods(self, executor: Executor) -> tuple[Staging, ...]:
        """Return the methods of an executor in the order in which they are asked."""
        if executor.storage_access is not None:
            return tuple(executor.storage_access)
        if self._given is not None:
            return self._given
        with self._lock:
            if self._loaded is None:
                self._loaded = tuple(load_default_staging())
            return self._loaded

    def close(self) -> None:
        """Fail what waits to be moved and close the methods that were used, but for those that another kernel uses.

        Idempotent. Errors of one method do not keep the others open.
        """
        self.moves.close()
        with self._lock:
            used, self._used = self._used, {}
        for method in used.values():
            if let_go(method):
                _end(method)


def _end(method: Staging) -> None:
    """Close a method; one of the user's own may take some seconds."""
    who = hook_name("staging method", method, "close")
    try:
        if is_own(method):
            method.close()
        elif not within(_CLOSE_S, method.close, "flow-hooks-end"):
            _logger.error("%s did not return within %g s and was left behind", who, _CLOSE_S)
    except BaseException as error:
        pass_signal(error)
        _logger.error("%s raised %s", who, one_line(error), exc_info=error)


def _placed(args: tuple[object, ...], kwargs: dict[str, object], directory: str) -> StagingPlan:
    """Tie the files of a call to its directory, if that is still there."""

    def placed(file: File) -> File:
        return file.relative_to(directory)

    return StagingPlan(replaced(args, placed), replaced(kwargs, placed)) if directory else StagingPlan(args, kwargs)


@lru_cache(maxsize=1024)
def _bash_alone(app: str, environment: tuple[tuple[str, str], ...]) -> tuple[TaskStep, ...]:
    """Return the one step of bash apps without files, shared by all their tasks."""
    return (BashStep(app, environment=environment),)


@dataclass(slots=True)
class _Planner:
    """Collects the transfers of one task."""

    manager: StagingManager
    task_id: int
    executor: Executor
    app: AppDefinition
    options: CallOptions
    directory: str
    _here: dict[str, File] = field(default_factory=dict)
    _moves: dict[tuple[Direction, int], tuple[Staging, list[Transfer]]] = field(default_factory=dict)
    _listed: set[tuple[Direction, str]] = field(default_factory=set)

    def plan(self, args: tuple[object, ...], kwargs: dict[str, object]) -> StagingPlan:
        outputs = tuple(self._file(file, Direction.OUT) for file in self.options.outputs)
        new_args = tuple(replaced(value, self._input) for value in args)
        new_kwargs = {
            name: value if name in ("outputs", *_STREAMS) else replaced(value, self._input)
            for name, value in kwargs.items()
        }
        if "outputs" in new_kwargs and outputs:
            new_kwargs["outputs"] = list(outputs)
        streams = [self._stream(getattr(self.options, name), name, new_kwargs) for name in _STREAMS]
        in_steps, stage_in, in_node = self._movers(Direction.IN)
        out_steps, stage_out, out_node = self._movers(Direction.OUT)
        steps = (*in_steps, *out_steps, *_output_steps(self.app.name, outputs, self.directory), *self._bash(streams))
        return StagingPlan(new_args, new_kwargs, outputs, steps, stage_in, stage_out, (*in_node, *out_node))

    def _input(self, file: File) -> File:
        return self._file(file, Direction.IN)

    def _file(self, file: File, direction: Direction) -> File:
        """Return the file as the task knows it, and note that it must be moved."""
        method = self.manager.method(self.executor, file, direction, self._who)
        if method is None:
            raise self._nothing_moves(file, direction)
        local = self._here.get(file.url)
        if local is None:
            local = self._here[file.url] = self._placed(file, method)
        if not isinstance(method, NoOpFileStaging) and (direction, file.url) not in self._listed:
            self._listed.add((direction, file.url))
            transfer = Transfer(file, Path(local.filepath), direction, self.task_id, self.executor.label)
            self._moves.setdefault((direction, id(method)), (method, []))[1].append(transfer)
        return local

    def _placed(self, file: File, method: Staging) -> File:
        if file.local_path is not None:
            return file
        with self._calling(method, "local_path"):
            path = method.local_path(file, self.executor.working_dir)
            if path is not None:
                return file.at(path)
        if file.scheme == "file":
            return file.relative_to(self.directory) if self.directory else file.clean_copy()
        on_node = type(method).step is not Staging.step
        return file.at(self.manager.places.path(file, self.executor.working_dir, on_node=on_node))

    def _calling(self, method: Staging, name: str) -> Calling:
        return Calling(self._who, "staging method", method, name)

    @property
    def _who(self) -> str:
        return f"task {self.task_id} ({self.app.name})"

    def _nothing_moves(self, file: File, direction: Direction) -> NoStagingError:
        known = ", ".join(type(method).__name__ for method in self.manager.methods(self.executor)) or "none"
        way = "bring in" if direction is Direction.IN else "bring out"
        url = masked(file.url)
        return NoStagingError(
            f"task {self.task_id} ({self.app.name}): nothing on executor {self.executor.label!r} can {way} {url} "
            f"(scheme {file.scheme!r}; its staging methods are: {known}). Add a method for it to storage_access, "
            "together with all the others that are wanted.",
            url,
        )

    def _stream(self, stream: StdStream | None, name: str, kwargs: dict[str, object]) -> tuple[str, str] | None:
        """Return path and mode of a standard stream, and let the function see the path if it takes the keyword."""
        if stream is None:
            return None
        target, mode = stream if isinstance(stream, tuple) else (stream, "a")
        shown: str | File | PathLike[str] = self._file(target, Direction.OUT) if isinstance(target, File) else target
        if name in kwargs and kwargs[name] is not None:
            kwargs[name] = shown if isinstance(shown, File) else fspath(shown)
        return fspath(shown), mode

    def _bash(self, streams: Sequence[tuple[str, str] | None]) -> tuple[TaskStep, ...]:
        if self.app.kind is not AppKind.BASH:
            return _NO_STEPS
        stdout, stderr = streams
        return (BashStep(self.app.name, stdout, stderr, self.options.spec.environment, self.directory),)

    def _movers(self, direction: Direction) -> tuple[list[TaskStep], Mover | None, list[Transfer]]:
        """Return one direction's steps, what to call for the methods of the submit side, and what the steps move."""
        steps: list[TaskStep] = []
        on_node: list[Transfer] = []
        here: list[tuple[Staging, list[Transfer]]] = []
        for (way, _), (method, transfers) in self._moves.items():
            if way is direction:
                with self._calling(method, "step") as calling:
                    step = method.step(transfers)
                    if step is not None and not callable(attribute(step, "run")):
                        calling.gave(step, "a TaskStep")
                if step is None:
                    here.append((method, transfers))
                else:
                    steps.append(step)
                    on_node += transfers
        return steps, partial(self.manager.moves.start, here) if here else None, on_node


def _can(method: Staging, file: File, direction: Direction, who: str) -> bool:
    name = "can_stage_in" if direction is Direction.IN else "can_stage_out"
    with Calling(f"{who}, {masked(file.url)}", "staging method", method, name):
        return bool(getattr(method, name)(file))


def _output_steps(app: str, outputs: Sequence[File], directory: str) -> tuple[TaskStep, ...]:
    if not outputs:
        return _NO_STEPS
    paths = tuple(dict.fromkeys(file.path if file.directory == directory != "" else file.place for file in outputs))
    folders = tuple(dict.fromkeys(str(Path(path).parent) for path in paths if Path(path).parent != Path()))
    check = CheckOutputs(app, paths, directory)
    return (check, MakeDirectories(folders, directory)) if folders else (check,)

"""Staging manager: plans how the files of a task get to it and back, and which steps run around its function."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache, partial
from os import PathLike, fspath
from pathlib import Path

from flow_core.apps.definition import AppDefinition, AppKind, CallOptions, StdStream
from flow_core.bounded_calls import within
from flow_core.files import File, Glob, masked
from flow_core.guard import attribute, one_line, pass_signal, to_log
from flow_core.hooks import Calling, hook_name, is_own
from flow_core.interfaces.call import TaskSpec, TaskStep
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.staging import Direction, Staging, Transfer, Versions
from flow_core.remote.bash import BashStep
from flow_core.remote.digests import CheckDigests, Stated
from flow_core.remote.file_arguments import has_files, has_loose_files, replaced
from flow_core.remote.inputs import CheckInputs
from flow_core.remote.ranks import RanksStep
from flow_core.remote.replaced_outputs import put_back
from flow_core.remote.script_files import FilesByConnection, ScriptFile
from flow_core.remote.staged import OwnDirectory, of_a_task
from flow_core.staging.at_call import nothing_moves, pattern_as_input
from flow_core.staging.batch import Moved
from flow_core.staging.defaults import load_default_staging
from flow_core.staging.holding import acquire, release
from flow_core.staging.input_looks import InputLooks
from flow_core.staging.known import KnownFiles, chosen_place
from flow_core.staging.looks import VersionLooks
from flow_core.staging.noop import NoOpFileStaging
from flow_core.staging.outputs import Outputs, relative
from flow_core.staging.places import StagedPaths, TryPaths
from flow_core.staging.remote_inputs import RemoteInputs
from flow_core.staging.transfer_queue import TransferQueue

_IN, _OUT = Direction.IN, Direction.OUT  # a member of an enumeration is found slowly
_STREAMS = ("stdout", "stderr")
_SHARED = ("inputs", "outputs", *_STREAMS)
_NO_STEPS: tuple[TaskStep, ...] = ()
CLOSE_S = 2.0  # seconds that close() of one of the user's methods may take: the run's end waits for it

_logger = logging.getLogger("flow.staging")

Mover = Callable[[], Future[None]]


@dataclass(frozen=True, slots=True)
class StagingPlan:
    """Plan of the file transfers and steps of one try of a task.

    Attributes:
        args: Positional arguments for the function, Files replaced by copies that know their local path.
        kwargs: Keyword arguments likewise, without special keywords that the function does not take.
        outputs: The declared outputs as the task knows them.
        steps: All steps around the function, outermost first.
        stage_in: Moves files in on the submit side, before the task is handed to its executor; None: nothing to do.
        stage_out: Moves files out on the submit side, to be called only after the task ended well.
        on_node: What is moved by the steps, that is by the node.
        replaced: Paths of outputs on the disk of the submit side where the steps move aside what lies there.
    """

    args: tuple[object, ...]
    kwargs: dict[str, object]
    outputs: tuple[File, ...] = ()
    steps: tuple[TaskStep, ...] = ()
    stage_in: Mover | None = None
    stage_out: Mover | None = None
    on_node: tuple[Transfer, ...] = ()
    replaced: tuple[str, ...] = ()


class StagingManager:
    """Makes the plans of a run. Any thread.

    Attributes:
        versions: Which version of a file the run's tasks have seen, by ``Staging.pin``.
        places: Where the files of tries lie.
        local: The method for files that are used where they are.
        moves: What is moved on the submit side.

    Args:
        default: The methods for executors without ``storage_access``; None means the installed ones, which are not
            looked for before a file needs more than its own path.
        max_moves: How many tasks' files of one host are moved at once on the submit side; others wait for their turn.
            None means as many as their methods say.
        run_dir: Below which remote files lie for executors without ``working_dir``.
        moved: Called for each file that was moved on the submit side, or was not, with the error then.
        apart: Whether the users' own methods are called by the thread of hooks.
        hook_timeout_s: How long these calls may take; None means for ever.
    """

    def __init__(
        self,
        default: Sequence[Staging] | None = None,
        max_moves: int | None = None,
        run_dir: Path | None = None,
        moved: Moved | None = None,
        *,
        apart: bool = False,
        hook_timeout_s: float | None = None,
    ) -> None:
        self._given = None if default is None else tuple(default)
        self.local = NoOpFileStaging()
        self._loaded: tuple[Staging, ...] | None = None
        self._lock = threading.Lock()
        self._used: dict[int, Staging] = {}
        self._movers: dict[tuple[str, str, bool], Staging] = {}  # of the installed ones, all used
        self._loaded_are_own: bool | None = None
        self.versions: Mapping[str, str] = {}
        self.places = StagedPaths(run_dir)
        self._hook_timeout_s = hook_timeout_s
        self.moves = TransferQueue(max_moves, moved, apart=apart, hook_timeout_s=hook_timeout_s)
        self._inputs = InputLooks(hook_timeout_s)

    def plan(
        self,
        task_id: int,
        executor: Executor,
        app: AppDefinition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        options: CallOptions,
        directory_of_call: Callable[[], str] = lambda: "",
        number: int = 1,
        contested: bool = False,
        versioned: bool = False,
        stays: bool = False,
    ) -> StagingPlan:
        """Plan one try of a task on an executor. Arguments hold no futures, streams no AUTO_LOGNAME any more.

        Relative paths are relative to the directory of the call, which is asked for only if there may be such; on an
        executor with a ``working_dir``, whose nodes may not have that one, to the directory that the task runs in.
        ``number`` is that of the try, from 1; ``versioned`` asks for the versions of what comes in. Where outputs are
        ``contested``, what lies at their places stays: another unfinished task may just have made it. ``stays`` says
        that all tries of the task are in this process.

        Raises:
            NoStagingError: a file can be moved by no method of the executor.
        """
        kind, spec = app.kind, options.spec
        # Keywords that are Flow's and that the function does not take: they would be an error of the call.
        if kwargs and not app.takes.issuperset(_SHARED):
            kwargs = {name: value for name, value in kwargs.items() if name in app.takes or name not in _SHARED}
        # Most tasks: no files anywhere, so nothing is planned and no step travels.
        simple = kind is AppKind.JOIN or (not options.outputs and options.stdout is None and options.stderr is None)
        if simple and not (has_files(args) or has_files(kwargs)):
            if kind is AppKind.BASH:
                return StagingPlan(args, kwargs, steps=_bash_alone(app.name, spec.environment, _warn_signal(app, spec)))
            return StagingPlan(args, kwargs, steps=_on_ranks(app))
        # Nodes with disks of their own need what is brought to this one brought on.
        if (
            simple
            and kind is AppKind.PYTHON
            and app.gather is None
            and attribute(executor, "carries_files", False) is not True
        ):
            usual = RemoteInputs(args, kwargs)
            who = f"task {task_id} ({app.name})"
            find = partial(self.method, executor, direction=_IN, who=who)
            if usual.take(find, self.places, task_id, executor, versioned):
                start = partial(self.moves.start, usual.work, options.spec.walltime_s, who)
                return StagingPlan(usual.args, usual.kwargs, stage_in=start)
        loose = not simple or kind is not AppKind.PYTHON or has_loose_files(args) or has_loose_files(kwargs)
        # Asked for only then: getcwd lets go of the interpreter; with mkdir it was a third of the CPU time of a task
        # with a remote file.
        directory = directory_of_call() if loose else ""
        if kind is AppKind.JOIN:  # its body runs here and hands files on to other apps
            return _placed(args, kwargs, directory)
        # URLs and names of the submit side mean the directory of the call also where the nodes have another one.
        called_in = directory
        if executor.working_dir is not None:
            directory = ""
        made = Outputs(app.name, f"{self.places.token}-{task_id}", number, directory, contested, stays)
        planner = _Planner(self, task_id, executor, app, options, directory, called_in, made, versioned)
        return planner.plan(args, kwargs)

    def method(self, executor: Executor, file: File, direction: Direction, who: str = "a file") -> Staging | None:
        """Return the first method of an executor that can move a file, or None. ``who`` asks, for messages."""
        # Installed packages are not even looked for while all files are local.
        if executor.storage_access is None and self._given is None and file.scheme == "file":
            return self.local
        methods = self.methods(executor)
        # Flow's own decide by no more than that, and among all that there are the search took a good part of a plan.
        key = (file.scheme, file.kind, direction is _IN) if methods is self._loaded else None
        if key is not None and (known := self._movers.get(key)) is not None:
            return known
        for method in methods:
            if _can(method, file, direction, who):
                self._use(method)
                if key is not None and self.are_own(methods):
                    self._movers[key] = method
                return method
        return None

    def are_own(self, methods: Sequence[Staging]) -> bool:
        """Return whether all methods are Flow's own."""
        if methods is self._loaded:
            if self._loaded_are_own is None:
                self._loaded_are_own = all(map(is_own, methods))
            return self._loaded_are_own
        return all(map(is_own, methods))

    def _use(self, method: Staging) -> None:
        # Without the lock first: this is asked for each file, and a method comes once.
        if id(method) in self._used:
            return
        with self._lock:
            if id(method) not in self._used:
                self._used[id(method)] = method
                acquire(method)

    def methods(self, executor: Executor) -> tuple[Staging, ...]:
        """Return the methods of an executor in the order in which they are asked."""
        if executor.storage_access is not None:
            return tuple(executor.storage_access)
        if self._given is not None:
            return self._given
        if self._loaded is not None:
            return self._loaded
        with self._lock:
            if self._loaded is None:
                self._loaded = tuple(load_default_staging())
            return self._loaded

    def look(self, executor: Executor, files: Sequence[File], directory: str, who: str) -> Future[Versions]:
        """Look which versions of a task's outputs there are; the future never fails. ``who`` asks, for messages."""
        files = [file.relative_to(directory) for file in files] if directory else files
        return VersionLooks(
            files,
            directory,
            lambda file: self.method(executor, file, _OUT, who),
            who,
            hook_timeout_s=self._hook_timeout_s,
        ).future

    def ask_earlier(self, earlier: Callable[[], Iterable[str]]) -> None:
        """Take what gives versions of local files that earlier runs knew; it is called when it is first needed."""
        self._inputs.ask(earlier)

    def look_at_inputs(
        self,
        executor: Executor,
        files: Sequence[File],
        directory: str,
        who: str,
        read: Mapping[str, str] | None = None,
    ) -> Future[Versions]:
        """Look what a task's inputs hold; the future never fails.

        Args:
            executor: Whose methods bring them in.
            files: The inputs.
            directory: What relative paths are relative to.
            who: Who asks, for messages.
            read: After the task, which versions were brought to it, by URLs; before it None, and then files of which
                all tasks of the run see one version are looked at once.
        """
        files = [file.relative_to(directory) for file in files] if directory else files

        def method(file: File) -> Staging | None:
            """Return the method that brings a file in."""
            return self.method(executor, file, _IN, who)

        return self._inputs.look(files, directory, method, who, read)

    def put_back(
        self, task_id: int, paths: Sequence[str], tries: int, then: Callable[[], object] = lambda: None
    ) -> None:
        """Have what lay at the places of outputs put back, for a task that failed: its last try was killed, perhaps.

        ``then`` is called afterwards, on the thread that did it.
        """
        self.places.aside(partial(_put_back, paths, f"{self.places.token}-{task_id}", tries, then))

    def close(self) -> None:
        """Fail what waits to be moved and close the methods that were used, but for those that another kernel uses.

        Idempotent. Errors of one method do not keep the others open.
        """
        # Transfers first, since they use the methods; then the methods, the looks, and the directories last.
        self.moves.close()
        with self._lock:
            used, self._used = self._used, {}
            self._movers.clear()  # else one that is closed would not count as used
        for method in used.values():
            if release(method):
                _end(method)
        self._inputs.close()
        self.places.close()


def _put_back(paths: Sequence[str], task: str, tries: int, then: Callable[[], object]) -> None:
    try:
        for path in paths:
            put_back(path, task, tries)
    finally:
        then()


def _end(method: Staging) -> None:
    """Close a method; one of the user's own may take some seconds."""
    who = hook_name("staging method", method, "close")
    try:
        if is_own(method):
            method.close()
        elif not within(CLOSE_S, method.close, "flow-hooks-end"):
            _logger.error("%s did not return within %g s and was left behind", who, CLOSE_S)
    except BaseException as error:
        pass_signal(error)
        _logger.error("%s raised %s", who, one_line(error), exc_info=to_log(error))


def _placed(args: tuple[object, ...], kwargs: dict[str, object], directory: str) -> StagingPlan:
    """Tie the files of a call to its directory, if that is still there."""

    def placed(file: File) -> File:
        """Return a file whose relative path is meant in the directory of the call."""
        return file.relative_to(directory)

    return StagingPlan(replaced(args, placed), replaced(kwargs, placed)) if directory else StagingPlan(args, kwargs)


@lru_cache(maxsize=1024)
def _bash_alone(app: str, environment: tuple[tuple[str, str], ...], warn_signal: int) -> tuple[TaskStep, ...]:
    """Return the one step of bash apps without files, shared by all their tasks."""
    return (BashStep(app, environment=environment, warn_signal=warn_signal),)


def _warn_signal(app: AppDefinition, spec: TaskSpec) -> int:
    """Return the signal by which a command is told of the end of its block; 0 where it is not told."""
    return 0 if spec.warn_before_end_s is None else app.warn_signal


def _on_ranks(app: AppDefinition) -> tuple[TaskStep, ...]:
    """Return the step of apps that run on ranks; nothing for all others."""
    return _NO_STEPS if app.gather is None else (RanksStep(app.name, app.gather),)


@dataclass(slots=True)
class _Planner:
    """Collects the transfers of one try of a task, and the steps that its files need. Used by one thread, once."""

    manager: StagingManager
    task_id: int
    executor: Executor
    app: AppDefinition
    options: CallOptions
    directory: str
    called_in: str
    made: Outputs
    versioned: bool
    _who: str = field(init=False)
    _files: KnownFiles = field(init=False)
    _moves: dict[tuple[Direction, int], tuple[Staging, list[Transfer]]] = field(default_factory=dict)
    _in_place: set[str] = field(default_factory=set)
    _checked: set[tuple[str, str | None]] = field(default_factory=set)
    _stated_in: list[Stated] = field(default_factory=list)
    _stated_out: list[Stated] = field(default_factory=list)
    _places: TryPaths | None = None
    _moved_here: list[Transfer] = field(default_factory=list)
    _carries: bool = False
    _carried: dict[tuple[Direction, str], ScriptFile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin without files, with what messages call the task."""
        self._carries = attribute(self.executor, "carries_files", False) is True
        self._who = f"task {self.task_id} ({self.app.name})"
        home = self.executor.working_dir
        self._files = KnownFiles(self._who, self.directory if home is None else home)

    def plan(self, args: tuple[object, ...], kwargs: dict[str, object]) -> StagingPlan:
        """Return the plan for arguments without futures. Called once. Raises NoStagingError, ConfigurationError."""
        # Outputs before inputs: an input that is an output as well is then at the place of the output.
        outputs = tuple(self._file(file, _OUT) for file in self.options.outputs)
        new_args = tuple(replaced(value, self._input) for value in args)
        new_kwargs = {
            name: value if name in ("outputs", *_STREAMS) else replaced(value, self._input)
            for name, value in kwargs.items()
        }
        # The function sees where its outputs are to be, and not the URLs that the user named.
        if "outputs" in new_kwargs and outputs:
            new_kwargs["outputs"] = list(outputs)
        streams = [self._stream(getattr(self.options, name), name, new_kwargs) for name in _STREAMS]
        # Only when all files are known: each method gets all of its files of a direction at once.
        in_steps, stage_in, in_node = self._movers(_IN)
        out_steps, stage_out, out_node = self._movers(_OUT)
        around = self._own_directories()
        looks = self._looks(new_kwargs.get("inputs"), outputs)
        # The order is from the outside in: directories are there before files come, inputs are looked for before
        # anything is moved aside, outputs go out after they were checked, and bash is the innermost.
        steps = (
            *self._by_connection(),
            *around,
            *in_steps,
            *looks,
            *out_steps,
            *self.made.steps(outputs),
            *self._digests(),
            *self._bash(streams),
            *_on_ranks(self.app),
        )
        on_node, replaced_here = (*in_node, *out_node), tuple(self.made.replaced)
        return StagingPlan(new_args, new_kwargs, outputs, steps, stage_in, stage_out, on_node, replaced_here)

    def _own_directories(self) -> list[TaskStep]:
        """Return what makes directories on the node; none where the submit side puts files into one of them, too."""
        places = self._places
        if places is None or not places.there:
            return []
        folders = list(places.there.values())
        if any(transfer.local_path.is_relative_to(folder) for transfer in self._moved_here for folder in folders):
            # The submit side puts files there before the task starts, so it makes and removes the directory itself.
            places.take_back()
            return []
        return [OwnDirectory(folder) for folder in folders]

    def _input(self, file: File) -> File:
        if file.kind == "pattern":
            raise pattern_as_input(self._who, file)
        local = self._file(file, _IN)
        self.made.is_given(local)
        return local

    def _file(self, file: File, direction: Direction) -> File:
        """Return the file as the task knows it, and note that it must be moved."""
        method = self.manager.method(self.executor, file, direction, self._who)
        if method is None and self._carries and file.scheme == "file":
            method = self.manager.local  # the last that is tried
        if method is None:
            raise nothing_moves(self._who, self.executor.label, self.manager.methods(self.executor), file, direction)
        local = self._files.find(file)
        if local is None:
            local = self._placed(file, method)
            self._files.add(file, local)
        if isinstance(method, NoOpFileStaging):
            self._in_place.add(file.url)
            if self._carries:
                self._carry(local, direction, masked(file.url))
        elif self._files.is_new(local, direction):
            transfer = self._transfer(file, _place_of(local), direction, method)
            self._moves.setdefault((direction, id(method)), (method, []))[1].append(transfer)
            if direction is _IN and attribute(method, "checks_digests") is True:
                # The method compares the digest as it fetches, so that the task need not read the file once more.
                self._checked.add((file.url, file.digest))
        if file.digest is not None and (direction is _OUT or (file.url, file.digest) not in self._checked):
            stated = self._stated_in if direction is _IN else self._stated_out
            stated.append(self._stated_of(local, file.digest))
        return local

    def _carry(self, local: File, direction: Direction, url: str = "") -> None:
        """Note a file that the nodes may not see, as the task knows it."""
        place = local.place
        pattern = local.pattern if isinstance(local, Glob) else ""
        # Not made plain: ".." after a link leads elsewhere than its text says.
        path = os.path.join(self.called_in, place.removesuffix(pattern))
        known = self._carried.get((direction, place))
        url = known.url if known is not None else "" if url == place else url  # of several names the first
        self._carried[direction, place] = ScriptFile(place, path, local.kind, pattern, update=local.update, url=url)

    def _by_connection(self) -> tuple[TaskStep, ...]:
        """Return the step for nodes that do not see the files of this machine, if there are any files."""
        if not self._carries:
            return _NO_STEPS
        # What was brought to this machine, or is taken from here later, must come to the node and back as well.
        for transfer in self._moved_here:
            local = transfer.file.at(transfer.local_path)
            self._carry(local, transfer.direction)
        if not self._carried:
            return _NO_STEPS
        given = tuple(each for (way, _), each in self._carried.items() if way is _IN)
        made = tuple(each for (way, _), each in self._carried.items() if way is _OUT)
        return (FilesByConnection(self.called_in, given, made),)

    def _placed(self, file: File, method: Staging) -> File:
        chosen = chosen_place(file)
        if chosen is not None:
            return self._chosen(file, chosen, method)
        # A method that does not override it need not be asked, which spares a guarded call.
        if getattr(type(method), "local_path", None) is not Staging.local_path:
            with self._calling(method, "local_path"):
                path = method.local_path(file, self.executor.working_dir)
                if path is not None:
                    return file.at(path)
        if file.scheme == "file" and not attribute(method, "copies_local"):
            tied = self.directory or (file.directory and self.executor.working_dir is None)  # as those of join apps are
            return file.relative_to(self.directory) if tied else file.clean_copy()
        if self._places is None:
            self._places = self.manager.places.begin(self.task_id)
        return file.at(self._places.path(self._folder(method, self._places), file))

    def _chosen(self, file: File, path: str, method: Staging) -> File:
        """Return a file at the place that the user chose, relative to where the call was made or to ``working_dir``."""
        home = self.executor.working_dir
        if home is None:
            return file.relative_to(self.directory) if self.directory else file
        if os.path.isabs(path) or isinstance(method, NoOpFileStaging):
            return file
        return file.at(os.path.join(home if _on_node(method) else self.manager.places.absolute(home), path))

    def _folder(self, method: Staging, places: TryPaths) -> str:
        """Return the directory of this try for what a method moves."""
        home = self.executor.working_dir or _text(attribute(method, "files_home"))
        return places.on_node(home) if _on_node(method) else places.here(home)

    def _transfer(self, file: File, path: Path, direction: Direction, method: Staging) -> Transfer:
        run, executor = self.manager.places.token, self.executor
        file = file.relative_to(self.called_in) if self.called_in else file  # what a name of the submit side means
        versioned, pin = self.versioned and direction is _IN, ""
        # A file with a stated digest is the same everywhere, so the run need not know its version.
        alike = direction is _IN and file.digest is None
        if alike and _on_node(method) and isinstance(method, Staging):
            with self._calling(method, "pin"):
                pin = method.pin(file)
        version = self.manager.versions.get(pin, "") if pin else ""
        home = executor.working_dir
        return Transfer(file, path, direction, self.task_id, executor.label, run, home, versioned, pin, version)

    def _calling(self, method: Staging, name: str) -> Calling:
        return Calling(self._who, "staging method", method, name)

    def _looks(self, inputs: object, outputs: Sequence[File]) -> tuple[TaskStep, ...]:
        """Return the step that looks for local inputs which are used in place, if there are any."""
        if not isinstance(inputs, (list, tuple)):
            return _NO_STEPS
        # What is an output as well need not be there before the task.
        wanted = self._in_place.difference(each.url for each in outputs)
        here = [each for each in inputs if isinstance(each, File) and each.url in wanted]
        paths = tuple(
            dict.fromkeys(  # what ends with a slash is looked for as a directory
                os.path.join(path, "") if each.kind == "directory" else path
                for each in here
                for path in relative([each], self.directory)
            )
        )
        return (CheckInputs(self.task_id, self.app.name, paths, self.directory),) if paths else _NO_STEPS

    def _digests(self) -> tuple[TaskStep, ...]:
        """Return the step that looks whether files hold what is stated, but for those that their methods look at."""
        inputs, outputs = self._stated_in, self._stated_out
        if not inputs and not outputs:
            return _NO_STEPS
        once = tuple(dict.fromkeys(inputs)), tuple(dict.fromkeys(outputs))
        return (CheckDigests(self.task_id, self.app.name, *once),)

    def _stated_of(self, file: File, digest: str) -> Stated:
        directory = "" if of_a_task(file.place) else self.directory
        return Stated(relative([file], directory)[0], masked(file.url), digest, directory)

    def _stream(self, stream: StdStream | None, name: str, kwargs: dict[str, object]) -> tuple[str, str] | None:
        """Return path and mode of a standard stream, and let the function see the path if it takes the keyword."""
        if stream is None:
            return None
        target, mode = stream if isinstance(stream, tuple) else (stream, "a")
        shown: str | File | PathLike[str] = self._file(target, _OUT) if isinstance(target, File) else target
        if name in kwargs and kwargs[name] is not None:
            kwargs[name] = shown if isinstance(shown, File) else fspath(shown)
        if self._carries:
            place = shown.place if isinstance(shown, File) else os.path.join(self.directory, fspath(shown))
            if not isinstance(shown, File) or (_OUT, place) in self._carried:
                path = os.path.join(self.called_in, place)
                self._carried[_OUT, place] = ScriptFile(place, path, "stream", mode=mode)
        return fspath(shown), mode

    def _bash(self, streams: Sequence[tuple[str, str] | None]) -> tuple[TaskStep, ...]:
        if self.app.kind is not AppKind.BASH:
            return _NO_STEPS
        stdout, stderr = streams
        spec = self.options.spec
        return (
            BashStep(self.app.name, stdout, stderr, spec.environment, self.directory, _warn_signal(self.app, spec)),
        )

    def _movers(self, direction: Direction) -> tuple[list[TaskStep], Mover | None, list[Transfer]]:
        """Return one direction's steps, what to call for the methods of the submit side, and what the steps move."""
        steps: list[TaskStep] = []
        on_node: list[Transfer] = []
        here: list[tuple[Staging, list[Transfer]]] = []
        for (way, _), (method, transfers) in self._moves.items():
            if way is direction:
                step = self._step(method, transfers)
                if step is None:
                    here.append((method, transfers))
                    self._moved_here += transfers
                else:
                    steps.append(step)
                    on_node += transfers
        start = partial(self.manager.moves.start, here, self.options.spec.walltime_s, self._who) if here else None
        return steps, start, on_node

    def _step(self, method: Staging, transfers: Sequence[Transfer]) -> TaskStep | None:
        if getattr(type(method), "step", None) is Staging.step:
            return None
        with self._calling(method, "step") as calling:
            step = method.step(transfers)
            if step is not None and not callable(attribute(step, "run")):
                calling.gave(step, "a TaskStep")
        return step


def _on_node(method: Staging) -> bool:
    """Tell whether it is the node that moves the files of a method."""
    said = attribute(method, "files_on_node")
    return type(method).step is not Staging.step if said is None else bool(said)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _place_of(file: File) -> Path:
    """Return where a file is, of what matches a pattern the directory before that."""
    return Path(file.place[: -len(file.pattern)] if isinstance(file, Glob) else file.place)


def _can(method: Staging, file: File, direction: Direction, who: str) -> bool:
    # A method of the user's own need not have ``moves``: then it moves single files.
    kinds = ("file",) if file.kind == "file" else attribute(method, "moves", ("file",))
    if not isinstance(kinds, tuple) or file.kind not in kinds:
        return False
    name = "can_stage_in" if direction is _IN else "can_stage_out"
    if is_own(method):
        return bool(getattr(method, name)(file))
    with Calling(f"{who}, {masked(file.url)}", "staging method", method, name):
        return bool(getattr(method, name)(file))

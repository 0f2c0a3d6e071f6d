"""One task in a container: the command of a bash app, or the function of a python app, in an image.

All around it stays on the node: files are brought and looked at, streams opened, the walltime watched. A command is run
by the runtime's own command in place of bash; a function goes into a loop in the container, with Flow's own packages
bound in, so that an image needs Python of the same version, but not Flow.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Final

from flow_core.errors import AppException, BashExitFailure, ContainerError
from flow_core.files import File
from flow_core.interfaces.call import NodeContext, TaskSpec, TaskStep
from flow_core.interfaces.container import Bind, Container, is_path
from flow_core.remote.container_code import FIND_PYTHON, PYTHON_START, RUN_SCRIPT, RUN_SHELL, SHELL_LOOP
from flow_core.remote.container_removal import guarded, ran
from flow_core.remote.container_runtimes import (
    DEVICES,
    HOST_ONLY,
    TABLE,
    argv,
    fetching,
    image_of,
    presence,
    removal,
)
from flow_core.remote.file_arguments import replaced
from flow_core.remote.kept_containers import Ended, Loop, kept
from flow_core.remote.own_modules import is_local

_LONGEST_ARGUMENT = 120_000  # bytes; Linux refuses single arguments of 128 KiB and more
_LOOK_S = 30.0  # seconds for a look whether an image is there
_FETCH_S = 1800.0  # seconds for an image to come
_FAILED_S = 5.0  # an image that could not be had is not asked for again so soon
_ENGINE_FAILS = 125  # exit code of engines whose own work failed, before any command
_ENGINE_SAYS = re.compile(
    r"^Error: .*\b(?:container|conmon|crun|runc|libpod|storage)\b|^docker: Error response from daemon", re.MULTILINE
)
"""What engines say when they have failed themselves: their exit codes 126 and 127 are codes of commands, too."""
_KILLED = 137
_APPTAINER_FAILS = 255
_ENGINES: Final = ("podman", "docker")
_OF_IMAGE: Final = frozenset(
    (
        *("/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/mnt", "/opt", "/proc", "/root"),
        *("/run", "/sbin", "/srv", "/sys", "/usr", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/local", "/usr/sbin"),
        *("/usr/share", "/usr/local/bin", "/usr/local/lib", "/usr/local/share", "/var", "/var/lib"),
    )
)
"""Directories of every image: the node's would hide what makes it one. Files in them are bound one by one."""
_HANDED_ON: Final = (
    *("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "ZE_ENABLE_PCI_ID_DEVICE_ORDER"),
    "OMP_NUM_THREADS",
    *(f"{begin}_WORKER_{name}" for begin in ("FLOW", "PARSL") for name in ("RANK", "COUNT", "POOL_ID", "BLOCK_ID")),
)
"""Variables of a worker that its tasks get in a container, too."""


def contained(
    func: Callable[..., object],
    args: Sequence[object],
    kwargs: dict[str, object],
    spec: TaskSpec,
    steps: Sequence[TaskStep],
    where: NodeContext,
) -> tuple[Callable[..., object], Sequence[TaskStep]]:
    """Return function and steps of a task with ``spec.container`` as they are to be run here."""
    assert spec.container is not None
    # Calls are refused earlier; here it would pickle a function that is bound to this process.
    if any(hasattr(step, "on_ranks") for step in steps):
        raise AppException(f"a task that runs on ranks cannot run in {spec.container!r}: give the image to its pool")
    container = TaskContainer(spec.container, spec, where, _places((args, kwargs)))
    # By the attribute: whatever runs a command says itself how that is run elsewhere.
    if any(hasattr(step, "contained") for step in steps):
        return func, [step.contained(container) if hasattr(step, "contained") else step for step in steps]

    def call(*args: object, **kwargs: object) -> object:
        """Call the function in the container."""
        return container.call(func, args, kwargs)

    return call, steps


def _places(arguments: tuple[object, object]) -> list[str]:
    """Return where the files of arguments are, as absolute paths."""
    found: list[str] = []

    def noted(file: File) -> File:
        """Note where a file is."""
        try:
            found.append(os.path.abspath(file.place))
        except ValueError:  # a remote one that nobody has brought
            pass
        return file

    replaced(arguments[0], noted)
    replaced(arguments[1], noted)
    return found


_registering = threading.Lock()


@contextmanager
def _own_by_value() -> Iterator[None]:
    """Have all that is of the user's own modules go by value: a container sees neither them nor what they import."""
    import cloudpickle

    with _registering:
        known = cloudpickle.list_registry_pickle_by_value()
        own = [
            module
            for name, module in list(sys.modules.items())
            if isinstance(getattr(module, "__file__", None), str) and is_local(name) and name not in known
        ]
        own = [module for module in own if module.__name__ != "__main__" and module.__name__ in sys.modules]
        for module in own:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in own:
                cloudpickle.unregister_pickle_by_value(module)


class PackedFunction:
    """A function as it travels, for a container: it need not be loaded where the container is started."""

    def __init__(self, blob: bytes) -> None:
        self.blob = blob

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Never called: what is packed is sent on."""
        raise TypeError("a function that is packed for a container cannot be called outside it")


class TaskContainer:
    """The container of one task. The thread of the task.

    Raises:
        ContainerError: this node has none of the runtimes.
    """

    def __init__(self, container: Container, spec: TaskSpec, where: NodeContext, places: Iterable[str]) -> None:
        self._container = container
        self._spec = spec
        self._where = where
        self._places = [*places]
        self.runtime, self.image = _chosen(container)
        self._program = TABLE[self.runtime].program
        self._directory = where.directory or os.getcwd()
        self._named: tuple[str, list[str]] | None = None

    # -- bash apps

    @contextmanager
    def arguments(self, command: str) -> Iterator[tuple[list[str], tuple[int, ...]]]:
        """Give the arguments that run a command in the container; with an exception of the block it is removed."""
        inner = ["/bin/sh", "-c", RUN_SHELL, "sh", command]
        directory = ""
        if len(command.encode(errors="surrogateescape")) > _LONGEST_ARGUMENT:
            directory = guarded.directory()
            path = os.path.join(directory, f"{secrets.token_hex(8)}.sh")
            _write(path, command.encode(errors="surrogateescape"))
            inner = ["/bin/sh", "-c", RUN_SCRIPT, "sh", path]
        name = _name(self._where.executor)
        words = removal(self.runtime, name)
        self._named = name, words
        if words:
            guarded.directory()  # where the guard says what became of it
        guarded.begin(name, words)
        try:
            yield self._line(inner, name, directory, stdin=False), ()
        except BaseException:
            guarded.remove(name, words)
            raise
        finally:
            if directory:
                os.unlink(inner[-1])
        guarded.end(name, words)

    def prepare(self) -> None:
        """Have the image here. Raises ContainerError: it cannot be had."""
        _have(self.runtime, self.image)

    @property
    def is_kept(self) -> bool:
        """Whether the container is kept for later tasks."""
        return self._container.keep

    def environment(self, variables: Mapping[str, str] | None) -> dict[str, str]:
        """Return the environment of the runtime's command, which has the variables of the task."""
        given = dict(os.environ if variables is None else variables)
        if TABLE[self.runtime].variable:
            return given
        own = dict(self._spec.environment)  # what the task asks for by name it gets
        given.setdefault("USER", _user_name())  # charliecloud does not start without it
        return {name: value for name, value in given.items() if name not in HOST_ONLY or name in own}

    def run_kept(self, command: str, stdout: int, stderr: int) -> int:
        """Run a command in a container that is kept, with the output to descriptors; return its exit code.

        Raises:
            ContainerError: the container cannot be started, or ended before the command.
        """
        number = secrets.token_hex(8)
        directory = guarded.directory()
        base = os.path.join(directory, number)
        exports = [f"export {name}={shlex.quote(value)}" for name, value in self._variables().items()]
        script = "\n".join([*exports, f"cd -- {shlex.quote(self._directory)} || exit 126", command, ""])
        _write(f"{base}.sh", script.encode(errors="surrogateescape"))
        for kind in ("out", "err"):
            _write(f"{base}.{kind}", b"")
        try:
            with ExitStack() as files:
                copies = [_Copy(files, f"{base}.{kind}", to) for kind, to in (("out", stdout), ("err", stderr))]

                def copied() -> None:
                    """Write what came to where it belongs."""
                    for copy in copies:
                        copy.go_on()

                try:
                    return self._in_loop(number, ["/bin/sh", "-c", SHELL_LOOP, "sh", _WORD, directory], "shell", copied)
                finally:
                    copied()
        except Ended as ended:
            raise self._lost(ended) from None
        finally:
            _remove(base, ("sh", "out", "err"))

    # -- python apps

    def call(self, func: Callable[..., object], args: Sequence[object], kwargs: dict[str, object]) -> object:
        """Call a function in the container and return its result; what it raises is raised here.

        Raises:
            ContainerError: the container cannot be started, has no fitting Python, or ended without a result.
            SerializationError: function or arguments cannot be pickled.
        """
        from flow_core.remote.functions import WITH_LISTED
        from flow_core.remote.parcel import pack_task, unpack_result

        blob = func.blob if isinstance(func, PackedFunction) else None
        if blob is not None and blob[:1] == WITH_LISTED:
            blob = blob[17:]  # the script's own files are not asked for from a container: their code is by value, too
        where = self._where
        inside = NodeContext(where.executor, where.node, where.worker, where.key, where.working_dir)
        spec = TaskSpec(environment=tuple(self._variables().items()))
        number = secrets.token_hex(8)
        directory = guarded.directory()
        base = os.path.join(directory, number)
        self.prepare()
        try:
            with nullcontext() if blob is not None else _own_by_value():
                task = pack_task(func, args, kwargs, spec, (), inside, blob=blob, directory=self._directory)
            _write(f"{base}.task", task)
            self._in_loop(number, self._python(directory), "python", None)
            with open(f"{base}.result", "rb") as file:
                result = unpack_result(file.read())
        except Ended as ended:
            raise self._lost(ended) from None
        finally:
            _remove(base, ("task", "result"))
        if result.error is not None:
            raise result.error
        return result.value

    def _python(self, directory: str) -> list[str]:
        version = ".".join(platform.python_version_tuple()[:2])
        own = self._container.python or ""
        places = dict.fromkeys(os.path.dirname(path) for path in _leaf())
        return ["/bin/sh", "-c", FIND_PYTHON, "sh", PYTHON_START, _WORD, version, own, directory, *places]

    # -- both

    def _in_loop(self, number: str, command: Sequence[str], kind: str, meanwhile: Callable[[], object] | None) -> int:
        """Run a task in the loop of a container, one that is kept if there is one. Raises Ended, ContainerError."""
        directory = guarded.directory()
        unnamed = tuple(self._line(command, "", directory, stdin=True))
        loop = kept.take(unnamed if self._container.keep else None)
        if loop is None:
            name = _name(self._where.executor)
            line = self._line(command, name, directory, stdin=True)
            environment = self.environment({**os.environ, **self._variables()})
            try:
                loop = Loop(line, environment, name, removal(self.runtime, name), _WORD)
            except OSError as error:
                raise ContainerError(f"{self._program} cannot be started on node {_node()}: {error}") from error
            if problem := self._unfit(loop.told, kind):
                loop.kill()
                raise ContainerError(problem)
        try:
            code = loop.run(number, meanwhile)
        except BaseException:
            loop.kill()
            raise
        if self._container.keep:
            kept.keep(unnamed, loop)
        else:
            kept.end(loop)
        return code

    def _unfit(self, told: tuple[str, str], kind: str) -> str:
        """Say what is wrong with the Python of the image; empty if nothing is."""
        found, what = told
        if found == "none":
            return (
                f"image {self.image!r} has no Python, which a python app needs ({what} is not on its PATH): name it "
                "by Container(python=...), take an image with Python, or use a bash app"
            )
        own = ".".join(platform.python_version_tuple()[:2])
        if found == "python" and what != own:
            return (
                f"image {self.image!r} has Python {what} and node {_node()} Python {own}: functions travel between "
                "equal versions only. Name another Python of the image by Container(python=...), or take another image"
            )
        return "" if found == kind else f"image {self.image!r} answered {told!r} in place of a {kind}"

    def _line(self, command: Sequence[str], name: str, scratch: str, *, stdin: bool) -> list[str]:
        words = TABLE[self.runtime]
        leaf = _leaf() if scratch and stdin else ()
        whole = argv(
            self.runtime,
            self.image,
            command,
            binds=[*self._binds(scratch), *(Bind(path, path, True) for path in leaf)],
            variables=[*self._variables()],
            gpus=_accelerators() if self._spec.resources.gpus or "CUDA_VISIBLE_DEVICES" in os.environ else "",
            name=name if words.named else "",
            options=self._container.options_for(self.runtime),
            directory=self._directory,
            user=_user(self.runtime),
            stdin=stdin,
            memory_mib=self._spec.resources.memory_mb,
        )
        # By its path: the task may be given another PATH.
        return [shutil.which(whole[0]) or whole[0], *whole[1:]]

    def _variables(self) -> dict[str, str]:
        """Return the variables of the task in the container."""
        found = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        return found | dict(self._spec.environment)

    def _binds(self, scratch: str) -> list[Bind]:
        """Return what the container sees of the node: what the user named, and where the task works and has files."""
        user = list(self._container.binds)
        wanted = [scratch, self._directory, *map(_bound_for, self._places)]
        if self._where.working_dir:
            wanted.append(os.path.abspath(self._where.working_dir))
        own: list[str] = []
        for path in sorted({path for path in wanted if path and path not in _OF_IMAGE and os.path.exists(path)}):
            # What is below another one is seen with it.
            above = [*own, *(bind.target for bind in user if bind.source == bind.target)]
            if not any(path == one or path.startswith(f"{one}/") for one in above):
                own.append(path)
        return [*user, *(Bind(path, path) for path in own)]

    # -- failures

    def explained(self, failure: BashExitFailure) -> ContainerError | BashExitFailure:
        """Return the error of a command that failed, with what is known of its container."""
        code, tail = failure.exitcode, failure.stderr_tail
        if self._named is not None and guarded.lost(self._named[0]):
            guarded.remove(*self._named)
            return ContainerError(self._without_monitor())
        if self._is_own_failure(code, tail):
            if self._named is not None:
                guarded.remove(*self._named)  # it may have failed when the container ran already
            return ContainerError(self._not_run(code, tail))
        about = f"in a container of {self.image!r} ({self.runtime})"
        if code in (_KILLED, -9):
            about += f"; {self._killed()}"
        return BashExitFailure(f"{failure.reason}\n{about}", code, stderr_tail=tail)

    def _lost(self, ended: Ended) -> ContainerError:
        if ended.name and guarded.lost(ended.name):
            return ContainerError(self._without_monitor())
        if self._is_own_failure(ended.code, ended.tail):
            return ContainerError(self._not_run(ended.code, ended.tail))
        killed = f": {self._killed()}" if ended.code in (_KILLED, -9) else ""
        tail = f"\nlast lines of its stderr:\n{ended.tail}" if ended.tail else ""
        error = ContainerError(
            f"the container of {self.image!r} ({self.runtime}) on node {_node()} ended with exit code {ended.code} "
            f"before its task did{killed}{tail}"
        )
        error.exitcode = ended.code
        return error

    def _without_monitor(self) -> str:
        return (
            f"conmon, the monitor of the container of {self.image!r} ({self.runtime}) on node {_node()}, was killed, "
            f"or {self._program} did not notice its end: the container was removed, and what its task did is not known"
        )

    def _killed(self) -> str:
        limit = self._spec.resources.memory_mb
        if limit and TABLE[self.runtime].memory:
            return (
                f"137 is SIGKILL, which is what a container gets that needs more than its memory, here {limit} MiB: "
                "ask for more by resource_specification={'memory': ...}"
            )
        return "137 is SIGKILL: it was killed by hand, or the node was out of memory"

    def _is_own_failure(self, code: int, tail: str) -> bool:
        if self.runtime in _ENGINES:
            return code == _ENGINE_FAILS or (
                code in (126, 127) and (": OCI " in tail or bool(_ENGINE_SAYS.search(tail)))
            )
        return code == _APPTAINER_FAILS and "FATAL" in tail

    def _not_run(self, code: int, tail: str) -> str:
        of = f"a container of {self.image!r} on node {_node()}"
        if code in (126, 127) and ": OCI " not in tail:
            return f"{self._program} failed at {of}; exit code {code} is its own, not that of the command:\n{tail}"
        return (
            f"{self._program} could not start {of}:\n{tail}\nCheck the image, and binds= and options= of its Container"
        )


_WORD = f"flow-{secrets.token_hex(8)}"
"""Word by which answers of loops are known."""


class _Copy:
    """What a command in a kept container writes to a file, on its way to a descriptor."""

    def __init__(self, files: ExitStack, path: str, to: int) -> None:
        self._file = files.enter_context(open(path, "rb", buffering=0))  # noqa: SIM115  (its caller closes)
        self._to = to

    def go_on(self) -> None:
        """Write what came since."""
        while data := self._file.read(1 << 16):
            while data:
                data = data[os.write(self._to, data) :]


def _write(path: str, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)


def _remove(base: str, kinds: Iterable[str]) -> None:
    for kind in kinds:
        try:
            os.unlink(f"{base}.{kind}")
        except OSError:
            continue


def _name(executor: str) -> str:
    """Return a name for a container, by which its executor is known, too."""
    words = re.sub(r"[^a-zA-Z0-9_.-]+", "-", executor)[:40] or "task"
    return f"flow-{words}-{secrets.token_hex(8)}"


def _node() -> str:
    return os.uname().nodename


def _leaf() -> tuple[str, ...]:
    """Return the packages that a loop in an image needs."""
    import cloudpickle

    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return own, os.path.dirname(os.path.abspath(cloudpickle.__file__))


def _bound_for(path: str) -> str:
    """Return what is bound for a file: its directory, so that it can be made and replaced, or itself."""
    directory = path if os.path.isdir(path) else os.path.dirname(path)
    return path if directory in _OF_IMAGE else directory


def _user(runtime: str) -> tuple[int, int] | None:
    """Return who a container runs as, so that what it makes is the user's: of an image's own user it would not be."""
    if runtime == "docker":
        return os.geteuid(), os.getegid()
    return (0, 0) if runtime == "podman" else None  # who starts it, whoever that is


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _accelerators() -> str:
    return next((kind for kind, device in DEVICES.items() if os.path.exists(device)), "")


# -- images


def _chosen(container: Container) -> tuple[str, str]:
    """Return the runtime and the image of a container on this node. Raises ContainerError: there is no runtime."""
    for runtime, image in container.candidates():
        if shutil.which(TABLE[runtime].program):
            return runtime, image
    names = [TABLE[runtime].program for runtime, _ in container.candidates()]
    missing = f"{names[0]} is not on PATH" if len(names) == 1 else f"none of {', '.join(names)} is on PATH"
    raise ContainerError(f"node {_node()} has no runtime for {container!r}: {missing} ({os.environ.get('PATH', '')})")


_here: set[tuple[str, str]] = set()
_failed: dict[tuple[str, str], tuple[float, str]] = {}


def _have(runtime: str, image: str) -> None:
    """Have an image on this node, looked for once a process. Raises ContainerError: it cannot be had."""
    which = runtime, image
    if which in _here:
        return
    when, problem = _failed.get(which, (0.0, ""))
    if not problem or time.monotonic() - when > _FAILED_S:
        problem = _problem(runtime, image)
        if problem:
            _failed[which] = time.monotonic(), problem
    if problem:
        raise ContainerError(problem)
    _here.add(which)


def _problem(runtime: str, image: str) -> str:
    """Look for an image, and fetch it if it is not here; return what is wrong, empty if nothing is."""
    program = TABLE[runtime].program
    if is_path(image):
        if os.path.exists(image):
            return ""
        return f"image {image!r} of a container is not on node {_node()}: there is no such file"
    try:
        look = presence(runtime, image)
        if not look or ran(look, _LOOK_S)[0] == 0:
            return ""
        bring = fetching(runtime, image)
        if not bring:
            return f"image {image_of(runtime, image)!r} of a container is not on node {_node()}"
        code, _, errors = ran(bring, _FETCH_S)
    except (OSError, TimeoutError) as error:
        return f"image {image!r} cannot be looked for on node {_node()}: {error}"
    if code == 0:
        return ""
    last = (errors.strip().splitlines() or ["it says nothing"])[-1]
    return f"image {image!r} is not on node {_node()}, and {program} cannot fetch it (exit code {code}): {last}"

"""The step that makes a function's string a command line and runs it by bash in a process group of its own."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import IO, TYPE_CHECKING, Any, ClassVar, Protocol

from flow_core.errors import (
    AppBadFormatting,
    AppException,
    BadStdStreamFile,
    BashAppNoReturn,
    BashExitFailure,
    Requeue,
)
from flow_core.folders import current_directory, make_directory
from flow_core.interfaces.call import NodeContext
from flow_core.remote.block_end import block_is_ending, on_block_end
from flow_core.remote.links import foreign_link
from flow_core.remote.processes import (
    GRACE_S,
    WORKER_PID,
    Process,
    Table,
    Tree,
    below,
    carries,
    end,
    look,
    table,
    ticks_ago,
)
from flow_core.remote.usage import add_command
from flow_core.remote.walltime import held, timed_out
from flow_core.starting import starting

if TYPE_CHECKING:
    from dis import Instruction
    from types import CodeType


class CommandContainer(Protocol):
    """The container of a command, as ``flow_core.remote.task_container`` makes it."""

    @property
    def is_kept(self) -> bool:
        """Whether it is kept for later commands."""
        ...

    def prepare(self) -> None:
        """Have the image here. Raises ContainerError: it cannot be had."""
        ...

    def environment(self, variables: Mapping[str, str] | None) -> dict[str, str]:
        """Return the environment of what starts it; None stands for that of this process."""
        ...

    def arguments(self, command: str) -> AbstractContextManager[tuple[list[str], tuple[int, ...]]]:
        """Give arguments, and descriptors, that run a command in it; with an exception of the block it is removed."""
        ...

    def run_kept(self, command: str, stdout: int, stderr: int) -> int:
        """Run a command in one that is kept, its output to descriptors, and return its exit code."""
        ...

    def explained(self, failure: BashExitFailure) -> Exception:
        """Return the error of a command that failed, with what is known of its container."""
        ...


# The usual path first: looking for bash along PATH costs system calls for each task.
_SHELL = "/bin/bash" if os.path.exists("/bin/bash") else "bash"
_SLICE_S = 0.5  # the longest single wait; see _wait
_LONGEST_ARGUMENT = 120_000  # bytes; Linux refuses single arguments of 128 KiB and more
_TAIL_LINES = 20  # last lines of stderr in the error's text: enough for a traceback's end, short enough for a log
_TAIL_BYTES = 4096  # bytes; bounds that text where a line is very long
_COPY_BYTES = 1 << 16  # bytes of standard error that are copied to the worker's log at once
_APART_BYTES = 16 << 20  # bytes; of standard error apart from the log, on disk. Only the magnitude matters
_COMMAND_SHOWN = 300  # characters of the command in the error's text
_MARK = "FLOW_COMMAND"
"""Variable that tells the processes of one command from those of others of the same process."""
_numbers = count(1)
_GONE = "a working directory that was removed"
REQUEUE_CODE = 85
"""Exit code by which a command that was told of the end of its block asks to be run again, as in HTCondor."""
_BEGUN_S = 2.0  # seconds; a command whose start was interrupted is not older than this


@dataclass(frozen=True, slots=True)
class BashStep:
    """Runs the string that ``inner`` returns; the innermost step of a bash app.

    Attributes:
        app: Name of the app.
        stdout: Path and mode of the file for standard output; None leaves it where the worker's goes.
        stderr: The same for standard error.
        environment: Variables for the command, beside those of the worker.
        directory: What relative paths of these files are relative to; empty for the directory that the task runs in.
        warn_signal: The signal by which the command is told that its block ends; 0 where it is not told.
        container: Container in which the command runs; set where it runs. None: it runs on the node itself.
    """

    app: str
    stdout: tuple[str, str] | None = None
    stderr: tuple[str, str] | None = None
    environment: tuple[tuple[str, str], ...] = ()
    directory: str = ""
    warn_signal: int = 0
    container: CommandContainer | None = None

    sets_environment: ClassVar[bool] = True

    def run(self, inner: Callable[[], object], where: NodeContext) -> int:
        """Compose the command line, run it, and return 0.

        Raises:
            AppBadFormatting: formatting the string failed.
            BashAppNoReturn: the function returned no string.
            BadStdStreamFile: a file for a standard stream cannot be opened.
            BashExitFailure: the command ended with another code than 0, or by a signal.
            AppTimeout: the walltime passed; the process group was ended.
            Requeue: the command was told that its block ends, and wants to be run again; or it was not begun any more.
        """
        # Before files are opened: a command that cannot be composed must not empty the user's files.
        command = _composed(inner, self.app)
        if self.container is not None:
            self.container.prepare()  # before files are opened, as above
        with ExitStack() as open_files:
            files = self._placed(self.stdout), self._placed(self.stderr)
            stdout, stderr = _streams(*files, self.app, open_files)
            apart = None
            if stdout is None and stderr is None and where.main_thread:
                apart = _StderrApart.beside_stdout(open_files)
            # Made before the command starts, since it notes how long the file is by now.
            errors = apart or _StderrTail(stderr, where.main_thread)
            if self.warn_signal and block_is_ending():
                raise Requeue(f"bash app {self.app!r}: its block was about to end when its command was to begin")
            if self.container is not None and self.container.is_kept:
                code = self._run_kept(self.container, command, stdout, stderr, apart)
            else:
                place = where.directory or None
                variables = self._variables()
                code = _run(command, stdout, stderr, variables, apart, place, self.warn_signal, self.container)
        if code == 0:
            return 0
        full, told = _full_disks(files, where), self.warn_signal and block_is_ending()
        if told and code == REQUEUE_CODE:
            raise Requeue(f"bash app {self.app!r}: its command ended with exit code {code} before the end of its block")
        if told:
            name = _signal_name(self.warn_signal)
            full.append(
                f"it was told by signal {name} that its block ends: with exit code {REQUEUE_CODE} it would be run again"
            )
        failure = _failure(self.app, command, code, errors.read(), full)
        raise failure if self.container is None else self.container.explained(failure)

    def contained(self, container: CommandContainer) -> BashStep:
        """Return the step with its command in a container."""
        return replace(self, container=container)

    def _run_kept(
        self,
        container: CommandContainer,
        command: str,
        stdout: IO[bytes] | None,
        stderr: IO[bytes] | None,
        apart: _StderrApart | None,
    ) -> int:
        errors = stderr if apart is None else apart.file
        try:
            return container.run_kept(
                command, 1 if stdout is None else stdout.fileno(), 2 if errors is None else errors.fileno()
            )
        finally:
            if apart is not None:
                apart.copy()

    def _placed(self, stream: tuple[str, str] | None) -> tuple[str, str] | None:
        return None if stream is None else (os.path.join(self.directory, stream[0]), stream[1])

    def _variables(self) -> dict[str, str] | None:
        variables = {**os.environ, **dict(self.environment)} if self.environment else None
        return variables if self.container is None else self.container.environment(variables)


# -- the command line


def _composed(compose: Callable[[], object], app: str) -> str:
    try:
        command = compose()
    except (LookupError, ValueError, TypeError) as error:
        if _is_formatting(error):
            raise AppBadFormatting(
                f"bash app {app!r}: its command line could not be composed ({type(error).__name__}: {error}). Check "
                "the placeholders of the string against the arguments of the call."
            ) from error
        raise
    if not isinstance(command, str):
        raise BashAppNoReturn(
            f"bash app {app!r} returned {type(command).__name__} instead of a string: return the command line to run"
        )
    if "\0" in command:
        raise AppBadFormatting(f"bash app {app!r}: its command line holds a null byte")
    return command


_FORMAT_PHRASES = ("format", "Single '", "expected '}'", "cannot switch from", "all arguments converted")


def _is_formatting(error: Exception) -> bool:
    """Tell whether an error comes from composing a string rather than from a ``raise`` of the user's own."""
    trace = error.__traceback__
    if trace is None:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    # The innermost frame stands at a raise statement where the user raised the error; formatting raises in C.
    code, at = trace.tb_frame.f_code, trace.tb_lasti
    if code.co_code[at] == _raise_opcode():
        return False
    # The same error comes of a look into a table of the user's own, and its text does not tell which.
    if isinstance(error, LookupError):
        return _formats(code, at)
    return any(phrase in str(error) for phrase in _FORMAT_PHRASES)


def _raise_opcode() -> int:
    from opcode import opmap

    return opmap["RAISE_VARARGS"]


def _formats(code: CodeType, at: int) -> bool:
    """Tell whether the instruction at an offset formats a string: by a method for that, or by ``%``."""
    from dis import get_instructions

    before = [each for each in get_instructions(code) if each.offset <= at]
    failed = before.pop()
    if failed.opname == "BINARY_MODULO" or (failed.opname == "BINARY_OP" and failed.argrepr in ("%", "%=")):
        return True
    if not failed.opname.startswith(("CALL", "PRECALL")):
        return False
    begin = _begin(failed)
    # A method's name begins where its call does; what the call is given begins later.
    names = [each for each in before if each.opname in ("LOAD_ATTR", "LOAD_METHOD") and _begin(each) == begin]
    return bool(names) and names[-1].argval in ("format", "format_map")


def _begin(instruction: Instruction) -> tuple[int | None, int | None]:
    """Return line and column where the text of an instruction begins; None for each where Python keeps none."""
    positions = instruction.positions
    return (None, None) if positions is None else (positions.lineno, positions.col_offset)


# -- standard streams


def _streams(
    stdout: tuple[str, str] | None, stderr: tuple[str, str] | None, app: str, open_files: ExitStack
) -> tuple[IO[bytes] | None, IO[bytes] | None]:
    out = None if stdout is None else open_files.enter_context(_opened(stdout, "stdout", app))
    if stderr is None:
        return out, None
    if stdout is not None and os.path.abspath(stdout[0]) == os.path.abspath(stderr[0]):
        return out, out  # one open file, so that neither overwrites the other
    return out, open_files.enter_context(_opened(stderr, "stderr", app))


def _opened(stream: tuple[str, str], keyword: str, app: str) -> IO[bytes]:
    path, mode = stream
    try:
        folder = os.path.dirname(path)
        if folder:
            make_directory(folder)
        if found := foreign_link(path):
            raise PermissionError(f"{found}. Remove it, or name the file that it leads to")
        # Unbuffered, since only the command writes to it: what Python held would come after it.
        opened: IO[bytes] = open(path, mode.replace("t", "").replace("b", "") + "b", buffering=0)  # noqa: SIM115  (its caller closes)
    except (OSError, ValueError) as error:
        raise BadStdStreamFile(
            f"bash app {app!r}: its {keyword} file {path!r} cannot be opened with mode {mode!r}: {error}"
        ) from error
    return opened


class _StderrTail:
    """The last lines that a command wrote to its standard error, where that is a file.

    Where standard error is not captured it goes where the worker's goes. If that is a file too and the worker is a
    process of its own, what was added to it during the command is the command's.
    """

    def __init__(self, stderr: IO[bytes] | None, own_process: bool) -> None:
        self._path: str | None = None
        self._start = 0
        # Threads share one stderr, so what was added to it meanwhile may be another task's.
        descriptor = stderr.fileno() if stderr is not None else (2 if own_process else -1)
        try:
            if descriptor >= 0 and _is_file(descriptor):
                self._start = os.fstat(descriptor).st_size
                # Opened again by /dev/fd: a descriptor that is shared with the command has one position for both.
                self._path = str(stderr.name) if stderr is not None else f"/dev/fd/{descriptor}"
        except OSError:
            self._path = None

    def read(self) -> str:
        """Return the lines, at most 20 and at most 4 KiB."""
        if self._path is None:
            return ""
        try:
            with open(self._path, "rb") as written:
                size = os.fstat(written.fileno()).st_size
                start = self._start if self._start <= size else 0  # a worker's log may have been cut meanwhile
                written.seek(max(start, size - _TAIL_BYTES))
                text = written.read(_TAIL_BYTES).decode(errors="replace")
        except OSError:
            return ""
        return _last_lines(text)


class _StderrApart:
    """The standard error of a command, apart from its standard output though both go to one log: that of the worker.

    It goes to a file without a name, and from there to the log while the command runs and when it has ended. A pipe
    would need a thread, and would end by SIGPIPE what a command leaves running.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self._copied = 0
        self._tail = b""

    @classmethod
    def beside_stdout(cls, open_files: ExitStack) -> _StderrApart | None:
        """Return one if standard output and error of this process are one file; None if not, or without room for it."""
        try:
            if not (_is_file(2) and os.path.sameopenfile(1, 2)):
                return None
            log = os.readlink("/proc/self/fd/2")
            return cls(open_files.enter_context(_without_name(os.path.dirname(log))))
        except OSError:
            return None

    def copy(self) -> None:
        """Write to the log what is not there yet. Never raises OSError."""
        try:
            descriptor = self.file.fileno()
            size = os.fstat(descriptor).st_size
            if size < self._copied:  # the command has emptied it, as by "> /dev/stderr"
                self._copied = 0
            while self._copied < size and (data := os.pread(descriptor, _COPY_BYTES, self._copied)):
                self._copied += len(data)
                self._tail = (self._tail + data)[-_TAIL_BYTES:]
                while data:
                    data = data[os.write(2, data) :]
            # The log is bounded by who cuts it, so this must not grow either. What comes just now is lost, as there.
            if self._copied > _APART_BYTES and os.fstat(descriptor).st_size == self._copied:
                os.ftruncate(descriptor, 0)
                self._copied = 0
        except OSError:
            return

    def read(self) -> str:
        """Return the last lines, at most 20 and at most 4 KiB."""
        return _last_lines(self._tail.decode(errors="replace"))


def _without_name(directory: str) -> IO[bytes]:
    """Open a file without a name in a directory, or where temporary files are. Raises OSError."""
    try:
        flags = os.O_TMPFILE | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        return os.fdopen(os.open(directory, flags, 0o600), "r+b", buffering=0)
    except (OSError, AttributeError):  # not on each file system
        import tempfile

        return tempfile.TemporaryFile("a+b", buffering=0)


def _last_lines(text: str) -> str:
    return "\n".join(text.rstrip("\n").split("\n")[-_TAIL_LINES:])


def _is_file(descriptor: int) -> bool:
    """Tell whether a descriptor is open on a regular file. Raises OSError if it is not open."""
    import stat

    return stat.S_ISREG(os.fstat(descriptor).st_mode)


# -- the process


def _run(
    command: str,
    stdout: IO[bytes] | None,
    stderr: IO[bytes] | None,
    variables: dict[str, str] | None,
    apart: _StderrApart | None,
    directory: str | None,
    warn_signal: int,
    container: CommandContainer | None = None,
) -> int:
    mark, environment = _marked(variables)
    # The walltime is enforced by the wait below while the command runs: an exception of the timer could come where bash
    # runs already and its process id is not known yet.
    given = _arguments(command) if container is None else container.arguments(command)
    with held() as limit, given as (arguments, descriptors):
        # Filled by the process object before it starts, so that an interrupted start can still be ended.
        begun: list[_Bash] = []
        try:
            # process_group=0: a group of its own, so that a signal reaches all that the command starts and nothing of
            # the worker.
            process = _Bash(
                begun,
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr if apart is None else apart.file,
                env=environment,
                pass_fds=descriptors,
                cwd=directory,
                process_group=0,
            )
        except OSError as error:
            raise AppException(
                f"{arguments[0]} cannot be started in {directory or current_directory(_GONE)}: {error}"
            ) from error
        except BaseException:  # an asynchronous one: bash may run already
            for bash in begun:
                if getattr(bash, "pid", None) is not None:
                    _end_all(bash, mark)
                else:
                    _end_unknown(mark)
            raise
        try:
            try:
                if warn_signal:
                    on_block_end(lambda: _tell(process, warn_signal))
                code = _wait(process, None if limit is None else limit[0], apart)
            except BaseException:
                _end_all(process, mark)
                raise
            if code is None and limit is not None:
                _end_all(process, mark)
                raise timed_out(limit[1])
        finally:
            if apart is not None:
                apart.copy()
    return 0 if code is None else code


def _marked(variables: dict[str, str] | None) -> tuple[str, Mapping[str, str] | Mapping[bytes, bytes] | None]:
    """Return a mark of this command and its environment with it.

    A worker of ours has a mark of its own and runs one command at a time: there the mark is empty, nothing copied.
    """
    if os.environ.get(WORKER_PID) == str(os.getpid()):
        return "", variables
    mark = f"{os.getpid()}.{next(_numbers)}"
    if variables is not None:
        return mark, {**variables, _MARK: mark}
    inherited: Mapping[bytes, bytes] = getattr(os.environ, "_data", os.environb)  # as bytes: a tenth of the time
    return mark, {**inherited, os.fsencode(_MARK): os.fsencode(mark)}


class _Bash(subprocess.Popen[bytes]):
    """A process that is in ``begun`` before it starts, so that a caller that is interrupted meanwhile can end it."""

    def __init__(self, begun: list[_Bash], *args: Any, **kwargs: Any) -> None:
        begun.append(self)
        with starting():
            super().__init__(*args, **kwargs)


@contextmanager
def _arguments(command: str) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Give the arguments that make bash run the command; a very long one goes through a file without a name."""
    data = command.encode(errors="surrogateescape")
    if len(data) <= _LONGEST_ARGUMENT:
        yield [_SHELL, "-c", *(["--"] if command[:1] in ("-", "+") else []), command], ()
        return
    import tempfile

    with tempfile.TemporaryFile() as script:
        script.write(data)
        script.flush()
        script.seek(0)
        yield [_SHELL, f"/dev/fd/{script.fileno()}"], (script.fileno(),)


def _wait(process: subprocess.Popen[bytes], deadline: float | None, apart: _StderrApart | None) -> int | None:
    """Wait for a process; None if it did not end by the deadline.

    On a main thread a signal handler may raise out of the wait. On other threads an exception comes asynchronously,
    that is between two calls into the system: so none of these is long.
    """
    if deadline is None and apart is None and threading.current_thread() is threading.main_thread():
        return process.wait()
    return _wait_until(process, math.inf if deadline is None else deadline, apart)


def _wait_until(process: subprocess.Popen[bytes], deadline: float, apart: _StderrApart | None = None) -> int | None:
    """Wait for a process; None if it did not end by the deadline (``time.monotonic``). Its stderr goes to the log."""
    try:
        watched = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, or an old one
        return _poll_until(process, deadline, apart)
    import select

    try:
        poller = select.poll()
        poller.register(watched, select.POLLIN)
        while (left_s := deadline - time.monotonic()) > 0:
            # Slices, since an asynchronous exception is raised between two calls into the system only.
            if poller.poll(min(left_s, _SLICE_S) * 1000):
                return _reaped(process)
            if apart is not None:
                apart.copy()
    finally:
        os.close(watched)
    return process.poll()


def _reaped(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a process that has ended, and add its usage to that of the calling thread."""
    if process.returncode is None:
        try:
            _, status, used = os.wait4(process.pid, 0)
        except ChildProcessError:  # somebody reaps all children of this process
            return process.wait()
        process.returncode = os.waitstatus_to_exitcode(status)
        add_command(used)
    return process.returncode


def _poll_until(process: subprocess.Popen[bytes], deadline: float, apart: _StderrApart | None) -> int | None:
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            return process.wait(timeout=min(left_s, _SLICE_S))
        except subprocess.TimeoutExpired:
            if apart is not None:
                apart.copy()
    return process.poll()


def _end_all(process: subprocess.Popen[bytes], mark: str) -> None:
    """End a command with all that it started: TERM, then KILL for what is left of it after a grace.

    Those are its process group and what is below it. Who left both is known by the mark in its environment.
    """
    bash = look(process.pid) if process.returncode is None else None
    if bash is None:  # it was waited for already, or there is no /proc
        _end_group(process)
        return
    entry = os.fsencode(f"{_MARK}={mark}") if mark else os.fsencode(f"{WORKER_PID}={os.getpid()}")

    def members(processes: Table) -> list[Process]:
        """Return the living processes of the command's group."""
        # bash itself first, so that it starts nothing more while the others are ended.
        found = [one for one in processes.values() if process.pid in (one.group, one.pid)]
        return sorted(found, key=lambda one: one.pid != process.pid)

    tree = Tree(
        members,
        lambda one: carries(one.pid, (entry,)),
        since=bash.start,
        # In a worker orphans become children of the worker or of its parent; elsewhere anybody may adopt them.
        adopters=None if mark else (os.getppid(), os.getpid()),
    )
    end(tree.look, GRACE_S)
    _wait_until(process, time.monotonic() + GRACE_S)  # a process in the kernel's hands may outlive this


def _end_unknown(mark: str) -> None:
    """End a command whose process id was lost between its start and the interruption that came then."""
    me, since = os.getpid(), ticks_ago(_BEGUN_S)
    entry = os.fsencode(f"{_MARK}={mark}") if mark else os.fsencode(f"{WORKER_PID}={me}")
    # Children of this process only, started a moment ago, with this command's mark: nothing else may be ended here.
    ours = {one.pid for one in below((me,), table(), since) if one.parent == me and carries(one.pid, (entry,))}
    end(Tree(lambda processes: [processes[pid] for pid in ours if pid in processes]).look, GRACE_S)
    for pid in ours:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


def _end_group(process: subprocess.Popen[bytes]) -> None:
    _signal_group(process, signal.SIGTERM)
    _wait_until(process, time.monotonic() + GRACE_S)
    _signal_group(process, signal.SIGKILL)
    _wait_until(process, time.monotonic() + GRACE_S)


def _tell(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to all of a command's process group.

    The shell that the group began with is left out where it waits for a program and has no trap for the signal: it
    would end by it, and nobody would wait for the program, which may be saving its work.
    """
    group = [one.pid for one in table().values() if one.group == process.pid]
    if not group:  # there is no /proc
        _signal_group(process, signal.Signals(number))
    for pid in group:
        if pid != process.pid or len(group) == 1 or _catches(pid, number):
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue  # it has ended, or became another user's


def _catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal, such as a trap of bash."""
    try:
        with open(f"/proc/{pid}/status") as status:
            caught = next((line for line in status if line.startswith("SigCgt:")), "SigCgt: 0")
    except OSError:
        return False
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # all of it has ended


# -- failures


def _full_disks(files: tuple[tuple[str, str] | None, tuple[str, str] | None], where: NodeContext) -> list[str]:
    """Look at the disks of a command that failed: of its standard streams and of its working directory."""
    from flow_core.remote.full_disk import full_disks

    owner = "the worker" if where.main_thread else "the script"
    streams = [
        (
            f"standard {name} of {owner if stream is None else 'the command'}",
            descriptor if stream is None else stream[0],
        )
        for name, descriptor, stream in zip(("output", "error"), (1, 2), files, strict=True)
    ]
    return full_disks([*streams, ("working directory", current_directory(_GONE))])


def _failure(app: str, command: str, code: int, tail: str, full: Sequence[str]) -> BashExitFailure:
    shown = command if len(command) <= _COMMAND_SHOWN else f"{command[:_COMMAND_SHOWN]} ..."
    lines = [f"bash app {app!r} failed {_how_of_ranks(code, tail) or _how(code)}", *full, f"command: {shown}"]
    if tail:
        lines.append(f"last lines of its stderr:\n{tail}")
    return BashExitFailure("\n".join(lines), code, stderr_tail=tail)


def _how_of_ranks(code: int, tail: str) -> str:
    if not os.environ.get("FLOW_MPI_PREFIX"):
        return ""
    from flow_core.remote.rank_exits_core import how_ranks_ended  # needed by few tasks

    return how_ranks_ended(code, tail)


def _how(code: int) -> str:
    """Say what an exit code means; negative codes are signals that killed bash itself."""
    if code < 0:
        return f"by signal {_signal_name(-code)}"
    if code == 126:
        return "with exit code 126: the command was found but cannot be executed (permissions, or not a program)"
    if code == 127:
        return "with exit code 127: a command was not found (check PATH and the environment of the worker)"
    # bash gives 128 and the signal's number, but a program may exit with such a number by itself: hence "as it seems".
    if code > 128 and _signal_name(code - 128) != str(code - 128):
        return f"with exit code {code}: its last command was ended by signal {_signal_name(code - 128)}, as it seems"
    return f"with exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)

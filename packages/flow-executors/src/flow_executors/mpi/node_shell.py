"""Commands that mpiexec wants run on other nodes: between agents here, managers elsewhere, and daemons on this node.

On the head node of a task it takes the agents' connections, and passes each as a stream to the manager of the node that
the agent names. On the others it runs what comes so, below a guard, and passes its streams back. Messages to and from
other managers go through the event loop: ``outgoing`` and ``received``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from flow_core import starting as starts
from flow_core.errors import FlowError
from flow_core.remote.processes import Tree, carries, end
from flow_core.starting import starting
from flow_executors import errors
from flow_executors.common.task_ranks import RankPlacement, RankRequest
from flow_executors.errors import BadMessage
from flow_executors.mpi import rank_files
from flow_executors.mpi.environment import (
    AGENT_FILE,
    DIRECTORY,
    PLACEMENT,
    SOCKET_FILE,
    TASK,
    described,
    of_daemon,
    of_files,
)
from flow_executors.mpi.streams import pack_frame, take_frames, unpack_wanted
from flow_executors.wire.ranks import (
    PIECE,
    WINDOW,
    RemoteExit,
    RemoteMessage,
    RemoteStart,
    RemoteStep,
    pack_exit_status,
    pack_remote,
    pack_start,
    pack_taken_bytes,
    unpack_exit_status,
    unpack_start,
    unpack_taken_bytes,
)
from flow_executors.wire.transport import is_own

log = logging.getLogger("flow.manager")
_T = TypeVar("_T")

_FAILED: Final = 255  # exit code of what could not be started, as that of ssh
_BACKLOG: Final = 128
# Signals by which launchers end their own daemons.
_AS_ASKED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MARK: Final = re.compile(r"[\w-]{1,100}", re.ASCII)
# Launchers hand variables of theirs to daemons as options.
_HEADS_FILES: Final = re.compile(r"--?(?:prte)?mca\s+(?:orte|prte)_tmpdir_base\s+\"?[^\"\s]*/flow-ranks-[\w-]+\"?")
_START_S: Final = 10.0  # seconds that the thread has to end


@dataclass(slots=True)
class DaemonLoss:
    """A daemon of a task was killed: the task's key, the node, and how in words."""

    key: int
    node: str
    how: str


class NodeShell:
    """All of it of one manager. Methods: the thread of the event loop; what they start runs on a thread of its own.

    Args:
        directory: Tells a directory for the manager alone. Its path should be short, for the sockets in it.
        node: Name of this node.
        launcher: The executor's option ``mpi_launcher`` as text.

    Attributes:
        ready_fd: A descriptor that is readable when ``outgoing`` or ``losses`` have something.
    """

    def __init__(self, directory: Callable[[], str], node: str, launcher: str) -> None:
        self._directory = directory
        self._node = node
        self._launcher = launcher
        self._tasks: dict[int, Path] = {}
        self._commands: deque[Callable[[], None]] = deque()
        self._outgoing: deque[bytes] = deque()
        self._losses: deque[DaemonLoss] = deque()
        self.ready_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread: threading.Thread | None = None
        self._loop = _Loop(self._commands, self._wake_fd, node, self._send, self._lose)

    # -- of the head node

    def open_task(self, key: int, placement: RankPlacement, request: RankRequest) -> dict[str, str]:
        """Begin to take agents of a task that runs here, and return the variables for its worker.

        Raises:
            FlowError: there is no room for it on this node; the message says why.
        """
        name = f"{key:x}-{secrets.token_hex(4)}"
        place = Path(self._directory()) / name
        try:
            place.mkdir(mode=0o700)
            self._tasks[key] = place
            rank_files.make(name)
            _write_agent(place / AGENT_FILE)
            listening = _listen(str(place / SOCKET_FILE))
        except OSError as error:
            self._forget(key)
            raise FlowError(f"no directory for a task of ranks could be made on {self._node}: {error}") from error
        nodes = {one.node: one.manager for one in placement.places[1:]}
        self._post(lambda: self._loop.open_task(key, listening, nodes))
        # The placement comes last: by that a worker knows a task of ranks.
        return {DIRECTORY: str(place), PLACEMENT: described(placement, request, self._launcher)}

    def _forget(self, key: int) -> None:
        place = self._tasks.pop(key, None)
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
            rank_files.remove(place.name)

    # -- of all nodes

    def reserve(self, key: int, devices: Mapping[str, str]) -> None:
        """Allow commands of a task on this node, which is not its head; they see these variables of devices."""
        self._post(lambda: self._loop.reserve(key, dict(devices)))

    def end_task(self, key: int) -> None:
        """End all commands of a task, here and from here, and forget it. Never raises."""
        self._forget(key)
        if self._thread is not None:
            self._post(lambda: self._loop.end_task(key))

    def received(self, message: RemoteMessage) -> None:
        """Take a message of another manager."""
        self._post(lambda: self._loop.received(message))

    def outgoing(self) -> list[bytes]:
        """Return the REMOTE messages that are to be sent."""
        _drain(self.ready_fd)
        return _taken(self._outgoing)

    def losses(self) -> list[DaemonLoss]:
        """Return the daemons that were killed, other than by this."""
        return _taken(self._losses)

    def running(self) -> Mapping[int, int]:
        """Return pid -> key of the commands that run here for tasks of other managers."""
        return {daemon.process.pid: daemon.key for daemon in [*self._loop.daemons.values()]}

    def give_up(self, pid: int, how: str) -> None:
        """End a command that runs here for another manager; its task is lost, for what is told by ``how``."""
        self._post(lambda: self._loop.give_up(pid, how))

    def close(self) -> None:
        """End all commands, and wait for it for some seconds."""
        for key in [*self._tasks]:
            self._forget(key)
        if self._thread is not None:
            self._post(self._loop.close)
            self._thread.join(_START_S)
            if self._thread.is_alive():
                log.warning("commands of tasks of ranks did not end within %g s", _START_S)
                return
        os.close(self.ready_fd)
        os.close(self._wake_fd)

    def _post(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop.run, name="flow-ranks", daemon=True)
            self._thread.start()
        os.eventfd_write(self._wake_fd, 1)

    # On the loop's thread.

    def _send(self, message: bytes) -> None:
        self._outgoing.append(message)
        os.eventfd_write(self.ready_fd, 1)

    def _lose(self, loss: DaemonLoss) -> None:
        self._losses.append(loss)
        os.eventfd_write(self.ready_fd, 1)


def _taken(queue: deque[_T]) -> list[_T]:
    found = []
    while queue:
        found.append(queue.popleft())
    return found


def _drain(descriptor: int) -> None:
    try:
        os.eventfd_read(descriptor)
    except BlockingIOError:
        return


def program(module: str) -> list[str]:
    """Return the command of a module of Flow for any process of this node, whatever its environment is."""
    # Not of site-packages: the interpreter's own start takes longer than all that an agent does.
    folders = dict.fromkeys(str(Path(module.__file__).parents[1]) for module in (starts, errors) if module.__file__)
    code = f"import sys; sys.path[:0] = {[*folders]!r}; from {module} import main; main()"
    return [sys.executable, "-S", "-E", "-c", code]


def _write_agent(path: Path) -> None:
    # A shell between: the path of an interpreter may be longer than the kernel takes, or hold blanks.
    text = f'#!/bin/sh\nexec {shlex.join(program("flow_executors.mpi.agent"))} "$@"\n'
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _listen(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # By way of the directory's descriptor: paths of sockets have 107 bytes at most.
        folder = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
        try:
            listening.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        finally:
            os.close(folder)
        os.chmod(path, 0o600)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


@dataclass(slots=True, eq=False)
class _HeadTask:
    """A task whose agents are taken here."""

    key: int
    listening: socket.socket
    nodes: dict[str, int]


@dataclass(slots=True, eq=False)
class _Agent:
    """The connection of an agent: the near end of a stream."""

    task: _HeadTask
    connection: socket.socket
    stream: int
    manager: int = -1
    host: str = ""
    incoming: bytearray = field(default_factory=bytearray)
    outgoing: bytearray = field(default_factory=bytearray)
    ended: bool = False
    """What it still says is of no account; it goes when it has ``outgoing``."""


@dataclass(slots=True, eq=False)
class _Daemon:
    """A command on this node: the far end of a stream."""

    key: int
    manager: int
    stream: int
    mark: str
    process: subprocess.Popen[bytes]
    control: socket.socket
    input: int
    outputs: dict[int, RemoteStep]
    """Descriptors that are open yet, and what comes of them."""
    to_write: bytearray = field(default_factory=bytearray)
    taken: int = 0
    """Bytes of its input for which no credit was given yet."""
    input_ends: bool = False
    credit: dict[RemoteStep, int] = field(
        default_factory=lambda: {RemoteStep.STDOUT: WINDOW, RemoteStep.STDERR: WINDOW}
    )
    told: bytearray = field(default_factory=bytearray)
    controlled: bool = True
    code: int | None = None
    signal: int = 0
    killed: bool = False
    exited: bool = False
    """Whether the head knows its end."""


class _Loop:
    """The thread of a NodeShell, with all that it knows."""

    def __init__(
        self,
        commands: deque[Callable[[], None]],
        wake_fd: int,
        node: str,
        send: Callable[[bytes], None],
        lose: Callable[[DaemonLoss], None],
    ) -> None:
        self._commands = commands
        self._wake_fd = wake_fd
        self._node = node
        self._send = send
        self._lose = lose
        self._epoll = select.epoll()
        self._epoll.register(wake_fd, select.EPOLLIN)
        self._events: dict[int, Callable[[int], None]] = {}
        self._masks: dict[int, int] = {}
        self._streams = 0
        self._heads: dict[int, _HeadTask] = {}
        self._agents: dict[tuple[int, int], _Agent] = {}  # by key and stream
        self._unnamed: set[_Agent] = set()  # those that have not said what they want
        self._reserved: dict[int, dict[str, str]] = {}  # by key: variables of devices
        self.daemons: dict[tuple[int, int, int], _Daemon] = {}  # by key, manager and stream
        self._closing = False

    def run(self) -> None:
        """Serve until closed, and until all commands have ended."""
        while not (self._closing and not self.daemons):
            for descriptor, events in self._epoll.poll():
                if descriptor == self._wake_fd:
                    _drain(self._wake_fd)
                    for command in _taken(self._commands):
                        self._guarded(command)
                elif descriptor in self._events:
                    handler = self._events[descriptor]
                    self._guarded(lambda handler=handler, events=events: handler(events))  # type: ignore[misc]
        self._epoll.close()

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        # One bad message or one descriptor that fails does not end the others' streams.
        except BadMessage as error:
            log.warning("message of a task of ranks dropped: %s", error)
        except Exception:
            log.exception("a step for a task of ranks failed")

    def _watch(self, descriptor: int, mask: int, handler: Callable[[int], None]) -> None:
        """Have a handler called for events of a descriptor; none: no more."""
        before = self._masks.get(descriptor, 0)
        if mask and not before:
            self._epoll.register(descriptor, mask)
        elif mask:
            if mask != before:
                self._epoll.modify(descriptor, mask)
        elif before:
            self._epoll.unregister(descriptor)
        if mask:
            self._masks[descriptor], self._events[descriptor] = mask, handler
        else:
            self._masks.pop(descriptor, None)
            self._events.pop(descriptor, None)

    def _unwatch(self, descriptor: int) -> None:
        self._watch(descriptor, 0, lambda _: None)

    # -- commands of the event loop

    def open_task(self, key: int, listening: socket.socket, nodes: dict[str, int]) -> None:
        """Take agents of a task."""
        task = _HeadTask(key, listening, nodes)
        self._heads[key] = task
        self._watch(listening.fileno(), select.EPOLLIN, lambda _: self._accept(task))

    def reserve(self, key: int, devices: dict[str, str]) -> None:
        """Allow a task's commands here."""
        self._reserved[key] = devices

    def end_task(self, key: int) -> None:
        """End what there is of a task."""
        task = self._heads.pop(key, None)
        if task is not None:
            self._unwatch(task.listening.fileno())
            task.listening.close()
        for agent in [agent for agent in (*self._agents.values(), *self._unnamed) if agent.task.key == key]:
            self._drop(agent)
        self._reserved.pop(key, None)
        for daemon in [daemon for daemon in self.daemons.values() if daemon.key == key]:
            self._kill(daemon)

    def received(self, message: RemoteMessage) -> None:
        """Take a message: of a daemon for an agent here, or of an agent for a daemon here."""
        key, manager, stream = message.key, message.manager, message.stream
        try:
            step = RemoteStep(message.step)
        except ValueError:
            raise BadMessage(f"the unknown step {message.step} of a process") from None
        agent = self._agents.get((key, stream))
        if agent is not None and agent.manager == manager:
            self._to_agent(agent, step, bytes(message.body))
            return
        daemon = self.daemons.get((key, manager, stream))
        if daemon is not None:
            self._to_daemon(daemon, step, bytes(message.body))
        elif step is RemoteStep.START:
            self._start(key, manager, stream, unpack_start(message.body))
        elif step is RemoteStep.KILL:  # each is answered
            self._send(pack_remote(RemoteStep.EXIT, manager, key, stream, pack_exit_status(RemoteExit(0))))

    def close(self) -> None:
        """End all."""
        self._closing = True
        keys = {*self._heads, *self._reserved, *(daemon.key for daemon in self.daemons.values())}
        for key in keys:
            self.end_task(key)

    def give_up(self, pid: int, how: str) -> None:
        """Tell the head that the command is lost, and kill its guard: with that all below it ends."""
        for daemon in [daemon for daemon in self.daemons.values() if daemon.process.pid == pid]:
            self._exited(daemon, RemoteExit(-signal.SIGKILL, how))
            daemon.process.kill()

    # -- agents

    def _accept(self, task: _HeadTask) -> None:
        try:
            connection, _ = task.listening.accept()
        except BlockingIOError:
            return
        if not is_own(connection):
            connection.close()
            return
        connection.setblocking(False)
        self._streams += 1
        agent = _Agent(task, connection, self._streams)
        self._unnamed.add(agent)
        self._look_at(agent)

    def _look_at(self, agent: _Agent) -> None:
        # Also after its end: closed with something unread, the connection would take the exit status with it.
        mask = select.EPOLLIN
        if agent.outgoing:
            mask |= select.EPOLLOUT
        self._watch(agent.connection.fileno(), mask, lambda events: self._turn(agent, events))

    def _turn(self, agent: _Agent, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                sent = agent.connection.send(agent.outgoing[: 2 * PIECE])
                del agent.outgoing[:sent]
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                data = agent.connection.recv(2 * PIECE)
                if not data:
                    raise ConnectionResetError
                if not agent.ended:
                    agent.incoming += data
                    for step, body in take_frames(agent.incoming):
                        self._of_agent(agent, step, body)
        except BlockingIOError:
            pass
        except (OSError, BadMessage):  # mpiexec, or who ended it, has killed the agent; or it has its exit status
            self._drop(agent)
            return
        self._look_at(agent)

    def _of_agent(self, agent: _Agent, step: RemoteStep, body: bytes) -> None:
        if step is not RemoteStep.START:
            if agent.manager >= 0 and step in (RemoteStep.STDIN, RemoteStep.CREDIT):
                self._send(pack_remote(step, agent.manager, agent.task.key, agent.stream, body))
            return
        self._unnamed.discard(agent)
        start = unpack_wanted(body)
        manager = agent.task.nodes.get(start.host)
        if manager is None:
            # mpiexec may give a longer or shorter form of a name.
            short = start.host.partition(".")[0]
            manager = next((number for name, number in agent.task.nodes.items() if name.partition(".")[0] == short), -1)
        if manager < 0:
            names = ", ".join((self._node, *agent.task.nodes))
            self._finish(agent, RemoteExit(_FAILED, f"{start.host} is no node of this task, which has {names}"))
            return
        agent.manager, agent.host = manager, start.host
        self._agents[agent.task.key, agent.stream] = agent
        argv = ("/bin/sh", "-c", start.command)
        started = RemoteStart(argv, tuple(start.environment.items()), start.directory)
        self._send(pack_remote(RemoteStep.START, manager, agent.task.key, agent.stream, pack_start(started)))

    def _to_agent(self, agent: _Agent, step: RemoteStep, body: bytes) -> None:
        if step is RemoteStep.EXIT:
            ended = unpack_exit_status(body)
            if ended.code < 0 and -ended.code not in _AS_ASKED:
                how = f"its daemon of MPI {ended.error or f'was killed by signal {-ended.code}'}"
                self._lose(DaemonLoss(agent.task.key, agent.host, how))
            self._finish(agent, ended)
        elif step in (RemoteStep.STDOUT, RemoteStep.STDERR, RemoteStep.CREDIT):
            agent.outgoing += pack_frame(step, body)
            self._look_at(agent)

    def _finish(self, agent: _Agent, ended: RemoteExit) -> None:
        agent.outgoing += pack_frame(RemoteStep.EXIT, pack_exit_status(ended))
        agent.ended = True
        self._agents.pop((agent.task.key, agent.stream), None)
        self._look_at(agent)

    def _drop(self, agent: _Agent) -> None:
        """Forget an agent; what it has started ends."""
        self._unnamed.discard(agent)
        if self._agents.pop((agent.task.key, agent.stream), None) is not None:
            self._send(pack_remote(RemoteStep.KILL, agent.manager, agent.task.key, agent.stream))
        self._unwatch(agent.connection.fileno())
        agent.connection.close()

    # -- daemons

    def _start(self, key: int, manager: int, stream: int, start: RemoteStart) -> None:
        devices = self._reserved.get(key)
        reason = ""
        if devices is None or self._closing:
            reason = f"no place is kept on {self._node} for this task: it has been ended"
        else:
            try:
                self._begin(key, manager, stream, start, devices)
                return
            except OSError as error:
                reason = f"a daemon of MPI could not be started on {self._node}: {error}"
        self._send(pack_remote(RemoteStep.EXIT, manager, key, stream, pack_exit_status(RemoteExit(_FAILED, reason))))

    def _begin(self, key: int, manager: int, stream: int, start: RemoteStart, devices: dict[str, str]) -> None:
        environment = of_daemon(dict(start.environment), os.environ, devices)
        mark = environment.setdefault(TASK, f"{key:x}")
        if not _MARK.fullmatch(mark):  # it becomes part of a path
            raise OSError(f"{TASK} is {mark!r}, which is no mark of a task")
        # Those of this node, where the head has its own: the user may have named others. With the head's on its command
        # a daemon would use these.
        own = of_files(*rank_files.make(mark))
        environment |= {name: own[name] for name in own.keys() & environment if environment[name].endswith(mark)}
        argv = [_HEADS_FILES.sub("", word) for word in start.argv]
        directory = start.cwd if os.path.isdir(start.cwd) else os.path.expanduser("~")
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                with starting():
                    process = subprocess.Popen(
                        [*program("flow_executors.mpi.guard"), str(theirs.fileno()), *argv],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        pass_fds=(theirs.fileno(),),
                        cwd=directory if os.path.isdir(directory) else "/",
                        env=environment,
                        bufsize=0,
                    )
            except OSError:
                ours.close()
                raise
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        # Descriptors of this loop's own: the objects would close them at odd moments.
        descriptors = [os.dup(stream.fileno()) for stream in (process.stdin, process.stdout, process.stderr)]
        for opened in (process.stdin, process.stdout, process.stderr):
            opened.close()
        for descriptor in descriptors:
            os.set_blocking(descriptor, False)
        ours.setblocking(False)
        outputs = {descriptors[1]: RemoteStep.STDOUT, descriptors[2]: RemoteStep.STDERR}
        daemon = _Daemon(key, manager, stream, mark, process, ours, descriptors[0], outputs)
        self.daemons[key, manager, stream] = daemon
        self._watch(ours.fileno(), select.EPOLLIN, lambda _: self._told(daemon))
        self._look_at_outputs(daemon)

    def _look_at_outputs(self, daemon: _Daemon) -> None:
        for descriptor, step in daemon.outputs.items():
            mask = select.EPOLLIN if daemon.credit[step] > 0 else 0
            self._watch(descriptor, mask, lambda _, fd=descriptor, step=step: self._output(daemon, fd, step))  # type: ignore[misc]

    def _output(self, daemon: _Daemon, descriptor: int, step: RemoteStep) -> None:
        try:
            data = os.read(descriptor, max(1, min(PIECE, daemon.credit[step])))
        except BlockingIOError:
            return
        if not daemon.killed:
            self._send(pack_remote(step, daemon.manager, daemon.key, daemon.stream, data))
        if data:
            daemon.credit[step] -= len(data)
            if daemon.credit[step] <= 0:
                self._look_at_outputs(daemon)
            return
        self._unwatch(descriptor)
        os.close(descriptor)
        del daemon.outputs[descriptor]
        self._perhaps_over(daemon)

    def _to_daemon(self, daemon: _Daemon, step: RemoteStep, body: bytes) -> None:
        if step is RemoteStep.KILL:
            self._kill(daemon)
        elif step is RemoteStep.CREDIT:
            of, count = unpack_taken_bytes(body)
            if of in daemon.credit:
                daemon.credit[of] += count
                self._look_at_outputs(daemon)
        elif step is RemoteStep.STDIN and daemon.input >= 0:
            daemon.to_write += body
            daemon.input_ends = daemon.input_ends or not body
            self._write_input(daemon)

    def _write_input(self, daemon: _Daemon) -> None:
        try:
            while daemon.to_write:
                count = os.write(daemon.input, daemon.to_write[:PIECE])
                del daemon.to_write[:count]
                daemon.taken += count
                # Not for each write: what a pipe has room for is little, and the other side would send as little.
                if daemon.taken >= PIECE or not daemon.to_write:
                    taken = pack_taken_bytes(RemoteStep.STDIN, daemon.taken)
                    daemon.taken = 0
                    self._send(pack_remote(RemoteStep.CREDIT, daemon.manager, daemon.key, daemon.stream, taken))
        except BlockingIOError:
            self._watch(daemon.input, select.EPOLLOUT, lambda _: self._write_input(daemon))
            return
        except OSError:  # it reads no more
            daemon.to_write.clear()
            daemon.input_ends = True
        self._unwatch(daemon.input)
        if daemon.input_ends:
            os.close(daemon.input)
            daemon.input = -1

    def _told(self, daemon: _Daemon) -> None:
        """Read what the guard says."""
        try:
            data = daemon.control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        daemon.told += data
        *lines, rest = bytes(daemon.told).split(b"\n")
        daemon.told[:] = rest
        for line in lines:
            said = json.loads(line)
            daemon.code = said.get("code", daemon.code)
            if not daemon.killed and "signal" in said:
                # At once: what else there is of it ends in a while, and the launcher may end before that.
                daemon.signal = said["signal"]
                self._exited(daemon)
        if not data:
            self._unwatch(daemon.control.fileno())
            daemon.control.close()
            daemon.controlled = False
            if daemon.code is None:  # somebody has killed the guard: what was below it is this process's now
                daemon.code, daemon.signal = _FAILED, 0 if daemon.killed else 9
                daemon.process.wait()  # descriptors of who dies close before others adopt its children
                _end_marked(daemon.mark)
            self._perhaps_over(daemon)

    def _perhaps_over(self, daemon: _Daemon) -> None:
        if daemon.outputs or daemon.controlled:
            return
        del self.daemons[daemon.key, daemon.manager, daemon.stream]
        daemon.process.wait()  # its control has ended, and so has it
        if daemon.input >= 0:
            self._unwatch(daemon.input)
            os.close(daemon.input)
        self._exited(daemon)
        if not any(other.key == daemon.key for other in self.daemons.values()):
            rank_files.remove(daemon.mark)

    def _exited(self, daemon: _Daemon, as_told: RemoteExit | None = None) -> None:
        """Tell the head how a daemon ended, once; nothing that it still writes goes there."""
        if daemon.exited:
            return
        daemon.exited = daemon.killed = True
        daemon.credit = dict.fromkeys(daemon.credit, 1 << 60)
        self._look_at_outputs(daemon)
        ended = as_told or RemoteExit(-daemon.signal if daemon.signal else daemon.code or 0)
        body = pack_exit_status(ended)
        self._send(pack_remote(RemoteStep.EXIT, daemon.manager, daemon.key, daemon.stream, body))

    def _kill(self, daemon: _Daemon) -> None:
        daemon.killed = True
        # Nobody reads what it still writes: it is taken, so that the end is seen.
        daemon.credit = dict.fromkeys(daemon.credit, 1 << 60)
        self._look_at_outputs(daemon)
        if daemon.controlled:
            try:
                daemon.control.send(b"k")
                daemon.control.shutdown(socket.SHUT_WR)
            except OSError:
                return


def _end_marked(mark: str) -> None:
    """End the processes of a task that this process, the subreaper of its node's, has adopted."""
    variable = (os.fsencode(f"{TASK}={mark}"),)
    tree = Tree(lambda processes: [], lambda one: carries(one.pid, variable), 0, (os.getpid(),))
    adopted = tree.look()
    end(tree.look, 0)
    for pid in adopted:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue  # a child of one of the others

"""Commands on another machine: with a deadline, and ended with all they started."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from secrets import token_hex
from shlex import quote
from threading import Thread
from typing import TYPE_CHECKING

from flow_providers.channels.ssh_errors import translated
from flow_providers.errors import ChannelError, ChannelExecFailed, ChannelTimeout, ChannelUnavailable
from flow_providers.interfaces.channel import CommandResult, RemoteProcess

if TYPE_CHECKING:
    from paramiko import Channel as Session, Transport

    from flow_providers.interfaces.channel import Channel

_OPEN_S = 20.0  # seconds for opening a session on a connection that stands; connect_timeout has the same default
_KILL_S = 10.0  # seconds for a kill after a deadline: the caller has waited long enough, and it may fail
_ASK_S = 30.0  # seconds for a question about a process, which is one short command; only the magnitude matters
_TURN_S = 0.05  # seconds for one stream before the other has its turn
_CHUNK = 65536  # bytes of one read; only the magnitude matters
_LONGEST = 64 << 20  # bytes of one stream: the answers of schedulers with 100,000 jobs have a third of it


def run(
    transport: Transport, cmd: str, timeout_s: float, environment: Mapping[str, str], hostname: str
) -> CommandResult:
    """Run a shell command and wait for it; see ``Channel.execute_wait``."""
    deadline = time.monotonic() + timeout_s
    # Random, since a login shell may print anything before it, and the command anything after it.
    mark = f"flow-{token_hex(8)}"
    # sshd makes each command the leader of a process group: its pid is told first, for the kill after the deadline
    script = f"printf '%s %s\\n' {mark} $$; {_exports(environment)}sh -c {quote(cmd)}; exit $?"
    with translated(hostname):
        session = transport.open_session(timeout=min(_OPEN_S, timeout_s))
        session.settimeout(max(0.1, deadline - time.monotonic()))
        session.exec_command(f"exec sh -c {quote(script)}")
        # End of input: a command that reads would otherwise wait for ever.
        session.shutdown_write()
    output = _Output(session, deadline)
    ended = output.read()
    pid, out = _split(output.out, mark)
    if output.too_long:
        session.close()
        _kill(transport, pid)
        raise ChannelExecFailed(
            f"the command printed more than {_LONGEST:,} bytes on {hostname} and was killed: {_short(cmd)}; send what "
            "it prints to a file there"
        )
    if ended and session.exit_status >= 0:
        session.close()
        return CommandResult(session.exit_status, out, output.err.decode("utf-8", "replace"))
    session.close()
    # A session that ended without an exit status means that the connection broke: nothing is known of the command.
    if not transport.is_active() or ended:
        raise ChannelUnavailable(f"the connection to {hostname} broke while a command ran there: {_short(cmd)}")
    _kill(transport, pid)
    raise ChannelTimeout(
        f"the command did not end within {timeout_s:g} s on {hostname} and was killed: {_short(cmd)}; give it more "
        "time (cmd_timeout of a provider) or see why it hangs",
        out,
        output.err.decode("utf-8", "replace"),
    )


def start(channel: Channel, cmd: str, timeout_s: float, environment: Mapping[str, str]) -> SSHProcess:
    """Start a shell command whose output is thrown away; see ``Channel.execute_no_wait``."""
    # The exit code goes to a file, since nobody there waits for the process once this command has returned.
    lead = f'{_exports(environment)}sh -c {quote(cmd)}; echo $? >"$1/code"'
    script = (
        "d=$(mktemp -d) || exit 1; s=; command -v setsid >/dev/null && s=setsid; "
        f'$s sh -c {quote(lead)} sh "$d" </dev/null >/dev/null 2>&1 & p=$!; i=0; '
        # until it leads its group: asked for before that, the group would count as ended
        'until kill -s 0 -- -$p 2>/dev/null || [ -s "$d/code" ] || [ $i -ge 500 ]; do sleep 0.01; i=$((i+1)); done; '
        'echo "$p $d"'
    )
    result = channel.execute_wait(script, walltime=timeout_s)
    pid, _, folder = result.stdout.strip().rpartition("\n")[2].partition(" ")
    if result.exit_code != 0 or not pid.isdecimal():
        raise ChannelExecFailed(f"cannot start {_short(cmd)}: {result.stderr.strip()}")
    return SSHProcess(channel, int(pid), folder)


class SSHProcess(RemoteProcess):
    """A started command on another machine."""

    def __init__(self, channel: Channel, pid: int, folder: str) -> None:
        self._channel = channel
        self._pid = pid
        self._folder = folder
        self._code: int | None = None

    @property
    def pid(self) -> int:
        """Process id on the other machine, also the id of the command's process group."""
        return self._pid

    def poll(self) -> int | None:
        """Return the exit code, 137 where the group is gone without having left one, or None while it runs.

        Blocks up to 30 s. ChannelUnavailable, ChannelTimeout: not known now.
        """
        if self._code is None:
            folder = quote(self._folder)
            read = f"cat {folder}/code 2>/dev/null"
            # kill -s 0 || Read twice: the command may write its code and end between the first reading and the look at
            # its group.
            ask = f"{read} || kill -s 0 -- -{self._pid} 2>/dev/null || {read} || echo 137"
            text = self._channel.execute_wait(ask, walltime=_ASK_S).stdout.strip()
            if text.isdecimal():
                self._code = int(text)
                self._channel.execute_wait(f"rm -rf {folder}", walltime=_ASK_S)
        return self._code

    def wait(self, timeout_s: float) -> int:
        """Wait for the end, at most ``timeout_s`` seconds, and return the exit code.

        Raises:
            ChannelTimeout: it still runs; it is left running.
            ChannelUnavailable: the machine cannot be reached.
        """
        deadline = time.monotonic() + timeout_s
        pause = 0.05
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise ChannelTimeout(f"process {self._pid} still runs after {timeout_s:g} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)
        return code

    def terminate(self, grace_s: float = 5.0) -> None:
        """End the process group there: TERM, then KILL after ``grace_s`` seconds. Idempotent; waits for it.

        Raises:
            ChannelTimeout, ChannelUnavailable: it is not known whether the group was ended.
        """
        if self.poll() is not None:
            return
        # The grace is waited for over there, in one command: a round trip for every look could take longer than the
        # grace.
        turns = max(1, round(grace_s / 0.1))
        group = f"-- -{self._pid}"
        self._channel.execute_wait(
            f"kill -s TERM {group} 2>/dev/null; i=0; "
            f"while kill -s 0 {group} 2>/dev/null && [ $i -lt {turns} ]; do sleep 0.1; i=$((i+1)); done; "
            f"kill -s KILL {group} 2>/dev/null; true",
            walltime=grace_s + _ASK_S,
        )
        if self.poll() is None:
            self._code = 137


class _Output:
    """The output of a session, read by two threads since ssh stops when one of the two streams is not read."""

    def __init__(self, session: Session, deadline: float) -> None:
        self._session = session
        self._deadline = deadline
        self.out = bytearray()
        self.err = bytearray()
        self.too_long = False

    def read(self) -> bool:
        """Return whether the command ended before the deadline."""
        errors = Thread(target=self._read_errors, name="flow-ssh-stderr", daemon=True)
        try:
            errors.start()
        except RuntimeError:  # the interpreter ends, which starts no thread since Python 3.12
            self._read_in_turn()
            return bool(self._session.status_event.wait(max(0.05, self._deadline - time.monotonic())))
        # A timeout is no error here: the return value says whether the command ended, and what it printed so far is
        # kept.
        with suppress(TimeoutError):
            while chunk := self._session.recv(_CHUNK):
                if not self._add(self.out, chunk):
                    return False
                self._session.settimeout(max(0.05, self._deadline - time.monotonic()))
        errors.join(max(0.05, self._deadline - time.monotonic()))
        return bool(self._session.status_event.wait(max(0.05, self._deadline - time.monotonic())))

    def _read_in_turn(self) -> None:
        """Read both streams on this thread, until both have ended or the time is up."""
        session = self._session
        session.settimeout(_TURN_S)
        ended = {session.recv: False, session.recv_stderr: False}
        while not all(ended.values()) and not self.too_long and time.monotonic() < self._deadline:
            for take, over in ended.items():
                if over:
                    continue
                with suppress(TimeoutError):
                    chunk = take(_CHUNK)
                    ended[take] = not chunk
                    self._add(self.out if take == session.recv else self.err, chunk)

    def _read_errors(self) -> None:
        with suppress(TimeoutError):
            while chunk := self._session.recv_stderr(_CHUNK):
                if not self._add(self.err, chunk):
                    self._session.close()  # the other thread waits for what will not come
                    return

    def _add(self, stream: bytearray, chunk: bytes) -> bool:
        """Keep what came; False if there is so much of it that no more is to be read."""
        stream += chunk
        self.too_long = self.too_long or len(stream) > _LONGEST
        return not self.too_long


def _exports(environment: Mapping[str, str]) -> str:
    return "".join(f"export {name}={quote(value)}; " for name, value in environment.items())


def _split(output: bytearray, mark: str) -> tuple[int | None, str]:
    """Return the pid and the output of the command; text of a login shell before the mark is left out."""
    text = output.decode("utf-8", "replace")
    _, found, rest = text.partition(f"{mark} ")
    pid, _, out = rest.partition("\n")
    return (int(pid) if pid.isdecimal() else None, out) if found else (None, "")


def _kill(transport: Transport, pid: int | None) -> None:
    if pid is None:
        return
    with suppress(ChannelError), translated("the host"):
        session = transport.open_session(timeout=_KILL_S)
        session.settimeout(_KILL_S)
        session.exec_command(f"kill -s KILL -- -{pid}")
        session.status_event.wait(_KILL_S)
        session.close()


def _short(text: str, limit: int = 200) -> str:
    text = text.strip()
    return text if len(text) <= limit else text[:limit] + "..."

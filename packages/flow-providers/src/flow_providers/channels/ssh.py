"""The channel to another machine by ssh."""

from __future__ import annotations

import os
import posixpath
import stat
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from shlex import quote
from threading import RLock
from typing import TYPE_CHECKING, TypeVar, cast

from flow_providers.channels.ssh_errors import translated
from flow_providers.channels.ssh_forward import Connection, Forwards
from flow_providers.channels.ssh_login import Login, connect
from flow_providers.channels.ssh_run import SSHProcess, run, start
from flow_providers.errors import (
    BadPermsScriptPath,
    BadScriptPath,
    ChannelError,
    ChannelTimeout,
    ChannelUnavailable,
    FileCopyException,
    FileExists,
)
from flow_providers.folders import make_directory
from flow_providers.interfaces.channel import DEFAULT_WALLTIME_S, START_WALLTIME_S, Channel, CommandResult
from flow_providers.options import checked, repr_of

if TYPE_CHECKING:
    from paramiko import SFTPClient, Transport

# Seconds without an answer about a file; scripts and keys are small, so only a dead link takes that long.
_FILE_S = 120.0
_OF_THIS_PROCESS = frozenset({"_lock", "_transport", "_pid", "_home", "_forwards", "_resting"})
T = TypeVar("T")
_rested: weakref.WeakSet[SFTPClient] = weakref.WeakSet()
"""Sessions that have rested: a forked child must not end them when it lets go of them, since they are its parent's."""


class SSHChannel(Channel):
    """Runs commands on another machine by ssh, over one connection that is made on first use and again after a drop.

    Login by key (an agent's, one of ``~/.ssh``, or ``key_filename``), then by password. The host's key must be known.

    Args:
        hostname: The machine.
        username: User there; None: as here.
        password: Password, or passphrase of the key; shown nowhere, written nowhere.
        script_dir: Directory there for submit scripts; None: ``flow_scripts`` in the home directory.
        envs: Variables for every command.
        gssapi_auth: Log in by GSS-API (Kerberos).
        skip_auth: The server asks for no login.
        port: Port of the ssh server.
        key_filename: Private key to log in with, and nothing else.
        known_hosts: File of known host keys; None: those of the user and the system.
        accept_new_host: Take and remember, for this process, the key of a host that is not known. A changed key is
            always refused.
        connect_timeout: Seconds a connection may take.
    """

    @checked
    def __init__(
        self,
        hostname: str,
        username: str | None = None,
        password: str | None = None,
        script_dir: str | None = None,
        envs: Mapping[str, str] | None = None,
        gssapi_auth: bool = False,
        skip_auth: bool = False,
        port: int = 22,
        key_filename: str | None = None,
        known_hosts: str | None = None,
        accept_new_host: bool = False,
        connect_timeout: float = 20,
    ) -> None:
        self.hostname = hostname
        self.username = username
        self.password = password
        self.script_dir = script_dir
        self.envs = dict(envs or {})
        self.gssapi_auth = gssapi_auth
        self.skip_auth = skip_auth
        self.port = port
        self.key_filename = key_filename
        self.known_hosts = known_hosts
        self.accept_new_host = accept_new_host
        self.connect_timeout = connect_timeout
        self._begin()

    def _begin(self) -> None:
        self._lock = RLock()
        self._transport: Transport | None = None
        self._pid = 0
        self._home: str | None = None
        self._forwards: Forwards | None = None
        self._resting: tuple[Transport, SFTPClient] | None = None

    def __repr__(self) -> str:
        return repr_of(self)

    def __getstate__(self) -> dict[str, object]:
        # A connection belongs to the process that made it, and a lock cannot be pickled.
        return {k: v for k, v in self.__dict__.items() if k not in _OF_THIS_PROCESS}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def script_dir(self) -> str | None:
        """Directory on the other machine for submit scripts; None: the default, ``flow_scripts`` in the home there."""
        return self._script_dir

    @script_dir.setter
    def script_dir(self, value: str | None) -> None:
        """Choose the directory there for submit scripts; None: ``flow_scripts`` in the home directory."""
        self._script_dir = value

    def offer_script_dir(self, path: str) -> None:
        """Ignore the offer: a directory of this machine means nothing on the other one."""
        return None  # a directory of this machine means nothing there

    # -- commands

    def execute_wait(
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> CommandResult:
        """Run a shell command there and wait for it, at most ``walltime`` seconds (None: 600).

        Raises:
            ChannelTimeout: it was killed, with its process group, after ``walltime``.
            ChannelUnavailable: the connection could not be made or broke; the command may have run. The next use
                connects again.
        """
        limit = DEFAULT_WALLTIME_S if walltime is None else walltime
        try:
            return run(self._connected(), cmd, limit, {**self.envs, **(envs or {})}, self.hostname)
        # The connection looks alive to paramiko until its keep-alive fails: drop it, so that the next call makes a new
        # one.
        except ChannelUnavailable:
            self._drop()
            raise

    def execute_no_wait(
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> SSHProcess:
        """Start a shell command there in a session of its own; the start may take ``walltime`` seconds (None: 60).

        Raises:
            ChannelUnavailable: the machine cannot be reached.
            ChannelExecFailed: it could not be started.
        """
        return start(self, cmd, START_WALLTIME_S if walltime is None else walltime, {**self.envs, **(envs or {})})

    # -- files

    def push_file(self, source: str, dest_dir: str, *, mode: int = 0o600) -> str:
        """Copy a local file into ``dest_dir`` there and return its path; see ``push_bytes`` for the errors."""
        try:
            content = Path(source).read_bytes()
        except OSError as error:
            raise FileCopyException(f"cannot read {source}: {error}") from error
        return self.push_bytes(content, Path(source).name, dest_dir, mode=mode)

    def push_bytes(self, content: bytes, name: str, dest_dir: str, *, mode: int = 0o600) -> str:
        """Write a file ``name`` into ``dest_dir`` there (made if missing), whole or not at all, and return its path.

        Raises:
            BadScriptPath, BadPermsScriptPath: the directory cannot be used.
            FileCopyException: it cannot be written.
            ChannelTimeout, ChannelUnavailable: the machine did not answer.
        """
        folder = self.abspath(dest_dir)
        self.makedirs(folder, exist_ok=True)
        target = f"{folder}/{name}"
        temporary = f"{folder}/.flow-{token_hex(8)}.part"  # not longer than a name may be, however long that one is

        def push(sftp: SFTPClient) -> str:
            try:
                # Exclusive, and the mode is set before the content is written: a secret is never readable by others,
                # not even for a moment.
                with sftp.open(_sent(temporary), "wx") as file:
                    file.chmod(mode)
                    file.write(content)
                # Plain rename of SFTP refuses to replace a file that exists; the extension of OpenSSH replaces it
                # atomically.
                sftp.posix_rename(_sent(temporary), _sent(target))
            except OSError:
                with suppress(OSError):
                    sftp.remove(_sent(temporary))
                raise
            return target

        return self._files(push, f"cannot write {target}")

    def pull_file(self, remote_source: str, local_dir: str) -> str:
        """Copy a file from there into ``local_dir`` (made if missing), whole or not at all, and return its path here.

        Raises:
            FileExists: the local file exists; it is not overwritten.
            FileCopyException, BadPermsScriptPath: it cannot be read.
        """
        source = self.abspath(remote_source)
        target = Path(local_dir).absolute() / posixpath.basename(source)
        if os.path.lexists(target):
            raise FileExists(f"{target} exists and is not overwritten: remove it, or pull into another directory")
        # A copy that breaks off must not leave half a file under the final name.
        temporary = target.with_name(f".flow-{token_hex(8)}.part")
        make_directory(target.parent)
        try:
            self._files(lambda sftp: sftp.get(_sent(source), str(temporary)), f"cannot copy {source}")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return str(target)

    def makedirs(self, path: str, mode: int = 0o700, exist_ok: bool = False) -> None:
        """Make a directory there with its missing parents.

        Raises:
            FileExists: it exists and ``exist_ok`` is false.
            BadPermsScriptPath, BadScriptPath: it cannot be made.
        """
        full = self.abspath(path)

        def make(sftp: SFTPClient) -> None:
            if _is_directory(sftp, full):
                if not exist_ok:
                    raise FileExists(f"{full} exists on {self.hostname}")
                return
            missing = [full]
            # SFTP makes one directory at a time, so the missing parents are collected first; "/" is its own parent.
            while not _exists(sftp, parent := posixpath.dirname(missing[-1])) and parent != missing[-1]:
                missing.append(parent)
            for folder in reversed(missing):
                try:
                    sftp.mkdir(_sent(folder), mode)
                except PermissionError:
                    raise
                except OSError as error:
                    if not _is_directory(sftp, folder):  # else somebody else just made it
                        raise BadScriptPath(f"cannot make {folder} on {self.hostname}: {error}") from error

        try:
            self._files(make, f"cannot make {full}")
        except (BadScriptPath, BadPermsScriptPath, FileCopyException) as error:
            raise type(error)(
                f"cannot make the directory {full} on {self.hostname}: {self._why_not_made(full) or error}. Give its "
                "channel another one: script_dir="
            ) from error

    def _why_not_made(self, full: str) -> str:
        """Ask ``mkdir`` why a directory cannot be made: SFTP has one word for all reasons but two."""
        try:
            told = self.execute_wait(f"LC_ALL=C mkdir -p {quote(full)}", walltime=_FILE_S).stderr.strip()
        except ChannelError:
            return ""
        return told.rpartition(": ")[2]

    def isdir(self, path: str) -> bool:
        """Return whether a directory exists there. ChannelUnavailable: the machine cannot be reached."""
        full = self.abspath(path)
        return self._files(lambda sftp: _is_directory(sftp, full), f"cannot look at {full}")

    def abspath(self, path: str) -> str:
        """Return the absolute path there; relative ones start at the home directory, which is asked for once."""
        # Computed here where it can be: asking costs a round trip.
        if posixpath.isabs(path):
            return posixpath.normpath(path)
        with self._lock:
            if self._home is None:
                self._home = self._files(lambda sftp: sftp.normalize("."), "cannot find the home directory")
            return posixpath.normpath(posixpath.join(self._home, path.removeprefix("~/") if path != "~" else ""))

    # -- forwards

    def forward(self, target: tuple[str, int], *, beyond: bool = False) -> Sequence[str]:
        """Listen there, at a Unix socket or else at a port of its loopback interface, for connections to ``target``.

        With ``beyond`` a relay, run by the ``python3`` there, listens on the other interfaces too. A thread keeps the
        connection and makes it again. Nothing is returned where the server denies forwarding.

        Raises:
            ChannelUnavailable, ChannelTimeout: the machine cannot be reached.
        """
        with self._lock:
            if self._forwards is None or self._pid not in (0, os.getpid()):
                self._forwards = Forwards(
                    Connection(
                        hostname=self.hostname,
                        current=lambda: self._transport,
                        connected=self._connected,
                        drop=self._drop,
                        command=lambda cmd, limit_s: self.execute_wait(cmd, limit_s).stdout,
                        directory=self._folder_of_forwards,
                        alone=self._logs_in_alone,
                    )
                )
            forwards = self._forwards
        with translated(self.hostname):
            return forwards.addresses(target, beyond)

    def _folder_of_forwards(self) -> str:
        folder = self.abspath(self.script_dir or "flow_scripts")
        self.makedirs(folder, exist_ok=True)
        return folder

    def _logs_in_alone(self) -> bool:
        """Whether a connection can be made anew without asking the user."""
        return True

    def close(self) -> None:
        """Close the connection and its forwards. Idempotent; the next use connects again, started commands go on."""
        with self._lock:
            forwards, self._forwards = self._forwards, None
            mine = self._pid == os.getpid()
        if forwards is not None and mine:
            forwards.close()
        self._drop()

    def ineffective_options(self) -> list[str]:
        """Return a sentence for each option that was given and changes nothing beside the others."""
        given = {"password": self.password, "key_filename": self.key_filename, "gssapi_auth": self.gssapi_auth or None}
        return [
            f"{name} has no effect with skip_auth=True: nobody logs in"
            for name, value in given.items()
            if self.skip_auth and value is not None
        ]

    # -- internals

    def _login(self) -> Login:
        return Login(
            hostname=self.hostname,
            port=self.port,
            username=self.username,
            password=self.password,
            key_filename=self.key_filename,
            known_hosts=self.known_hosts,
            accept_new_host=self.accept_new_host,
            gssapi=self.gssapi_auth,
            no_authentication=self.skip_auth,
            timeout_s=self.connect_timeout,
        )

    def _open(self) -> Transport:
        return connect(self._login())

    def _connected(self) -> Transport:
        with self._lock:
            # After a fork the connection belongs to the parent: two processes that write to it would garble its
            # packets.
            if self._transport is None or not self._transport.is_active() or self._pid != os.getpid():
                self._transport = self._open()
                self._pid = os.getpid()
            return self._transport

    def _drop(self) -> None:
        with self._lock:
            transport, self._transport, self._resting = self._transport, None, None
        # Closed in a forked child, it would end the parent's connection at the server.
        if transport is not None and self._pid == os.getpid():
            transport.close()

    def _files(self, work: Callable[[SFTPClient], T], what: str) -> T:
        """Do something with files there, over a session that nobody else uses meanwhile."""
        try:
            with translated(self.hostname):
                transport, sftp = self._session()
                try:
                    done = _named(lambda: work(sftp), f"{what} on {self.hostname}")
                except BaseException:
                    sftp.close()
                    raise
                self._rest(transport, sftp)
                return done
        except (ChannelUnavailable, ChannelTimeout):
            self._drop()
            raise

    def _session(self) -> tuple[Transport, SFTPClient]:
        """Return a session for files: the one that rests, or a new one, which takes three round trips."""
        with self._lock:
            transport = self._connected()
            resting, self._resting = self._resting, None
        if resting is not None and resting[0] is transport and not resting[1].get_channel().closed:
            return resting
        channel = transport.open_session(timeout=self.connect_timeout)
        channel.settimeout(_FILE_S)
        channel.invoke_subsystem("sftp")
        from paramiko import SFTPClient

        return transport, SFTPClient(channel)

    def _rest(self, transport: Transport, sftp: SFTPClient) -> None:
        """Keep one session for the next use: servers allow few at once."""
        with self._lock:
            if self._resting is None and self._transport is transport:
                self._resting = (transport, sftp)
                _rested.add(sftp)
                return
        sftp.close()


def _belong_to_the_parent() -> None:
    for sftp in list(_rested):
        sftp.get_channel().closed = True  # paramiko's own close then says nothing to the server


os.register_at_fork(after_in_child=_belong_to_the_parent)


def _sent(path: str) -> str:
    """Return a path as paramiko is to send it: as bytes, since names need not be text."""
    return cast("str", os.fsencode(path))  # it takes both, and its types say only text


def _named(work: Callable[[], T], what: str) -> T:
    try:
        return work()
    # Before OSError, whose subclass it is: a timeout means that the host is away, not that the file cannot be used.
    except TimeoutError:
        raise
    except PermissionError as error:
        raise BadPermsScriptPath(f"{what}: no permission: {error}") from error
    except OSError as error:
        raise FileCopyException(f"{what}: {error}") from error


def _exists(sftp: SFTPClient, path: str) -> bool:
    try:
        sftp.stat(_sent(path))
    except FileNotFoundError:
        return False
    except OSError:
        return False
    return True


def _is_directory(sftp: SFTPClient, path: str) -> bool:
    try:
        mode = sftp.stat(_sent(path)).st_mode
    except OSError:
        return False
    return mode is not None and stat.S_ISDIR(mode)

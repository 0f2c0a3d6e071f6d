"""The channel to another machine by ssh."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from threading import RLock
from typing import TYPE_CHECKING, TypeVar

from flow_providers.channels.ssh_errors import translated
from flow_providers.channels.ssh_login import Login, connect
from flow_providers.channels.ssh_run import SSHProcess, run, start
from flow_providers.errors import (
    BadPermsScriptPath,
    BadScriptPath,
    ChannelTimeout,
    ChannelUnavailable,
    FileCopyException,
    FileExists,
)
from flow_providers.interfaces.channel import Channel, CommandResult
from flow_providers.options import checked, repr_of

if TYPE_CHECKING:
    from paramiko import SFTPClient, Transport

DEFAULT_WALLTIME_S = 600.0
_START_S = 60.0
_FILE_S = 120.0
T = TypeVar("T")


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

    def __repr__(self) -> str:
        return repr_of(self)

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k not in {"_lock", "_transport", "_pid", "_home"}}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def script_dir(self) -> str | None:  # noqa: D102
        return self._script_dir

    @script_dir.setter
    def script_dir(self, value: str | None) -> None:
        self._script_dir = value

    def offer_script_dir(self, path: str) -> None:  # noqa: D102
        return None  # a directory of this machine means nothing there

    # -- commands

    def execute_wait(  # noqa: D102
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> CommandResult:
        limit = DEFAULT_WALLTIME_S if walltime is None else walltime
        try:
            return run(self._connected(), cmd, limit, {**self.envs, **(envs or {})}, self.hostname)
        except ChannelUnavailable:
            self._drop()
            raise

    def execute_no_wait(  # noqa: D102
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> SSHProcess:
        return start(self, cmd, _START_S if walltime is None else walltime, {**self.envs, **(envs or {})})

    # -- files

    def push_file(self, source: str, dest_dir: str, *, mode: int = 0o600) -> str:  # noqa: D102
        try:
            content = Path(source).read_bytes()
        except OSError as error:
            raise FileCopyException(f"cannot read {source}: {error}") from error
        return self.push_bytes(content, Path(source).name, dest_dir, mode=mode)

    def push_bytes(self, content: bytes, name: str, dest_dir: str, *, mode: int = 0o600) -> str:  # noqa: D102
        folder = self.abspath(dest_dir)
        self.makedirs(folder, exist_ok=True)
        target = f"{folder}/{name}"
        temporary = f"{folder}/.{name}.{token_hex(4)}"

        def push(sftp: SFTPClient) -> str:
            try:
                with sftp.open(temporary, "wx") as file:
                    file.chmod(mode)
                    file.write(content)
                sftp.posix_rename(temporary, target)
            except OSError:
                with suppress(OSError):
                    sftp.remove(temporary)
                raise
            return target

        return self._files(push, f"cannot write {target}")

    def pull_file(self, remote_source: str, local_dir: str) -> str:  # noqa: D102
        source = self.abspath(remote_source)
        target = Path(local_dir).absolute() / posixpath.basename(source)
        if target.exists():
            raise FileExists(f"{target} exists and is not overwritten: remove it, or pull into another directory")
        temporary = target.with_name(f".{target.name}.{token_hex(4)}")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._files(lambda sftp: sftp.get(source, str(temporary)), f"cannot copy {source}")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return str(target)

    def makedirs(self, path: str, mode: int = 0o700, exist_ok: bool = False) -> None:  # noqa: D102
        full = self.abspath(path)

        def make(sftp: SFTPClient) -> None:
            if _is_directory(sftp, full):
                if not exist_ok:
                    raise FileExists(f"{full} exists on {self.hostname}")
                return
            missing = [full]
            while not _exists(sftp, parent := posixpath.dirname(missing[-1])) and parent != missing[-1]:
                missing.append(parent)
            for folder in reversed(missing):
                try:
                    sftp.mkdir(folder, mode)
                except PermissionError:
                    raise
                except OSError as error:
                    if not _is_directory(sftp, folder):  # else somebody else just made it
                        raise BadScriptPath(f"cannot make {folder} on {self.hostname}: {error}") from error

        self._files(make, f"cannot make {full}")

    def isdir(self, path: str) -> bool:  # noqa: D102
        full = self.abspath(path)
        return self._files(lambda sftp: _is_directory(sftp, full), f"cannot look at {full}")

    def abspath(self, path: str) -> str:  # noqa: D102
        if posixpath.isabs(path):
            return posixpath.normpath(path)
        with self._lock:
            if self._home is None:
                self._home = self._files(lambda sftp: sftp.normalize("."), "cannot find the home directory")
            return posixpath.normpath(posixpath.join(self._home, path.removeprefix("~/") if path != "~" else ""))

    def close(self) -> None:  # noqa: D102
        self._drop()

    # -- how

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
            if self._transport is None or not self._transport.is_active() or self._pid != os.getpid():
                self._transport = self._open()
                self._pid = os.getpid()
            return self._transport

    def _drop(self) -> None:
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None and self._pid == os.getpid():
            transport.close()

    def _files(self, work: Callable[[SFTPClient], T], what: str) -> T:
        """Do something with files there, over a session of its own."""
        try:
            with translated(self.hostname):
                channel = self._connected().open_session(timeout=self.connect_timeout)
                channel.settimeout(_FILE_S)
                channel.invoke_subsystem("sftp")
                from paramiko import SFTPClient

                with SFTPClient(channel) as sftp:
                    return _named(lambda: work(sftp), f"{what} on {self.hostname}")
        except (ChannelUnavailable, ChannelTimeout):
            self._drop()
            raise


def _named(work: Callable[[], T], what: str) -> T:
    try:
        return work()
    except TimeoutError:
        raise
    except PermissionError as error:
        raise BadPermsScriptPath(f"{what}: no permission: {error}") from error
    except OSError as error:
        raise FileCopyException(f"{what}: {error}") from error


def _exists(sftp: SFTPClient, path: str) -> bool:
    try:
        sftp.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return False
    return True


def _is_directory(sftp: SFTPClient, path: str) -> bool:
    try:
        mode = sftp.stat(path).st_mode
    except OSError:
        return False
    return mode is not None and stat.S_ISDIR(mode)

"""The connection to an ssh server: check of its host key, then login by key, password, GSS-API or questions."""

from __future__ import annotations

import getpass
import os
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from flow_providers.channels.ssh_errors import translated
from flow_providers.channels.ssh_forward import transport_class
from flow_providers.errors import AuthException, BadHostKeyException, OptionalModuleMissing

if TYPE_CHECKING:
    from paramiko import HostKeys, PKey, SSHClient, Transport

# Seconds between two packets on an idle connection: firewalls forget one after minutes. Only the magnitude matters.
_KEEPALIVE_S = 15
_SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"

_taken: dict[str, PKey] = {}
"""Keys of unknown hosts that were taken in this process (``accept_new_host``), by their names as in known_hosts.

Without them each connection would take what comes: who cuts one could stand in between for all later ones.
"""

Answer = Callable[[str, str, Sequence[tuple[str, bool]]], Sequence[str]]
"""Answers a server's questions: (title, instructions, [(question, whether the answer may be shown)]) -> answers."""


@dataclass(frozen=True, slots=True)
class Login:
    """Where to connect to, and as whom."""

    hostname: str
    port: int = 22
    username: str | None = None
    password: str | None = None
    key_filename: str | None = None
    known_hosts: str | None = None
    accept_new_host: bool = False
    gssapi: bool = False
    no_authentication: bool = False
    timeout_s: float = 20.0

    @property
    def user(self) -> str:
        """The user name on the server; by default that of this process."""
        return self.username or getpass.getuser()

    @property
    def command(self) -> str:
        """The command by which the user may try the same login."""
        key = f"-i {quote(self.key_filename)} " if self.key_filename else ""
        port = f"-p {self.port} " if self.port != 22 else ""
        return f"ssh {key}{port}{quote(f'{self.user}@{self.hostname}')}"

    @property
    def tried(self) -> str:
        """As whom, and with what, the login is tried."""
        if self.gssapi:
            means = "GSS-API"
        else:
            keys = f"the key {self.key_filename}" if self.key_filename else "the keys of the agent and of ~/.ssh"
            means = f"{keys} and the password" if self.password else keys
        return f"of user {self.user} with {means}"


def connect(login: Login) -> Transport:
    """Connect and log in by key, password or GSS-API. Raises the errors of channels."""
    _need_key(login)
    with translated(login.hostname, command=login.command, tried=login.tried):
        if login.no_authentication:
            transport = _verified(login)
            transport.auth_none(login.user)
            return _kept(transport)
        return _kept(_by_client(login))


def connect_interactively(login: Login, answer: Answer) -> Transport:
    """Connect and log in by answering the server's questions. Raises the errors of channels."""
    with translated(login.hostname, command=login.command, tried=f"of user {login.user}"):
        transport = _verified(login)
        try:
            transport.auth_interactive(login.user, lambda title, text, asked: list(answer(title, text, asked)))
        except BaseException:
            transport.close()
            raise
        return _kept(transport)


def _need_key(login: Login) -> None:
    """Raise AuthException if the named key cannot be read: paramiko's error would pass for the network's."""
    if login.key_filename is None:
        return
    try:
        with open(login.key_filename, "rb"):
            return
    except FileNotFoundError as error:
        home = "; write the home directory out in place of ~" if login.key_filename.startswith("~") else ""
        raise AuthException(
            f"key_filename {login.key_filename!r} of the channel to {login.hostname} does not exist: name a private "
            f"key of this machine{home}"
        ) from error
    except OSError as error:
        raise AuthException(
            f"key_filename {login.key_filename!r} of the channel to {login.hostname} cannot be read: {error.strerror}"
        ) from error


def _kept(transport: Transport) -> Transport:
    transport.set_keepalive(_KEEPALIVE_S)
    return transport


def _by_client(login: Login) -> Transport:
    import paramiko

    client = paramiko.SSHClient()
    _load_known_hosts(client, login)
    _add_taken(client.get_host_keys(), _name_of(login))  # the files of known keys go before these
    client.set_missing_host_key_policy(_Taking() if login.accept_new_host else paramiko.RejectPolicy())
    only_key = login.key_filename is not None
    try:
        client.connect(
            login.hostname,
            login.port,
            login.user,
            password=login.password,
            key_filename=login.key_filename,
            # Servers cut off a login after a few keys (MaxAuthTries): the agent's keys must not be tried before the
            # one that was named.
            allow_agent=not only_key,
            look_for_keys=not only_key,
            timeout=login.timeout_s,
            banner_timeout=login.timeout_s,
            auth_timeout=login.timeout_s,
            transport_factory=transport_class(),
            **({"gss_auth": True} if login.gssapi else {}),
        )
    except (ImportError, TypeError) as error:
        client.close()
        if login.gssapi:  # paramiko 5 has no GSS-API any more
            raise OptionalModuleMissing(["paramiko<5", "gssapi"], "logging in by GSS-API") from error
        raise
    except BaseException:
        client.close()
        raise
    transport = client.get_transport()
    assert transport is not None
    transport._flow_client = client  # the client closes the transport when collected
    return transport


def _load_known_hosts(client: SSHClient, login: Login) -> None:
    for path in _known_hosts(login):
        # A file that was named must be there.
        with suppress(*(() if login.known_hosts else (OSError,))):
            client.load_system_host_keys(path)  # read only: nothing is ever written into it


def _known_hosts(login: Login) -> list[str]:
    """Return the files of known keys. Raises BadHostKeyException: somebody else could have put keys into one.

    Who writes into it decides which server is taken for which. Whose a file is that the user has named is the user's
    matter, but not that all may write to it.
    """
    own = str(Path("~/.ssh/known_hosts").expanduser())
    paths = [login.known_hosts] if login.known_hosts is not None else [own, _SYSTEM_KNOWN_HOSTS]
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            continue
        if found.st_mode & stat.S_IWOTH:
            raise BadHostKeyException(
                f"all users may write to {path}, so it proves no server: look at what is in it, then chmod o-w {path}"
            )
        if path != login.known_hosts and found.st_uid not in (0, os.geteuid()):
            raise BadHostKeyException(
                f"{path} belongs to user {found.st_uid}, who could name any server in it: make one of your own, or say "
                f"known_hosts={path!r} if you trust that user"
            )
    return paths


def _verified(login: Login) -> Transport:
    """Return a connection whose server has shown the key that is known, not logged in yet."""
    import paramiko

    keys = paramiko.HostKeys()
    for path in _known_hosts(login):
        with suppress(OSError):
            keys.load(path)
    name = _name_of(login)
    if keys.lookup(name) is None:
        _add_taken(keys, name)
    transport = transport_class()(socket.create_connection((login.hostname, login.port), timeout=login.timeout_s))
    transport.banner_timeout = login.timeout_s
    transport.auth_timeout = login.timeout_s
    try:
        # A server has keys of several kinds, and shows one: it must be of the kind that is known, or it would pass for
        # an unknown host.
        _prefer_known(transport, keys, name)
        transport.start_client(timeout=login.timeout_s)
        _check(transport.get_remote_server_key(), keys, name, login)
    except BaseException:
        transport.close()
        raise
    return transport


def _name_of(login: Login) -> str:
    """Return the name of a server in known_hosts."""
    return login.hostname if login.port == 22 else f"[{login.hostname}]:{login.port}"


def _add_taken(keys: HostKeys, name: str) -> None:
    taken = _taken.get(name)
    if taken is not None:
        keys.add(name, taken.get_name(), taken)


class _Taking:
    """A policy of paramiko's that takes the key of an unknown host, and none but that from then on."""

    def missing_host_key(self, _client: SSHClient, name: str, key: PKey) -> None:
        """Take a key. Raises BadHostKeyException of paramiko's: another connection has taken another one just now."""
        import paramiko

        taken = _taken.setdefault(name, key)
        if taken != key:
            raise paramiko.BadHostKeyException(name, key, taken)


def _prefer_known(transport: Transport, keys: HostKeys, name: str) -> None:
    known = list(keys.lookup(name) or {})
    options = transport.get_security_options()
    offered = list(options.key_types)
    options.key_types = [*(kind for kind in known if kind in offered), *(kind for kind in offered if kind not in known)]


def _check(key: PKey, keys: HostKeys, name: str, login: Login) -> None:
    import paramiko

    known = keys.lookup(name)
    if known is None:
        if not login.accept_new_host:
            raise paramiko.SSHException(f"Server {name!r} not found in known_hosts")
        known = {key.get_name(): _taken.setdefault(name, key)}
    # accept_new_host is for unknown hosts only; a changed key is refused whatever the options are.
    if known.get(key.get_name()) != key:
        expected = known.get(key.get_name()) or next(iter(known.values()))
        raise paramiko.BadHostKeyException(name, key, expected)

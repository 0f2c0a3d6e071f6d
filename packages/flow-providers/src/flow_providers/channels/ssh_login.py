"""Connecting to an ssh server: its key checked, then a login by one of several ways."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flow_providers.channels.ssh_errors import translated
from flow_providers.errors import OptionalModuleMissing

if TYPE_CHECKING:
    from paramiko import HostKeys, PKey, SSHClient, Transport

_KEEPALIVE_S = 15
_SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"

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
        """The user name there."""
        return self.username or getpass.getuser()


def connect(login: Login) -> Transport:
    """Connect and log in by key, password or GSS-API. Raises the errors of channels."""
    with translated(login.hostname):
        if login.no_authentication:
            transport = _verified(login)
            transport.auth_none(login.user)
            return _kept(transport)
        return _kept(_by_client(login))


def connect_interactively(login: Login, answer: Answer) -> Transport:
    """Connect and log in by answering the server's questions. Raises the errors of channels."""
    with translated(login.hostname):
        transport = _verified(login)
        try:
            transport.auth_interactive(login.user, lambda title, text, asked: list(answer(title, text, asked)))
        except BaseException:
            transport.close()
            raise
        return _kept(transport)


def _kept(transport: Transport) -> Transport:
    transport.set_keepalive(_KEEPALIVE_S)
    return transport


def _by_client(login: Login) -> Transport:
    import paramiko

    client = paramiko.SSHClient()
    _load_known_hosts(client, login)
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy() if login.accept_new_host else paramiko.RejectPolicy())
    only_key = login.key_filename is not None
    try:
        client.connect(
            login.hostname,
            login.port,
            login.user,
            password=login.password,
            key_filename=login.key_filename,
            allow_agent=not only_key,
            look_for_keys=not only_key,
            timeout=login.timeout_s,
            banner_timeout=login.timeout_s,
            auth_timeout=login.timeout_s,
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
    if login.known_hosts is not None:
        client.load_system_host_keys(login.known_hosts)  # read only: nothing is ever written into it
        return
    for path in (str(Path("~/.ssh/known_hosts").expanduser()), _SYSTEM_KNOWN_HOSTS):
        with suppress(OSError):
            client.load_system_host_keys(path)


def _verified(login: Login) -> Transport:
    """Return a connection whose server has shown the key that is known, not logged in yet."""
    import paramiko

    keys = paramiko.HostKeys()
    paths = [login.known_hosts] if login.known_hosts else [str(Path("~/.ssh/known_hosts").expanduser())]
    for path in [*paths, *([] if login.known_hosts else [_SYSTEM_KNOWN_HOSTS])]:
        with suppress(OSError):
            keys.load(path)
    name = login.hostname if login.port == 22 else f"[{login.hostname}]:{login.port}"
    transport = paramiko.Transport(socket.create_connection((login.hostname, login.port), timeout=login.timeout_s))
    transport.banner_timeout = login.timeout_s
    transport.auth_timeout = login.timeout_s
    try:
        _prefer_known(transport, keys, name)
        transport.start_client(timeout=login.timeout_s)
        _check(transport.get_remote_server_key(), keys, name, login)
    except BaseException:
        transport.close()
        raise
    return transport


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
    elif known.get(key.get_name()) != key:
        expected = known.get(key.get_name()) or next(iter(known.values()))
        raise paramiko.BadHostKeyException(name, key, expected)

"""The ssh channel for servers that take an OAuth token."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from flow_providers.channels.interactive import SSHInteractiveLoginChannel
from flow_providers.errors import AuthException
from flow_providers.options import checked


class OAuthSSHChannel(SSHInteractiveLoginChannel):
    """An ssh channel that logs in by an OAuth access token, the answer to the server's one question.

    Args:
        hostname: The machine.
        username: User there; None: as here.
        script_dir: Directory there for submit scripts; None: ``flow_scripts`` in the home directory.
        envs: Variables for every command.
        port: Port of the ssh server.
        token: The token, or a function that gets a fresh one; None: the variable FLOW_OAUTH_TOKEN.
        known_hosts: File of known host keys; None: those of the user and the system.
        accept_new_host: Take the key of a host that is not known.
        connect_timeout: Seconds a connection may take.
    """

    @checked
    def __init__(
        self,
        hostname: str,
        username: str | None = None,
        script_dir: str | None = None,
        envs: Mapping[str, str] | None = None,
        port: int = 22,
        token: str | Callable[[], str] | None = None,
        known_hosts: str | None = None,
        accept_new_host: bool = False,
        connect_timeout: float = 30,
    ) -> None:
        super().__init__(
            hostname,
            username,
            None,
            script_dir,
            envs,
            port,
            known_hosts=known_hosts,
            accept_new_host=accept_new_host,
            connect_timeout=connect_timeout,
        )
        self.token = token

    def _logs_in_alone(self) -> bool:
        return True

    def _answer(self, question: str, shown: bool) -> str:
        # Asked for at each login: tokens are valid for a short time, and the channel connects again after a drop.
        token = self.token() if callable(self.token) else self.token or os.environ.get("FLOW_OAUTH_TOKEN")
        if not token:
            raise AuthException(f"{self.hostname} wants a token: give token=, or set FLOW_OAUTH_TOKEN")
        return token

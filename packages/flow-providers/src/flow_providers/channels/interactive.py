"""The ssh channel for sites that ask questions: a password and a second factor."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from flow_providers.channels.ssh import SSHChannel
from flow_providers.channels.ssh_login import connect_interactively
from flow_providers.errors import AuthException
from flow_providers.options import checked

if TYPE_CHECKING:
    from paramiko import Transport


class SSHInteractiveLoginChannel(SSHChannel):
    """An ssh channel whose login answers the server's questions (keyboard-interactive), such as for a one-time code.

    Args:
        hostname: The machine.
        username: User there; None: as here.
        password: Answer to a question for the password; None: it is asked for.
        script_dir: Directory there for submit scripts; None: ``flow_scripts`` in the home directory.
        envs: Variables for every command.
        port: Port of the ssh server.
        answer: Called with a question, returns the answer; None: a question for the password is answered by
            ``password``, others are put to the user at the terminal.
        known_hosts: File of known host keys; None: those of the user and the system.
        accept_new_host: Take the key of a host that is not known.
        connect_timeout: Seconds a connection may take; the user's own time for answers included.
    """

    @checked
    def __init__(
        self,
        hostname: str,
        username: str | None = None,
        password: str | None = None,
        script_dir: str | None = None,
        envs: Mapping[str, str] | None = None,
        port: int = 22,
        answer: Callable[[str], str] | None = None,
        known_hosts: str | None = None,
        accept_new_host: bool = False,
        connect_timeout: float = 120,
    ) -> None:
        super().__init__(
            hostname,
            username,
            password,
            script_dir,
            envs,
            port=port,
            known_hosts=known_hosts,
            accept_new_host=accept_new_host,
            connect_timeout=connect_timeout,
        )
        self.answer = answer

    def _open(self) -> Transport:
        return connect_interactively(self._login(), self._answers)

    def _logs_in_alone(self) -> bool:
        return self.answer is not None

    def _answers(self, title: str, instructions: str, questions: Sequence[tuple[str, bool]]) -> list[str]:
        return [self._answer(question, shown) for question, shown in questions]

    def _answer(self, question: str, shown: bool) -> str:
        if self.answer is not None:
            return self.answer(question)
        # Servers ask for the password and for a "one-time password" in one dialogue: the second is not the one we
        # have.
        if self.password is not None and "password" in question.lower() and "one-time" not in question.lower():
            return self.password
        # In a batch job nobody could answer, and the login would hang until its deadline.
        if not sys.stdin.isatty():
            raise AuthException(
                f"{self.hostname} asks {question.strip()!r} and there is no terminal: give answer=, a function"
            )
        return input(question) if shown else getpass.getpass(question)

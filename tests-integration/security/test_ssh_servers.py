"""An ssh server that is the known one, and asks its client for what no command needs: agent, display, ways back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from flow_providers.channels.ssh import SSHChannel

paramiko = pytest.importorskip("paramiko")
pytestmark = pytest.mark.timeout(60)

ASKED = {
    "auth-agent@openssh.com": (None, None),
    "x11": (None, ("127.0.0.1", 1)),
    "forwarded-tcpip": (("127.0.0.1", 22), ("127.0.0.1", 1)),
    "direct-tcpip": (("127.0.0.1", 22), ("127.0.0.1", 1)),
    "session": (None, None),
}
"""Kinds of channels that a server may ask a client for, with what is said of their ends."""


class Curious(paramiko.ServerInterface):  # type: ignore[misc, name-defined]  # paramiko has no types
    """Takes every login, and answers a command by asking for channels itself."""

    def __init__(self) -> None:
        self.came_of: dict[str, str] = {}
        self.agent_offered = False

    def check_auth_publickey(self, _user: str, _key: object) -> int:
        return int(paramiko.AUTH_SUCCESSFUL)

    def get_allowed_auths(self, _user: str) -> str:
        return "publickey"

    def check_channel_request(self, _kind: str, _number: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_forward_agent_request(self, _channel: object) -> bool:
        self.agent_offered = True
        return True

    def check_channel_exec_request(self, channel: paramiko.Channel, _command: bytes) -> bool:
        threading.Thread(target=self._ask, args=[channel], daemon=True).start()
        return True

    def _ask(self, channel: paramiko.Channel) -> None:
        for kind, (there, here) in ASKED.items():
            try:
                channel.transport.open_channel(kind, there, here, timeout=5)
                self.came_of[kind] = "opened"
            except paramiko.ChannelException as error:
                self.came_of[kind] = error.text
        channel.send_exit_status(0)
        channel.close()


@pytest.fixture
def curious(tmp_path: Path) -> Iterator[tuple[Curious, SSHChannel]]:
    host_key, key, server = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate(), Curious()
    key.write_private_key_file(str(tmp_path / "key"))
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        known = f"[127.0.0.1]:{port} {host_key.get_name()} {host_key.get_base64()}\n"
        (tmp_path / "known").write_text(known)

        def serve() -> None:
            with suppress(OSError):
                transport = paramiko.Transport(door.accept()[0])
                transport.add_server_key(host_key)
                with suppress(paramiko.SSHException, EOFError):
                    transport.start_server(server=server)

        threading.Thread(target=serve, daemon=True).start()
        channel = SSHChannel(
            "127.0.0.1",
            port=port,
            username="somebody",
            key_filename=str(tmp_path / "key"),
            known_hosts=str(tmp_path / "known"),
        )
        yield server, channel
        channel.close()


def test_a_server_gets_no_channel_to_its_client_nor_the_agent(curious: tuple[Curious, SSHChannel]) -> None:
    server, channel = curious
    assert channel.execute_wait("true", 30).exit_code == 0
    assert server.came_of == dict.fromkeys(ASKED, "Administratively prohibited")
    assert not server.agent_offered

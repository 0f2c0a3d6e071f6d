"""Texts of logins that fail: as whom and by what it was tried, and the command by which the user may try it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow_providers.channels.ssh import SSHChannel
from flow_providers.channels.ssh_errors import translated
from flow_providers.channels.ssh_login import Login
from flow_providers.errors import AuthException, BadHostKeyException, ChannelUnavailable

paramiko = pytest.importorskip("paramiko")


def test_a_refused_login_names_user_and_key_and_the_command_to_try() -> None:
    login = Login("node1", 2222, username="bob", key_filename="/keys/my key")
    with (
        pytest.raises(AuthException) as told,
        translated("node1", command=login.command, tried=login.tried),
    ):
        raise paramiko.AuthenticationException("Authentication failed.")
    assert str(told.value) == (
        "node1 refused the login of user bob with the key /keys/my key: Authentication failed; "
        "does `ssh -i '/keys/my key' -p 2222 bob@node1` work?"
    )


def test_the_password_is_mentioned_and_not_told() -> None:
    tried = Login("node1", username="bob", password="secret").tried
    assert tried == "of user bob with the keys of the agent and of ~/.ssh and the password"


def test_an_unknown_host_key_names_the_command_to_try() -> None:
    login = Login("node1", username="bob")
    with (
        pytest.raises(BadHostKeyException, match="log in once by `ssh bob@node1`"),
        translated("node1", command=login.command),
    ):
        raise paramiko.SSHException("Server 'node1' not found in known_hosts")


@pytest.mark.parametrize(
    ("name", "text"), [("none", "does not exist"), ("~/none", "in place of ~"), (".", "cannot be read")]
)
def test_a_key_that_cannot_be_read_is_named_and_nothing_is_connected_to(name: str, text: str, tmp_path: Path) -> None:
    key = name if name.startswith("~") else str(tmp_path / name)
    channel = SSHChannel("no-such-host.invalid", key_filename=key)
    with pytest.raises(AuthException, match="key_filename") as told:
        channel.execute_wait("true")
    assert text in str(told.value)


@pytest.mark.parametrize(
    ("error", "text"),
    [(ConnectionRefusedError(111, "Connection refused"), "Connection refused"), (OSError(113, ""), "No route to host")],
)
def test_why_no_connection_could_be_made_is_told(error: OSError, text: str) -> None:
    with pytest.raises(ChannelUnavailable) as told, translated("node1"):
        raise paramiko.ssh_exception.NoValidConnectionsError({("10.0.0.1", 22): error})
    assert str(told.value) == f"node1 cannot be reached: 10.0.0.1 port 22: {text}"

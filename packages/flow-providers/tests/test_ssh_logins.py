"""How an ssh channel logs in, by its options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flow_providers import without_effect
from flow_providers.channels import SSHChannel
from flow_providers.channels.ssh_login import connect
from flow_providers.errors import OptionalModuleMissing

paramiko = pytest.importorskip("paramiko")


class Transport:
    """A connection that keeps what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def auth_none(self, user: str) -> None:
        self.asked.append(("none", user))

    def set_keepalive(self, seconds: int) -> None:
        self.asked.append(("keepalive", seconds))


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(without_effect, "_said", set())
    return


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a login asks of paramiko's client."""
    kept: dict[str, Any] = {}

    class Client(paramiko.SSHClient):  # type: ignore[misc]  # paramiko has no types
        def connect(self, *args: object, **options: object) -> None:
            kept.update(options, place=args)

        def get_transport(self) -> Transport:
            return Transport()

    monkeypatch.setattr(paramiko, "SSHClient", Client)
    return kept


def test_a_login_by_kerberos_is_asked_for(asked: dict[str, Any]) -> None:
    connect(SSHChannel("host", username="me", gssapi_auth=True)._login())
    assert asked["gss_auth"] is True
    asked.clear()
    connect(SSHChannel("host", username="me", password="secret")._login())
    assert "gss_auth" not in asked
    assert (asked["place"], asked["password"]) == (("host", 22, "me"), "secret")


def test_kerberos_without_what_it_needs_is_an_error_that_names_it(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def connected(*_args: object, **options: object) -> None:
        raise TypeError("connect() got an unexpected keyword argument 'gss_auth'")

    monkeypatch.setattr(paramiko.SSHClient, "connect", connected)
    with pytest.raises(OptionalModuleMissing, match="GSS-API"):
        connect(SSHChannel("host", gssapi_auth=True)._login())


def test_a_server_that_asks_for_no_login_is_given_a_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Transport()
    monkeypatch.setattr("flow_providers.channels.ssh_login._verified", lambda _login: transport)
    connect(SSHChannel("host", username="me", skip_auth=True)._login())
    assert transport.asked[0] == ("none", "me")


@pytest.mark.parametrize("option", ["password", "key_filename", "gssapi_auth"])
def test_what_is_to_log_in_by_is_said_to_change_nothing_where_nobody_logs_in(
    option: str, caplog: pytest.LogCaptureFixture
) -> None:
    given: dict[str, Any] = {option: True if option == "gssapi_auth" else "secret"}
    SSHChannel("host", **given)
    assert not caplog.records
    SSHChannel("host", skip_auth=True, **given)
    assert caplog.messages == [f"SSHChannel: {option} has no effect with skip_auth=True: nobody logs in"]

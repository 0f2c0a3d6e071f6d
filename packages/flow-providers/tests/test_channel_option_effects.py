"""Every option of every channel changes how it logs in, what it runs, or where scripts lie."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flow_providers.channels import (
    LocalChannel,
    OAuthSSHChannel,
    SSHChannel,
    SSHInteractiveLoginChannel,
    ssh,
    ssh_login,
)
from flow_providers.interfaces.channel import CommandResult

KINDS: list[Callable[..., Any]] = [SSHChannel, SSHInteractiveLoginChannel, OAuthSSHChannel]

OTHER: dict[str, object] = {
    "accept_new_host": True,
    "answer": lambda question: f"answer to {question}",
    "connect_timeout": 7.0,
    "envs": {"NAME": "value"},
    "gssapi_auth": True,
    "hostname": "elsewhere",
    "key_filename": "/key",
    "known_hosts": "/known",
    "password": "secret",
    "port": 2222,
    "script_dir": "/scripts",
    "skip_auth": True,
    "token": "a token",
    "username": "alice",
}
"""Another value of each option than its default."""


class Transport:
    """A connection over which nothing goes."""

    def is_active(self) -> bool:
        return True


def observed(kind: Callable[..., Any], options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return by what a channel of these options logs in, what it answers, runs, and where its scripts lie."""
    seen: list[object] = []

    def connected(login: ssh_login.Login, *_answer: object) -> Transport:
        seen.append(login)
        return Transport()

    def ran(_transport: object, command: str, limit_s: float, envs: dict[str, str], *_host: object) -> CommandResult:
        seen.append((command, limit_s, sorted(envs.items())))
        return CommandResult(0, "", "")

    monkeypatch.setattr(ssh, "connect", connected)
    monkeypatch.setattr(f"{SSHInteractiveLoginChannel.__module__}.connect_interactively", connected)
    monkeypatch.setattr(ssh, "run", ran)
    monkeypatch.setenv("FLOW_OAUTH_TOKEN", "from the environment")
    monkeypatch.setattr("getpass.getpass", lambda question: f"typed for {question}")
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": staticmethod(lambda: True)}))
    channel = kind(**{"hostname": "host", **options})
    channel.execute_wait("true")
    if isinstance(channel, SSHInteractiveLoginChannel):
        seen.append(channel._answers("", "", [("Password: ", False)]))
    seen.append(channel.script_dir)
    # As it is used, and not as it is shown: a password is not in the repr.
    fields = [getattr(one, "__slots__", ()) for one in seen]
    return [
        str({name: getattr(one, name) for name in names} if names else one)
        for one, names in zip(seen, fields, strict=True)
    ]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, id=f"{kind.__name__} {name}")
        for kind in KINDS
        for name in inspect.signature(kind).parameters
    ],
)
def test_an_option_of_a_channel_by_ssh_changes_something(
    kind: Callable[..., Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name in OTHER, f"{kind.__name__} has a new option {name}: give another value of it in OTHER"
    usual = observed(kind, {}, monkeypatch)
    assert usual == observed(kind, {}, monkeypatch)
    assert usual != observed(kind, {name: OTHER[name]}, monkeypatch)


def test_no_value_is_given_of_options_that_are_gone() -> None:
    assert {name for kind in KINDS for name in inspect.signature(kind).parameters} == OTHER.keys()


@pytest.mark.parametrize("name", inspect.signature(LocalChannel).parameters)
def test_an_option_of_the_channel_of_this_machine_changes_something(name: str, tmp_path: Path) -> None:
    other: dict[str, Any] = {
        "userhome": str(tmp_path),
        "envs": {"NAME": "value"},
        "script_dir": str(tmp_path / "scripts"),
    }
    found = []
    for options in ({}, {}, {name: other[name]}):
        channel = LocalChannel(**options)
        found.append((channel.execute_wait('pwd; echo "$NAME"').stdout, channel.script_dir))
    assert found[0] == found[1]
    assert found[0] != found[2]

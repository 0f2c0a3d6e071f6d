"""Who may look at what a server shows."""

from __future__ import annotations

import pytest

from flow_monitor.access import choose_token, is_loopback, knows, named_locally
from flow_monitor.errors import MonitorError


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.8.8.8", True), ("0.0.0.0", False), ("host", False)],
)
def test_loopback_is_told_from_the_rest(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8080", "[::1]:50000", "[::1]", "127.0.0.1:1"])
def test_local_names_are_answered(host: str) -> None:
    assert named_locally(host)


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:127.0.0.1",
        "127.0.0.1:80:80", "127.0.0.1:", "127.0.0.1 ", "localhost,evil.example", "[::1].evil.example", "::1:80",
        "a@127.0.0.1", "127.0.0.1:99999999", "localhost\n",
    ],
)  # fmt: skip
def test_names_that_only_look_local_are_not(host: str) -> None:
    assert not named_locally(host)


def test_a_token_is_known_by_its_header_or_another_value() -> None:
    assert knows("secret-token", "Bearer secret-token")
    assert knows("secret-token", "", ("", "secret-token"))
    for given in ("", "Bearer", "Bearer secret", "Basic secret-token", "secret-token", "Bearer \udce9"):
        assert not knows("secret-token", given, ("", "other", "\u00e9"))


def test_a_token_is_of_the_environment_or_new_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOW_VIZ_TOKEN", raising=False)
    first = choose_token("127.0.0.1", without=False)
    assert first is not None
    assert len(first) >= 24
    assert choose_token("127.0.0.1", without=False) != first
    monkeypatch.setenv("FLOW_VIZ_TOKEN", " a-good-token ")
    assert choose_token("0.0.0.0", without=False) == "a-good-token"
    assert choose_token("localhost", without=True) is None


@pytest.mark.parametrize("given", ["short", "with space inside", 'quote"inside', "a&b=cdefgh"])
def test_a_token_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("FLOW_VIZ_TOKEN", given)
    with pytest.raises(MonitorError, match="FLOW_VIZ_TOKEN"):
        choose_token("127.0.0.1", without=False)


def test_without_a_token_only_this_machine_is_listened_to() -> None:
    with pytest.raises(MonitorError, match="--no-token"):
        choose_token("0.0.0.0", without=True)

"""Files of known host keys that somebody else could have written prove no server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flow_providers.channels.ssh_login import Login, connect, connect_interactively
from flow_providers.errors import BadHostKeyException, ChannelUnavailable

pytest.importorskip("paramiko")

CONNECTS: list[Callable[[Login], object]] = [connect, lambda login: connect_interactively(login, lambda *_: [])]
NOBODY = 1
"""A port where nobody listens: who gets so far has taken the file."""


@pytest.mark.parametrize("to", CONNECTS)
def test_a_file_to_which_all_may_write_is_refused_even_if_it_is_named(
    tmp_path: Path, to: Callable[..., object]
) -> None:
    known = tmp_path / "known"
    known.write_text("")
    known.chmod(0o666)
    with pytest.raises(BadHostKeyException, match=f"chmod o-w {known}"):
        to(Login("127.0.0.1", NOBODY, known_hosts=str(known)))
    known.chmod(0o664)
    with pytest.raises(ChannelUnavailable):
        to(Login("127.0.0.1", NOBODY, known_hosts=str(known)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("to", CONNECTS)
def test_a_file_of_another_user_is_taken_only_if_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: Callable[..., object]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    known = tmp_path / ".ssh" / "known_hosts"
    known.parent.mkdir()
    known.write_text("")
    os.chown(known, 12345, 12345)
    with pytest.raises(BadHostKeyException, match="belongs to user 12345"):
        to(Login("127.0.0.1", NOBODY))
    with pytest.raises(ChannelUnavailable):
        to(Login("127.0.0.1", NOBODY, known_hosts=str(known)))

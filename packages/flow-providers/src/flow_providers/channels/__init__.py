"""Ways to reach the machine of a scheduler. Public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flow_providers.channels.interactive import SSHInteractiveLoginChannel as SSHInteractiveLoginChannel
    from flow_providers.channels.local import LocalChannel as LocalChannel
    from flow_providers.channels.oauth import OAuthSSHChannel as OAuthSSHChannel
    from flow_providers.channels.ssh import SSHChannel as SSHChannel
    from flow_providers.interfaces.channel import Channel as Channel

_HOMES = {
    "Channel": "flow_providers.interfaces.channel",
    "LocalChannel": "flow_providers.channels.local",
    "SSHChannel": "flow_providers.channels.ssh",
    "SSHInteractiveLoginChannel": "flow_providers.channels.interactive",
    "OAuthSSHChannel": "flow_providers.channels.oauth",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""Channels to the machine of a scheduler. Public names are loaded on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_providers.lazy import loading

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
__getattr__, __dir__ = loading(__name__, _HOMES)

"""The channels, under the path that scripts use; each is loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flow_providers.channels as _home

if TYPE_CHECKING:
    from flow_providers.channels import (
        Channel as Channel,
        LocalChannel as LocalChannel,
        OAuthSSHChannel as OAuthSSHChannel,
        SSHChannel as SSHChannel,
        SSHInteractiveLoginChannel as SSHInteractiveLoginChannel,
    )

__all__ = list(_home.__all__)


def __getattr__(name: str) -> object:
    return getattr(_home, name)

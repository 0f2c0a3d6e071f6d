"""The launchers, under the path that scripts use; each is loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flow_providers.launchers as _home

if TYPE_CHECKING:
    from flow_providers.launchers import (
        AprunLauncher as AprunLauncher,
        GnuParallelLauncher as GnuParallelLauncher,
        JsrunLauncher as JsrunLauncher,
        Launcher as Launcher,
        MpiExecLauncher as MpiExecLauncher,
        MpiRunLauncher as MpiRunLauncher,
        SimpleLauncher as SimpleLauncher,
        SingleNodeLauncher as SingleNodeLauncher,
        SrunLauncher as SrunLauncher,
        SrunMPILauncher as SrunMPILauncher,
        WrappedLauncher as WrappedLauncher,
    )

__all__ = list(_home.__all__)


def __getattr__(name: str) -> object:
    return getattr(_home, name)

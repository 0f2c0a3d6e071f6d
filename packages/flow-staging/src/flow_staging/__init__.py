"""Data staging for Flow: files named by URL are where the app needs them. Public names load on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flow_staging.ftp import FTPInTaskStaging as FTPInTaskStaging, FTPSeparateTaskStaging as FTPSeparateTaskStaging
    from flow_staging.globus.transfer import GlobusStaging as GlobusStaging
    from flow_staging.http import (
        HTTPInTaskStaging as HTTPInTaskStaging,
        HTTPSeparateTaskStaging as HTTPSeparateTaskStaging,
    )
    from flow_staging.rsync import RSyncStaging as RSyncStaging
    from flow_staging.s3 import S3Staging as S3Staging
    from flow_staging.transfer.cache import CachePolicy as CachePolicy
    from flow_staging.transfer.retry import RetryPolicy as RetryPolicy
    from flow_staging.zip import ZipFileStaging as ZipFileStaging

__version__ = "0.1.0"

_HOMES = {
    "HTTPSeparateTaskStaging": "flow_staging.http",
    "HTTPInTaskStaging": "flow_staging.http",
    "FTPSeparateTaskStaging": "flow_staging.ftp",
    "FTPInTaskStaging": "flow_staging.ftp",
    "GlobusStaging": "flow_staging.globus.transfer",
    "RSyncStaging": "flow_staging.rsync",
    "S3Staging": "flow_staging.s3",
    "ZipFileStaging": "flow_staging.zip",
    "CachePolicy": "flow_staging.transfer.cache",
    "RetryPolicy": "flow_staging.transfer.retry",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

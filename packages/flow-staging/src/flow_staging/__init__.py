"""Data staging for Flow: files named by URL are where the app needs them. Public names load on first use (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow_core.lazy import loading

if TYPE_CHECKING:
    from flow_staging.fsspec_files import FsspecStaging as FsspecStaging
    from flow_staging.ftp import FTPInTaskStaging as FTPInTaskStaging, FTPSeparateTaskStaging as FTPSeparateTaskStaging
    from flow_staging.globus.transfer import GlobusStaging as GlobusStaging
    from flow_staging.http import (
        HTTPInTaskStaging as HTTPInTaskStaging,
        HTTPSeparateTaskStaging as HTTPSeparateTaskStaging,
    )
    from flow_staging.old_style import OldStyleStaging as OldStyleStaging
    from flow_staging.rsync import RSyncStaging as RSyncStaging
    from flow_staging.s3 import S3Staging as S3Staging
    from flow_staging.transfer.cache import CachePolicy as CachePolicy
    from flow_staging.transfer.limits import SizeLimits as SizeLimits
    from flow_staging.transfer.retry import RetryPolicy as RetryPolicy
    from flow_staging.zip import ZipFileStaging as ZipFileStaging

__version__ = "0.1.1"

_HOMES = {
    "HTTPSeparateTaskStaging": "flow_staging.http",
    "HTTPInTaskStaging": "flow_staging.http",
    "FTPSeparateTaskStaging": "flow_staging.ftp",
    "FTPInTaskStaging": "flow_staging.ftp",
    "FsspecStaging": "flow_staging.fsspec_files",
    "GlobusStaging": "flow_staging.globus.transfer",
    "OldStyleStaging": "flow_staging.old_style",
    "RSyncStaging": "flow_staging.rsync",
    "S3Staging": "flow_staging.s3",
    "ZipFileStaging": "flow_staging.zip",
    "CachePolicy": "flow_staging.transfer.cache",
    "SizeLimits": "flow_staging.transfer.limits",
    "RetryPolicy": "flow_staging.transfer.retry",
}

__all__ = [*_HOMES, "__version__"]
__getattr__, __dir__ = loading(__name__, _HOMES)

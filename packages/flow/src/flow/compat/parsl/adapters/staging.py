"""Staging methods with Parsl's options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import flow_staging
from flow.compat.parsl.adapters.translated import Translated, stated
from flow_core.errors import ConfigurationError
from flow_core.files import File
from flow_core.interfaces.staging import Staging as FlowStaging


class Staging:
    """Base of staging methods in Parsl's style."""

    def can_stage_in(self, file: File) -> bool:
        """Tell whether this method can bring the file in."""
        return False

    def can_stage_out(self, file: File) -> bool:
        """Tell whether this method can bring the file out."""
        return False

    def stage_in(self, dm: Any, executor: str, file: File, parent_fut: Future[Any] | None) -> Future[Any] | None:
        """Bring a file in; return the future of that, or None where nothing is to be done before the task."""
        return None

    def stage_out(self, dm: Any, executor: str, file: File, app_fu: Future[Any]) -> Future[Any] | None:
        """Bring a file out after the task; return the future of that, or None where nothing is to be done."""
        return None

    def replace_task(self, dm: Any, executor: str, file: File, func: Callable[..., Any]) -> Callable[..., Any] | None:
        """Return the function to be run instead, which brings the file in where it runs, or None."""
        return None

    def replace_task_stage_out(
        self, dm: Any, executor: str, file: File, func: Callable[..., Any]
    ) -> Callable[..., Any] | None:
        """Return the function to be run instead, which brings the file out where it runs, or None."""
        return None


class DataManager:
    """The kernel as a staging method sees it."""

    def __init__(self, dfk: Any) -> None:
        self.dfk = dfk


class NoOpFileStaging:
    """Says that local files need no moving, which in Flow is so in any case."""

    def __repr__(self) -> str:
        return "NoOpFileStaging()"


class RSyncStaging(Translated, flow_staging.RSyncStaging):
    """Files of the script's machine, fetched and brought back by rsync; ``hostname`` is its ``user@host``."""

    parsl_order = ("hostname",)
    renamed = stated(prefix="hostname")


class GlobusStaging(Translated, flow_staging.GlobusStaging):
    """Files of Globus endpoints."""

    parsl_order = ("endpoint_uuid", "endpoint_path", "local_path")

    @classmethod
    def _adapt(cls, options: dict[str, Any]) -> None:
        for name in ("endpoint_path", "local_path"):
            if name in options and options[name] is None:
                del options[name]


def in_flow(methods: Sequence[object] | None) -> list[FlowStaging] | None:
    """Return staging methods for Flow; None stays what it is, the defaults.

    Raises:
        ConfigurationError: one cannot be used.
    """
    if methods is None:
        return None
    found: list[FlowStaging] = []
    for method in methods:
        if isinstance(method, NoOpFileStaging):
            continue
        if isinstance(method, FlowStaging):
            found.append(method)
        elif isinstance(method, Staging):
            found.append(flow_staging.OldStyleStaging(method, _LoadedManager(), _moves_in_task(method)))
        else:
            raise ConfigurationError(
                f"storage_access: {method!r} is no staging method: derive it from parsl.data_provider.staging.Staging"
            )
    return found


class _LoadedManager:
    """The data manager that a staging method gets: of the kernel that is loaded when it asks."""

    @property
    def dfk(self) -> Any:
        """The kernel. Raises NoDataFlowKernelError."""
        # Imported here: the kernel's own adapter reads configurations, which are above this.
        from flow.compat.parsl.adapters.kernel import DataFlowKernelLoader

        return DataFlowKernelLoader.dfk()


def _moves_in_task(method: Staging) -> bool:
    kind = type(method)
    replaces = (kind.replace_task, kind.replace_task_stage_out)
    return replaces != (Staging.replace_task, Staging.replace_task_stage_out)


default_staging = [
    NoOpFileStaging(),
    flow_staging.FTPSeparateTaskStaging(),
    flow_staging.HTTPSeparateTaskStaging(),
    flow_staging.ZipFileStaging(),
]


def zip_path_split(path: str) -> tuple[str, str]:
    """Return the path of an archive and that of a file in it. Raises ValueError."""
    archive, found, inside = path.partition(".zip/")
    if not found:
        raise ValueError(f"{path!r} names no file in an archive: /path/to/archive.zip/path/in/it")
    return f"{archive}.zip", inside

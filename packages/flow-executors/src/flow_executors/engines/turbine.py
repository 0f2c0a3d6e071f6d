"""TurbineExecutor: a name that says what to use instead, since neither Turbine nor Swift/T is packaged."""

from __future__ import annotations

from typing import NoReturn

from flow_core.errors import ConfigurationError


class TurbineExecutor:
    """Refuses to be made, by name."""

    def __new__(cls, *_args: object, **_options: object) -> NoReturn:
        """Raise ConfigurationError."""
        raise ConfigurationError(
            "TurbineExecutor is not offered: it hands tasks to Turbine, the runtime of Swift/T, which no distribution "
            "has any more. An ExtremeScaleExecutor runs tasks on the ranks of an MPI job, as Turbine did, with the options "
            "label, storage_access, working_dir and managed"
        )

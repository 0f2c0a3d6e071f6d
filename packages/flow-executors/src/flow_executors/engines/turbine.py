"""TurbineExecutor: a name that says what to use instead, since neither Turbine nor Swift/T is packaged."""

from __future__ import annotations

from typing import NoReturn

from flow_core.errors import ConfigurationError


class TurbineExecutor:
    """Refuses to be made, by name."""

    def __new__(cls, *_args: object, **_options: object) -> NoReturn:
        """Raise ConfigurationError."""
        raise ConfigurationError(
            "TurbineExecutor is not offered: no distribution has Turbine, the runtime of Swift/T, any more. An "
            "ExtremeScaleExecutor runs tasks on the ranks of an MPI job, as Turbine did, and has the options label, "
            "storage_access, working_dir and managed as well"
        )

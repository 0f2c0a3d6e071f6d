"""The staging methods used where an executor names none: local files, then what installed packages bring."""

from __future__ import annotations

from flow_core.errors import ConfigurationError
from flow_core.interfaces.staging import Staging
from flow_core.staging.noop import NoOpFileStaging

GROUP = "flow_core.staging"
"""Entry points of this group are callables without arguments that give a Staging, or a sequence of them."""

default_staging: list[Staging]
"""The methods as one list a process, made on first use, for ``default_staging + [GlobusStaging(...)]``."""


def load_default_staging() -> list[Staging]:
    """Make the default methods anew, by the order of the names of their entry points.

    Raises:
        ConfigurationError: an installed package's method cannot be loaded; the message names the package.
    """
    # Imported here: a run whose files are all local never looks for installed packages.
    from importlib.metadata import entry_points

    # Local files first: they need nothing of the other methods.
    methods: list[Staging] = [NoOpFileStaging()]
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            made = point.load()()
        except Exception as error:
            package = point.dist.name if point.dist is not None else point.value
            raise ConfigurationError(
                f"the staging method {point.name!r} of {package} cannot be loaded: {error}"
            ) from error
        methods.extend(made if isinstance(made, (list, tuple)) else [made])
    return methods


def __getattr__(name: str) -> object:
    if name != "default_staging":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    methods = load_default_staging()
    # From here on it is a plain name, and always the same list.
    globals()[name] = methods
    return methods

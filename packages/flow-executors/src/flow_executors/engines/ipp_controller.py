"""Controller: how the controller of an IPyParallelExecutor is started, or where one is that runs."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from flow_core.errors import ConfigurationError
from flow_core.option_records import about, documented
from flow_providers.option_checks import check_options

_MOST_PORT = 65535


def _wrong_range(value: object) -> str:
    if value is None:
        return ""
    low, _, high = str(value).partition(",")
    well = low.strip().isdigit() and high.strip().isdigit() and 0 < int(low) <= int(high) <= _MOST_PORT
    return (
        ""
        if well and int(high) - int(low) >= _PORTS
        else f"must be text such as '50000,55000', with {_PORTS} ports or more"
    )


_PORTS = 20  # those that a controller needs


def _wrong_mode(value: object) -> str:
    return (
        "" if value in ("auto", "manual") else "must be 'auto', which starts a controller, or 'manual', which finds one"
    )


@documented
@dataclass(repr=True)
class Controller:
    """The controller of an ``IPyParallelExecutor``.

    Raises:
        ConfigurationError: an option has an impossible value.
    """

    interfaces: str | None = field(
        default=None,
        metadata=about(
            "Address on which it listens, such as ``0.0.0.0``; None for this machine alone, or all, as blocks need."
        ),
    )
    ipython_dir: str | None = field(
        default=None,
        metadata=about("Directory of IPython's profiles, such as ``~/.ipython``. None: the run's own directory."),
    )
    log: bool = field(default=True, metadata=about("Whether it says in its log what it does, and not only what fails."))
    mode: str = field(
        default="auto",
        metadata=about("``auto`` starts a controller; ``manual`` finds one that runs, by its files.", _wrong_mode),
    )
    port: int | None = field(default=None, metadata=about("Port of registration; None for one that is free."))
    port_range: str | None = field(
        default=None, metadata=about("Ports of all connections, such as ``50000,55000``.", _wrong_range)
    )
    profile: str = field(default="default", metadata=about("IPython's profile."))
    public_ip: str | None = field(
        default=None, metadata=about("Address of this machine at which engines reach it; None for its host name.")
    )
    reuse: bool = field(
        default=False,
        metadata=about("Whether keys and ports of the controller before are kept, for engines that wait for it."),
    )

    def __post_init__(self) -> None:
        check_options(self, "Controller", ConfigurationError)
        if self.port is not None and not 0 < self.port <= _MOST_PORT:
            raise ConfigurationError(f"Controller: port={self.port} is no port")
        if not self.profile or "/" in self.profile:
            raise ConfigurationError(f"Controller: profile={self.profile!r} must be a name")
        if self.mode == "manual" and (
            given := [
                one for one in ("interfaces", "port", "port_range", "public_ip") if getattr(self, one) is not None
            ]
        ):
            raise ConfigurationError(
                f"Controller: {given[0]} is a matter of who starts it: leave it out with mode='manual'"
            )
        if self.reuse and self.ipython_dir is None:
            raise ConfigurationError("Controller: reuse=True needs an ipython_dir, which outlives the run")

    def home(self, run: Path) -> Path:
        """Return the directory of its profile, where a run has ``run`` for its own files."""
        base = run / "ipython" if self.ipython_dir is None else Path(self.ipython_dir).expanduser()
        return (base / f"profile_{self.profile}").absolute()

    def file(self, name: str) -> Path:
        """Return a file of a controller that runs."""
        return self.home(Path("~/.ipython").expanduser() if self.ipython_dir is None else Path()) / "security" / name

    def words(self, here: bool) -> list[str]:
        """Return its command's options; ``here``: all engines are on this machine."""
        listens = self.interfaces or ("127.0.0.1" if here and self.public_ip is None else "0.0.0.0")  # nosec B104  # engines are elsewhere, and need the key
        words = [
            f"--IPController.engine_ip={listens}",
            "--IPController.client_ip=127.0.0.1",
            "--IPController.enable_curve=True",
        ]
        words += [f"--location={self.public_ip or ('127.0.0.1' if here else socket.gethostname())}"]
        words += [f"--port={self.port}"] if self.port is not None else []
        if self.port_range is not None:
            low, _, high = self.port_range.partition(",")
            words += [f"--ports={int(low)}-{int(high)}"]
        words += ["--reuse"] if self.reuse else []
        words += [] if self.log else ["--log-level=ERROR"]
        return words

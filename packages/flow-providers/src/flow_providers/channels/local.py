"""The channel to this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from flow_providers.channels.process import LocalProcess, run, start
from flow_providers.errors import BadPermsScriptPath, BadScriptPath, FileCopyException, FileExists
from flow_providers.interfaces.channel import Channel, CommandResult
from flow_providers.options import checked, repr_of

DEFAULT_WALLTIME_S = 600.0


class LocalChannel(Channel):
    """Runs commands on this machine; for a laptop, a login node, or inside an allocation.

    Args:
        userhome: Directory in which commands run; ``.`` is the current one at the time of the call.
        envs: Variables for every command, on top of this process's.
        script_dir: Directory for submit scripts; None: in the run's directory, or ``flow_scripts`` under ``userhome``
            where there is no run.
    """

    is_local = True

    @checked
    def __init__(
        self, userhome: str = ".", envs: Mapping[str, str] | None = None, script_dir: str | None = None
    ) -> None:
        self.userhome = userhome
        self.envs = dict(envs or {})
        self._script_dir = script_dir
        self._offered: str | None = None

    def __repr__(self) -> str:
        return repr_of(self)

    @property
    def script_dir(self) -> str | None:  # noqa: D102
        chosen = self._script_dir or self._offered
        return None if chosen is None else self.abspath(chosen)

    @script_dir.setter
    def script_dir(self, value: str | None) -> None:
        self._script_dir = value

    def offer_script_dir(self, path: str) -> None:  # noqa: D102
        self._offered = path

    def execute_wait(  # noqa: D102
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> CommandResult:
        limit = DEFAULT_WALLTIME_S if walltime is None else walltime
        return run(cmd, limit, self._environment(envs), self.abspath(self.userhome))

    def execute_no_wait(  # noqa: D102
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> LocalProcess:
        return start(cmd, self._environment(envs), self.abspath(self.userhome))

    def push_file(self, source: str, dest_dir: str, *, mode: int = 0o600) -> str:  # noqa: D102
        target = Path(self.abspath(dest_dir)) / Path(source).name
        if target.exists() and target.samefile(source):
            target.chmod(mode)
            return str(target)
        try:
            content = Path(source).read_bytes()
        except OSError as error:
            raise FileCopyException(f"cannot read {source}: {error}") from error
        return self.push_bytes(content, target.name, dest_dir, mode=mode)

    def push_bytes(self, content: bytes, name: str, dest_dir: str, *, mode: int = 0o600) -> str:  # noqa: D102
        folder = self.abspath(dest_dir)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            return _write(content, folder, name, mode)
        except PermissionError as error:
            raise BadPermsScriptPath(f"no permission to write {name} into {folder}: {error}") from error
        except (FileExistsError, NotADirectoryError) as error:
            raise BadScriptPath(f"{folder} is not a directory: {error}") from error
        except OSError as error:
            raise FileCopyException(f"cannot write {name} into {folder}: {error}") from error

    def pull_file(self, remote_source: str, local_dir: str) -> str:  # noqa: D102
        source = Path(self.abspath(remote_source))
        target = Path(local_dir).absolute() / source.name
        if target.exists():
            if source.exists() and target.samefile(source):
                return str(target)
            raise FileExists(f"{target} exists and is not overwritten: remove it, or pull into another directory")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        except OSError as error:
            raise FileCopyException(f"cannot copy {source} to {target}: {error}") from error
        return str(target)

    def makedirs(self, path: str, mode: int = 0o700, exist_ok: bool = False) -> None:  # noqa: D102
        try:
            os.makedirs(self.abspath(path), mode=mode, exist_ok=exist_ok)
        except FileExistsError as error:
            raise FileExists(f"{self.abspath(path)} exists") from error
        except PermissionError as error:
            raise BadPermsScriptPath(f"no permission to make {self.abspath(path)}: {error}") from error
        except OSError as error:
            raise BadScriptPath(f"cannot make {self.abspath(path)}: {error}") from error

    def isdir(self, path: str) -> bool:  # noqa: D102
        return os.path.isdir(self.abspath(path))

    def abspath(self, path: str) -> str:  # noqa: D102
        return os.path.abspath(os.path.join(self.userhome, os.path.expanduser(path)))

    def close(self) -> None:  # noqa: D102
        return None

    def _environment(self, envs: Mapping[str, str] | None) -> dict[str, str]:
        return {**os.environ, **self.envs, **(envs or {})}


def _write(content: bytes, folder: str, name: str, mode: int) -> str:
    """Write a file so that it appears whole, and never with wider permissions than ``mode``."""
    handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(content)
        target = os.path.join(folder, name)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return target

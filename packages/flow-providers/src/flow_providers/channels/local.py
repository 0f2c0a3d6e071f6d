"""The local channel: commands and files on this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from flow_providers.channels.process import LocalProcess, run, start
from flow_providers.errors import BadPermsScriptPath, BadScriptPath, FileCopyException, FileExists
from flow_providers.folders import make_directory
from flow_providers.interfaces.channel import DEFAULT_WALLTIME_S, START_WALLTIME_S, Channel, CommandResult
from flow_providers.options import checked, repr_of


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
    def script_dir(self) -> str | None:
        """Absolute directory for submit scripts: the user's, else the one that was offered; None: neither."""
        chosen = self._script_dir or self._offered
        return None if chosen is None else self.abspath(chosen)

    @script_dir.setter
    def script_dir(self, value: str | None) -> None:
        """Choose the directory for submit scripts; None: the one that was offered, if any."""
        self._script_dir = value

    def offer_script_dir(self, path: str) -> None:
        """Use ``path`` for submit scripts unless the user chose a directory. May be repeated."""
        self._offered = path

    def execute_wait(
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> CommandResult:
        """Run a shell command in ``userhome`` and wait for it, at most ``walltime`` seconds (None: 600).

        Raises:
            ChannelTimeout: it was killed, with its process group, after ``walltime``.
            ChannelExecFailed: no process could be made.
        """
        limit = DEFAULT_WALLTIME_S if walltime is None else walltime
        return run(cmd, limit, self._environment(envs), self.abspath(self.userhome))

    def execute_no_wait(
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> LocalProcess:
        """Start a shell command in ``userhome``, in a process group of its own.

        Raises:
            ChannelExecFailed: no process could be made, or not within ``walltime`` seconds (None: 60).
        """
        limit = START_WALLTIME_S if walltime is None else walltime
        return start(cmd, self._environment(envs), self.abspath(self.userhome), limit)

    def push_file(self, source: str, dest_dir: str, *, mode: int = 0o600) -> str:
        """Copy a file into ``dest_dir`` and return its path there; a file that is there already gets only its mode.

        Raises:
            BadScriptPath, BadPermsScriptPath: the directory cannot be used.
            FileCopyException: the source cannot be read, or the copy cannot be written.
        """
        target = Path(self.abspath(dest_dir)) / Path(source).name
        # Source and destination may be one file, by a link too: writing it anew would be a waste, and copying onto
        # itself an error.
        if target.exists() and target.samefile(source):
            target.chmod(mode)
            return str(target)
        try:
            content = Path(source).read_bytes()
        except OSError as error:
            raise FileCopyException(f"cannot read {source}: {error}") from error
        return self.push_bytes(content, target.name, dest_dir, mode=mode)

    def push_bytes(self, content: bytes, name: str, dest_dir: str, *, mode: int = 0o600) -> str:
        """Write a file ``name`` into ``dest_dir``, whole or not at all, and return its path.

        Raises:
            BadScriptPath, BadPermsScriptPath: the directory cannot be used.
            FileCopyException: anything else, such as a full disk.
        """
        folder = self.abspath(dest_dir)
        try:
            # Closed to others, since scripts and secrets go there.
            make_directory(folder, 0o700)
            return _write(content, folder, name, mode)
        except PermissionError as error:
            raise BadPermsScriptPath(f"no permission to write {name} into {folder}: {error}") from error
        except (FileExistsError, NotADirectoryError) as error:
            raise BadScriptPath(f"{folder} is not a directory: {error}") from error
        except OSError as error:
            raise FileCopyException(f"cannot write {name} into {folder}: {error}") from error

    def pull_file(self, remote_source: str, local_dir: str) -> str:
        """Copy a file into ``local_dir`` and return its path; the file itself is returned where it is there already.

        Raises:
            FileExists: another file of that name exists; it is not overwritten.
            FileCopyException: it cannot be copied.
        """
        source = Path(self.abspath(remote_source))
        target = Path(local_dir).absolute() / source.name
        # lexists: a broken link is there too, and copying would write to the place it points to.
        if os.path.lexists(target):
            if source.exists() and target.exists() and target.samefile(source):
                return str(target)
            raise FileExists(f"{target} exists and is not overwritten: remove it, or pull into another directory")
        try:
            make_directory(target.parent)
            shutil.copyfile(source, target)
        except OSError as error:
            raise FileCopyException(f"cannot copy {source} to {target}: {error}") from error
        return str(target)

    def makedirs(self, path: str, mode: int = 0o700, exist_ok: bool = False) -> None:
        """Make a directory with its parents.

        Raises:
            FileExists: it exists and ``exist_ok`` is false.
            BadPermsScriptPath, BadScriptPath: it cannot be made.
        """
        try:
            if exist_ok or not os.path.lexists(self.abspath(path)):
                make_directory(self.abspath(path), mode)
            else:
                raise FileExistsError(self.abspath(path))
        except FileExistsError as error:
            raise FileExists(f"{self.abspath(path)} exists") from error
        except PermissionError as error:
            raise BadPermsScriptPath(f"no permission to make {self.abspath(path)}: {error}") from error
        except OSError as error:
            raise BadScriptPath(f"cannot make {self.abspath(path)}: {error}") from error

    def isdir(self, path: str) -> bool:
        """Return whether a directory exists on this machine."""
        return os.path.isdir(self.abspath(path))

    def abspath(self, path: str) -> str:
        """Return the absolute path: ``~`` is the user's home, and relative paths start at ``userhome``."""
        return os.path.abspath(os.path.join(self.userhome, os.path.expanduser(path)))

    def close(self) -> None:
        """Do nothing: there is no connection to close."""
        return None

    def _environment(self, envs: Mapping[str, str] | None) -> dict[str, str]:
        return {**os.environ, **self.envs, **(envs or {})}


def _write(content: bytes, folder: str, name: str, mode: int) -> str:
    """Write a file so that it appears whole, and never with wider permissions than ``mode``."""
    # In the same directory, since a rename is atomic on one file system only; mkstemp makes it with mode 0600, so that
    # nobody reads a secret before its mode is set.
    handle, temporary = tempfile.mkstemp(prefix=".flow-", suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(content)
        target = os.path.join(folder, name)
        os.replace(temporary, target)
    # KeyboardInterrupt included: no half of a secret stays under a name that nobody looks for.
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return target

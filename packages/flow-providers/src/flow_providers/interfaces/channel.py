"""The interface of channels: run commands and move files on the machine that has a scheduler's commands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

DEFAULT_WALLTIME_S = 600.0  # seconds for a command. Only the magnitude matters: it ends commands that hang
START_WALLTIME_S = 60.0  # seconds for starting one: who does not answer in that time is down


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended; unpacks, and is indexed, as ``exit_code, stdout, stderr``.

    Attributes:
        exit_code: Exit code; 128 + n, or -n, after signal n.
        stdout: Standard output, UTF-8 with bad bytes replaced.
        stderr: Standard error, likewise.
    """

    exit_code: int
    stdout: str
    stderr: str

    def __iter__(self) -> Iterator[int | str]:
        return iter((self.exit_code, self.stdout, self.stderr))

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int | str:
        return (self.exit_code, self.stdout, self.stderr)[index]


class RemoteProcess(ABC):
    """A command that was started and not waited for."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """Process id on the channel's side, also the id of its process group; None where it is not known."""

    @abstractmethod
    def poll(self) -> int | None:
        """Return the exit code, or None while it runs. Never blocks for long. ChannelUnavailable: not known now."""

    @abstractmethod
    def wait(self, timeout_s: float) -> int:
        """Wait for the end and return the exit code.

        Raises:
            ChannelTimeout: it still runs after ``timeout_s``; it is left running.
        """

    @abstractmethod
    def terminate(self, grace_s: float = 5.0) -> None:
        """End it and all it started: TERM to the process group, KILL after ``grace_s``. Idempotent; waits for it."""


class Channel(ABC):
    """Runs commands and moves files on one machine. All methods may block up to their deadline, from any thread."""

    is_local: bool = False
    """Whether paths and processes of the channel are those of this machine."""

    @property
    @abstractmethod
    def script_dir(self) -> str | None:
        """Directory on the channel's side for submit scripts and job logs; None until it is chosen or offered."""

    @script_dir.setter
    @abstractmethod
    def script_dir(self, value: str | None) -> None:
        """Choose the directory; None: the default again."""
        ...

    @abstractmethod
    def offer_script_dir(self, path: str) -> None:
        """Use ``path``, a directory of this machine, for submit scripts unless the user chose one. May be repeated.

        Channels to other machines keep their own directory there.
        """

    @abstractmethod
    def execute_wait(
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> CommandResult:
        """Run a shell command and wait for it.

        Args:
            cmd: For the shell.
            walltime: Seconds after which it is killed with all it started; None: 600.
            envs: Variables on top of those of the channel.

        Raises:
            ChannelTimeout: it took longer than ``walltime``; it may have done its work.
            ChannelUnavailable: the machine cannot be reached; the command may have run.
            ChannelExecFailed: it could not be started.
        """

    @abstractmethod
    def execute_no_wait(
        self, cmd: str, walltime: float | None = None, envs: Mapping[str, str] | None = None
    ) -> RemoteProcess:
        """Start a shell command in a process group of its own and return at once; its output is thrown away.

        Args:
            cmd: For the shell.
            walltime: Seconds the start may take; None: 60.
            envs: Variables on top of those of the channel.

        Raises:
            ChannelUnavailable: the machine cannot be reached.
            ChannelExecFailed: it could not be started.
        """

    @abstractmethod
    def push_file(self, source: str, dest_dir: str, *, mode: int = 0o600) -> str:
        """Copy a local file into a directory of the channel's side (made if missing), and return its path there.

        An existing file is replaced, atomically; the file never exists with wider permissions than ``mode``.

        Raises:
            BadScriptPath, BadPermsScriptPath: the directory cannot be used.
            FileCopyException: anything else.
        """

    @abstractmethod
    def push_bytes(self, content: bytes, name: str, dest_dir: str, *, mode: int = 0o600) -> str:
        """Write a file ``name`` like ``push_file`` does, from memory."""

    @abstractmethod
    def pull_file(self, remote_source: str, local_dir: str) -> str:
        """Copy a file of the channel's side into a local directory (made if missing), and return its path here.

        Raises:
            FileExists: the local file exists; it is not overwritten.
            FileCopyException: anything else.
        """

    @abstractmethod
    def makedirs(self, path: str, mode: int = 0o700, exist_ok: bool = False) -> None:
        """Make a directory with its parents. FileExists: it exists and ``exist_ok`` is false."""

    @abstractmethod
    def isdir(self, path: str) -> bool:
        """Return whether a directory exists on the channel's side."""

    @abstractmethod
    def abspath(self, path: str) -> str:
        """Return the absolute path, on the channel's side."""

    def forward(self, target: tuple[str, int], *, beyond: bool = False) -> Sequence[str]:
        """Let the channel's side connect to an address of this machine, and return where it does so.

        Lasts until ``close``, over connections that break and come back. May be repeated.

        Args:
            target: Host and port, as this process reaches them.
            beyond: Also for machines that reach the channel's one, such as the nodes behind a login node.

        Returns:
            ``unix:PATH`` or ``HOST:PORT``, likely ones first; none where the channel forwards nothing, as by default.

        Raises:
            ChannelUnavailable: the machine cannot be reached.
        """
        return ()

    @abstractmethod
    def close(self) -> None:
        """Close connections, and the logins with them. Idempotent; jobs go on, and the next use connects again."""

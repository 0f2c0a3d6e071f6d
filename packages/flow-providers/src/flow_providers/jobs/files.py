"""The files of one job on the channel's side: its script, its output, its secrets."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from shlex import quote

from flow_providers.errors import (
    ChannelError,
    ChannelTimeout,
    ChannelUnavailable,
    ScriptPathError,
    SubmitException,
)
from flow_providers.interfaces.channel import Channel
from flow_providers.interfaces.job_extras import JobExtras, secret_variable
from flow_providers.jobs.tag import check_tag, check_variable, new_tag, safe_name

Environment = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class JobFiles:
    """Where the files of a job are: in ``folder``, all with one stem that no other job has."""

    folder: str
    stem: str
    tag: str

    @classmethod
    def of(cls, folder: str, job_name: str, tag: str) -> JobFiles:
        """Return the files of a new job. SubmitException: the tag is no tag."""
        tag = check_tag(tag or new_tag())
        return cls(folder, f"{safe_name(job_name)}.{tag}.{secrets.token_hex(3)}", tag)

    @property
    def script(self) -> str:
        """The submit script."""
        return f"{self.folder}/{self.stem}.sh"

    @property
    def stdout(self) -> str:
        """Standard output."""
        return f"{self.folder}/{self.stem}.out"

    @property
    def stderr(self) -> str:
        """Standard error."""
        return f"{self.folder}/{self.stem}.err"

    @property
    def exit_code(self) -> str:
        """Where the script of a batch job leaves its exit code."""
        return f"{self.folder}/{self.stem}.exit"

    @property
    def secrets(self) -> str:
        """Directory of the secret files."""
        return f"{self.folder}/{self.stem}.secrets"


def write_job(channel: Channel, files: JobFiles, extras: JobExtras, script: Callable[[Environment], str]) -> None:
    """Write the secrets and the script of a job.

    Args:
        channel: Where to.
        files: The paths.
        extras: Environment and secrets of the job.
        script: Makes the script from its environment, which tells the paths of the secrets too.

    Raises:
        SubmitException: a variable has an impossible name, or the host cannot be reached.
        ScriptPathError: the directory cannot be used.
    """
    environment = [(check_variable(name), value) for name, value in extras.environment]
    try:
        for name, content in extras.secrets:
            path = channel.push_bytes(content, safe_name(name), files.secrets)
            environment.append((secret_variable(name), path))
        channel.push_bytes(_as_bytes(script(environment)), f"{files.stem}.sh", files.folder, mode=0o700)
    except (ChannelTimeout, ChannelUnavailable) as error:
        raise SubmitException(f"job {files.stem} was not submitted: {error}") from error
    except ChannelError as error:
        raise ScriptPathError(f"job {files.stem} was not submitted: {error}", files.folder) from error


def _as_bytes(script: str) -> bytes:
    """Return a script as it is written: what stands for a byte of a file's name that is no UTF-8 becomes that byte."""
    try:
        return script.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        line = script[: error.start].count("\n") + 1
        raise SubmitException(
            f"the script cannot be written: {script[error.start : error.end]!r} in its line {line} is no character "
            "that a file can hold; look at worker_init and at the command"
        ) from error


def script_dir_of(channel: Channel) -> str:
    """Return the directory for job files: the channel's, or ``flow_scripts`` in its home."""
    return channel.abspath(channel.script_dir or "flow_scripts")


def tail_of(channel: Channel, path: str, max_bytes: int, timeout_s: float) -> str:
    """Return the end of a file on the channel's side; empty where that cannot be had."""
    try:
        return channel.execute_wait(f"tail -c {int(max_bytes)} {quote(path)} 2>/dev/null", walltime=timeout_s).stdout
    except ChannelError:
        return ""

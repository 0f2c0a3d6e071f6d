"""The files of one job on the channel's side: its script, its output, its secrets."""

from __future__ import annotations

import os
import posixpath
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from shlex import quote

from flow_providers.errors import (
    NOT_REACHED,
    ChannelError,
    HostUnreachable,
    ScriptPathError,
    SubmitException,
)
from flow_providers.interfaces.channel import Channel
from flow_providers.interfaces.job_extras import FORWARDS_VARIABLE, JobExtras, file_variable, secret_variable
from flow_providers.jobs.tag import check_tag, check_variable, new_tag, safe_name

Environment = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class JobFiles:
    """Where the files of a job are: in ``folder``, all with one stem that no other job has."""

    folder: str
    stem: str
    tag: str
    secret_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: str, job_name: str, tag: str, secret_names: Sequence[str] = ()) -> JobFiles:
        """Return the files of a new job. SubmitException: the tag is no tag."""
        tag = check_tag(tag or new_tag())
        # The random end keeps jobs of one name and tag apart: users may submit several jobs under one tag.
        stem = f"{safe_name(job_name)}.{tag}.{secrets.token_hex(3)}"
        return cls(folder, stem, tag, tuple(safe_name(name) for name in secret_names))

    @property
    def secret_files(self) -> list[str]:
        """Paths of the secret files, on the channel's side."""
        return [f"{self.secrets}/{name}" for name in self.secret_names]

    @property
    def script(self) -> str:
        """Path of the submit script, on the channel's side."""
        return f"{self.folder}/{self.stem}.sh"

    @property
    def stdout(self) -> str:
        """Path of the job's standard output, on the channel's side."""
        return f"{self.folder}/{self.stem}.out"

    @property
    def stderr(self) -> str:
        """Path of the job's standard error, on the channel's side."""
        return f"{self.folder}/{self.stem}.err"

    @property
    def exit_code(self) -> str:
        """Where the script of a batch job leaves its exit code."""
        return f"{self.folder}/{self.stem}.exit"

    @property
    def secrets(self) -> str:
        """Directory of the secret files, on the channel's side, of mode 0700."""
        return f"{self.folder}/{self.stem}.secrets"


def write_job(
    channel: Channel,
    files: JobFiles,
    extras: JobExtras,
    script: Callable[[Environment], str],
    *,
    beyond: bool = False,
    secrets_as_files: bool = True,
) -> None:
    """Write the secrets, the files and the script of a job.

    Args:
        channel: Where to.
        files: The paths.
        extras: Environment, secrets and files of the job.
        script: Makes the script from its environment, which tells the paths of secrets and files too.
        beyond: The job runs on other machines than the channel's.
        secrets_as_files: Whether the secrets become files; else the script brings them itself.

    Raises:
        SubmitException: a variable has an impossible name.
        HostUnreachable: the host cannot be reached, or lets nobody in.
        ScriptPathError: the directory cannot be used.
    """
    environment = [(check_variable(name), value) for name, value in extras.environment]
    try:
        for name, content in extras.secrets if secrets_as_files else ():
            # Secrets before the script, which names their paths.
            path = channel.push_bytes(content, safe_name(name), files.secrets)
            environment.append((secret_variable(name), path))
        for name, source in extras.files:
            environment.append((file_variable(name), _delivered(channel, safe_name(name), source, files.folder)))
        if extras.forward is not None and (ways := channel.forward(extras.forward, beyond=beyond)):
            environment.append((FORWARDS_VARIABLE, " ".join(ways)))
        channel.push_bytes(_as_bytes(script(environment)), f"{files.stem}.sh", files.folder, mode=0o700)
    except NOT_REACHED as error:
        raise HostUnreachable(f"job {files.stem} was not submitted: {error}") from error
    except ChannelError as error:
        raise ScriptPathError(f"job {files.stem} was not submitted: {error}", files.folder) from error


_LOOK_S = 30.0  # seconds for the look whether a file is there; one short command
_KEPT_DAYS = 14  # files that no job has asked for since are removed, so that the directory does not grow for ever


def _delivered(channel: Channel, name: str, source: str, folder: str) -> str:
    """Return the path of a file on the channel's side, bringing it there unless it is there."""
    if channel.is_local:
        return source
    place = f"{folder}/files"
    path = f"{place}/{name}"
    # By size too: what broke off in a copy by other means is brought again. Touched, so that what is in use is young.
    look = (
        f'[ "$(stat -c %s {quote(path)} 2>/dev/null)" = {os.path.getsize(source)} ] && '
        f"touch -c {quote(path)} && echo there; "
        f"find {quote(place)} -maxdepth 1 -type f -mtime +{_KEPT_DAYS} -exec rm -f {{}} + 2>/dev/null; true"
    )
    if channel.execute_wait(look, walltime=_LOOK_S).stdout.split()[-1:] != ["there"]:
        brought = channel.push_file(source, place)
        # Under the name that stands for its content, if the file here is called otherwise.
        if posixpath.basename(brought) != name:
            channel.execute_wait(f"mv -f {quote(brought)} {quote(path)}", walltime=_LOOK_S)
    return path


def _as_bytes(script: str) -> bytes:
    """Return a script as bytes for its file; an escaped byte of a file's name that is no UTF-8 becomes that byte."""
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

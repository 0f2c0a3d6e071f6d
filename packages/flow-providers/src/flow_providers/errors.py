"""The errors of the providers: one hierarchy under ProviderError.

The message of each says what happened, on which host or scheduler, and what to do; a scheduler's own words are quoted.
"""

from __future__ import annotations

from collections.abc import Sequence


class ProviderError(Exception):
    """Root of the errors of this library."""


class BadOption(ProviderError, ValueError):
    """An option of a provider, channel or launcher is wrong; the message names the option and what it must be."""


class LedgerError(ProviderError):
    """The ledger of jobs cannot be read or written; the message names the file."""


# -- providers


class ExecutionProviderException(ProviderError):
    """A provider cannot carry out a call; root of the errors of providers."""


class OptionalModuleMissing(ExecutionProviderException):
    """A Python package that this provider or channel needs is not installed; the message says how to get it.

    Attributes:
        module_names: The missing modules.
        reason: The purpose that they are needed for.
    """

    def __init__(self, module_names: list[str], reason: str) -> None:
        super().__init__(module_names, reason)
        self.module_names = module_names
        self.reason = reason

    def __str__(self) -> str:
        return f"the Python package(s) {', '.join(self.module_names)} must be installed: {self.reason}"


class ChannelRequired(ExecutionProviderException, BadOption):
    """A provider that reaches hosts by channels was given none."""


class ScaleOutFailed(ExecutionProviderException):
    """The cloud has no resources for the job now; nothing was started."""


class SubmitException(ExecutionProviderException):
    """The job was surely not submitted; the message has the scheduler's own words."""


class HostUnreachable(SubmitException):
    """A job was not submitted because its host cannot be reached, or lets nobody in; another one may take it."""


class HostsAway(SubmitException):
    """A job was not submitted, nor was that tried anew: the hosts that could take it were not reached shortly before.

    Attributes:
        again_s: Seconds until one of them is tried again.
    """

    def __init__(self, message: str, again_s: float = 0.0) -> None:
        super().__init__(message)
        self.again_s = again_s


class SubmitUnknown(SubmitException):
    """The job may or may not have been submitted (no answer in time): look for it with ``find(tag)``."""


class SchedulerUnavailable(ExecutionProviderException):
    """The scheduler does not answer now; nothing is known about any job. Ask later.

    Attributes:
        found: Where jobs were looked for in several places of which some answered: the ids that these know.
    """

    def __init__(self, message: str, found: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.found = tuple(found)


class SchedulerMissingArgs(ExecutionProviderException):
    """The submit script needs a value that was not given; the message names it."""


class ScriptPathError(ExecutionProviderException):
    """The submit script cannot be written where it should be.

    Attributes:
        path: The path.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


# -- channels


class ChannelError(ProviderError):
    """A channel cannot carry out a call; root of the errors of channels."""


class ChannelTimeout(ChannelError):
    """A command did not end within its walltime, and was killed with everything it started.

    Attributes:
        stdout: Its standard output so far.
        stderr: Its standard error so far.
    """

    def __init__(self, message: str, stdout: str = "", stderr: str = "") -> None:
        super().__init__(message)
        self.stdout = stdout
        self.stderr = stderr


class ChannelUnavailable(ChannelError):
    """The host cannot be reached now, or the connection broke; the command may have run. Ask later."""


class ChannelExecFailed(ChannelError):
    """A command could not be started, or printed without end."""


class BadHostKeyException(ChannelError):
    """The key of the host is not the one that is known, or none is known: the connection was refused."""


class AuthException(ChannelError):
    """The host refused the login; the message has its reason."""


NOT_REACHED = (ChannelTimeout, ChannelUnavailable, BadHostKeyException, AuthException)
"""Errors of a channel by which nothing can be done on its host now."""


class SSHException(ChannelError):
    """The ssh connection failed for a reason that the other errors do not cover."""


class BadScriptPath(ChannelError):
    """The script directory cannot be used."""


class BadPermsScriptPath(BadScriptPath):
    """There is no permission to write to the script directory."""


class FileExists(ChannelError):
    """The destination exists and is not overwritten."""


class FileCopyException(ChannelError):
    """A file could not be copied over the channel."""


# -- launchers


class BadLauncher(ProviderError, TypeError):
    """A launcher is not callable as ``launcher(command, tasks_per_node, nodes_per_block) -> str``."""

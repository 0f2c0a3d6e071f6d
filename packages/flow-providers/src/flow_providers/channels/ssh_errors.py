"""The translation of paramiko's errors into those of channels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from flow_providers.errors import (
    AuthException,
    BadHostKeyException,
    ChannelUnavailable,
    OptionalModuleMissing,
    SSHException,
)


def need_paramiko() -> None:
    """Raise OptionalModuleMissing unless paramiko is installed."""
    try:
        import paramiko  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise OptionalModuleMissing(
            ["paramiko"], "channels by ssh need it; install paramiko, or flow-providers with its extra [ssh]"
        ) from error


@contextmanager
def translated(hostname: str, *, command: str = "", tried: str = "") -> Iterator[None]:
    """Raise our errors for those of paramiko and the network, naming the host.

    Args:
        hostname: The host.
        command: Command by which the user may try the same login; empty: ``ssh HOSTNAME``.
        tried: As whom, and with what, the login was tried; empty where it was not.
    """
    command = command or f"ssh {hostname}"
    need_paramiko()
    import paramiko

    try:
        yield
    except paramiko.BadHostKeyException as error:
        raise BadHostKeyException(
            f"the key of {hostname} is not the one that is known: somebody may be in between. If the machine was "
            f"reinstalled, remove the old key: ssh-keygen -R {hostname}. ({error})"
        ) from error
    except paramiko.AuthenticationException as error:
        who = f" {tried}" if tried else ""
        raise AuthException(
            f"{hostname} refused the login{who}: {str(error).rstrip('.')}; does `{command}` work?"
        ) from error
    except paramiko.SSHException as error:
        # paramiko has one class for many faults: only the text tells those that may pass from those that stay.
        text = str(error)
        if "not found in known_hosts" in text:
            raise BadHostKeyException(
                f"{text}: log in once by `{command}` and compare the fingerprint, or give known_hosts"
            ) from error
        if "Timeout" in text or "not active" in text or "session closed" in text or "banner" in text:
            raise ChannelUnavailable(f"{hostname} cannot be reached: {text}") from error
        raise SSHException(f"ssh to {hostname} failed: {text}") from error
    except (TimeoutError, EOFError, ConnectionError) as error:
        raise ChannelUnavailable(f"{hostname} cannot be reached: {error or type(error).__name__}") from error
    except paramiko.ssh_exception.NoValidConnectionsError as error:
        raise ChannelUnavailable(f"{hostname} cannot be reached: {_reasons(error.errors)}") from error
    except OSError as error:
        raise ChannelUnavailable(f"{hostname} cannot be reached: {error}") from error


def _reasons(errors: Mapping[tuple[object, ...], OSError]) -> str:
    """Return what became of the attempt at each address of a host: its own error has no word of that."""
    return "; ".join(
        f"{address[0]} port {address[1]}: {os.strerror(error.errno) if error.errno else error}"
        for address, error in errors.items()
    )

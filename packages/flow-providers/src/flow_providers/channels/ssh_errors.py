"""Errors of paramiko as ours."""

from __future__ import annotations

from collections.abc import Iterator
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
        raise OptionalModuleMissing(["paramiko"], "channels by ssh; pip install 'flow-providers[ssh]'") from error


@contextmanager
def translated(hostname: str) -> Iterator[None]:
    """Raise our errors for those of paramiko and the network, naming the host."""
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
        raise AuthException(f"{hostname} refused the login: {error}; does `ssh {hostname}` work?") from error
    except paramiko.SSHException as error:
        text = str(error)
        if "not found in known_hosts" in text:
            raise BadHostKeyException(
                f"{text}: log in once by `ssh {hostname}` and compare the fingerprint, or give known_hosts"
            ) from error
        if "Timeout" in text or "not active" in text or "session closed" in text or "banner" in text:
            raise ChannelUnavailable(f"{hostname} cannot be reached: {text}") from error
        raise SSHException(f"ssh to {hostname} failed: {text}") from error
    except (TimeoutError, EOFError, ConnectionError) as error:
        raise ChannelUnavailable(f"{hostname} cannot be reached: {error or type(error).__name__}") from error
    except OSError as error:
        raise ChannelUnavailable(f"{hostname} cannot be reached: {error}") from error

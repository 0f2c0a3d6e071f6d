"""Access to pages and metrics: for requests with the server's token; without one, for those under a local name.

Loopback is not a user: on a login node everybody can connect to it. So a server has a token unless its user says that
nobody else is on the machine; and then pages of other sites whose names were made to point to this machine stay out.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Iterable

from flow_monitor.errors import MonitorError

TOKEN_VARIABLE = "FLOW_VIZ_TOKEN"
"""Environment variable with the token to use; empty for a new one."""
_SHORTEST = 8  # characters of a token of the user's own; made-up ones have 32
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?")


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach a listening address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def choose_token(listen: str, without: bool) -> str | None:
    """Return the token of a server that listens at an address: of the environment, a new one, or none if so wished.

    Raises:
        MonitorError: the environment's is too short or has other letters than addresses and headers take, or others
            than this machine could look without one.
    """
    if without:
        if not is_loopback(listen):
            raise MonitorError(
                f"--no-token is for this machine alone, and others reach {listen}: leave one of them out"
            )
        return None
    given = os.environ.get(TOKEN_VARIABLE, "").strip()
    if given and not re.fullmatch(rf"[A-Za-z0-9._~-]{{{_SHORTEST},}}", given):
        raise MonitorError(
            f"{TOKEN_VARIABLE} must have at least {_SHORTEST} letters, of A-Z a-z 0-9 . _ ~ - only; without it a token "
            "is made up"
        )
    return given or secrets.token_urlsafe(24)


def knows(token: str, authorization: str, others: Iterable[str] = ()) -> bool:
    """Return whether a request has the token: in its header ``Authorization: Bearer``, or as another of its values."""
    kind, _, value = authorization.partition(" ")
    given = [value.strip() if kind.lower() == "bearer" else "", *others]
    # In constant time: the time of a comparison must not tell how much of a guess is right.
    return any(hmac.compare_digest(one.encode("utf-8", "surrogateescape"), token.encode()) for one in given if one)


def named_locally(host: str) -> bool:
    """Return whether the header ``Host`` of a request, exactly a name or address and perhaps a port, is of loopback."""
    found = _HOST.fullmatch(host)
    return found is not None and is_loopback(found["name"])

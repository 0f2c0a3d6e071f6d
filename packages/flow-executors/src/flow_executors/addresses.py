"""Addresses of this machine that workers can reach. All are heuristics: an address set as an option always works."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Mapping
from contextlib import suppress

import psutil

from flow_core.errors import ExecutorError

_log = logging.getLogger(__name__)

_FAR_AWAY = "192.0.2.1"
"""An address of the documentation net: routed like any host outside, and assigned to no host."""
_QUERY_URL = "https://api.ipify.org"


class AddressError(ExecutorError):
    """An address could not be found; the message says why and what to do."""


def address_by_hostname() -> str:
    """Return the address to which this machine's own name resolves; one that others can reach where there is one.

    Where the name leads to this machine's loopback alone, as ``/etc/hosts`` of some systems has it, that is returned,
    with a warning: workers on other machines cannot reach it.

    Raises:
        AddressError: the name does not resolve.
    """
    found = _of_this_name()
    if ipaddress.ip_address(found[0]).is_loopback:
        _log.warning(
            "this machine's name %r resolves to %s, which workers on other machines cannot reach: use "
            "address_by_route or address_by_interface",
            socket.gethostname(),
            found[0],
        )
    return found[0]


def address_by_route() -> str:
    """Return the address from which this machine would talk to the outside. No packet is sent.

    Raises:
        AddressError: there is no route to the outside.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_FAR_AWAY, 9))
        except OSError as error:
            raise AddressError(
                f"this machine has no route to the outside ({error}): use address_by_interface or address_by_hostname"
            ) from error
        return str(probe.getsockname()[0])


def address_by_interface(ifname: str) -> str:
    """Return the address of a network interface, such as ``ib0``: IPv4 if it has one.

    Raises:
        AddressError: there is no such interface, or it has no address; the message lists those that have.
    """
    found = _by_interface()
    if ifname not in found:
        raise AddressError(
            f"no address on a network interface {ifname!r}; interfaces with an address here: "
            + ", ".join(f"{name} ({addresses[0]})" for name, addresses in sorted(found.items()))
        )
    return found[ifname][0]


def address_by_query(timeout: float = 30, url: str = _QUERY_URL) -> str:
    """Ask a service outside under which address it sees this machine. The only function here that sends anything.

    Args:
        timeout: How long to wait, in seconds.
        url: A service that answers with the bare address of its client.

    Raises:
        AddressError: no answer, or one that is no address.
    """
    from urllib.request import urlopen

    if not url.startswith(("http://", "https://")):
        raise AddressError(f"address_by_query: {url!r} is no http or https URL")
    try:
        with urlopen(url, timeout=timeout) as response:
            text = response.read(256).decode("ascii", "replace").strip()
    except OSError as error:
        raise AddressError(
            f"{url} did not say what address this machine has ({error}): use address_by_route"
        ) from error
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise AddressError(f"{url} answered {text[:60]!r}, which is no address: use address_by_route") from None


def addresses_with_query(timeout: float = 5, url: str = _QUERY_URL) -> tuple[str, ...]:
    """Return every address at which this machine might be reached, and the one under which a service outside sees it.

    For nodes that may be anywhere: workers try them all and take the one that answers. Without an answer of the service
    that one is left out.

    Args:
        timeout: How long to wait for the service, in seconds.
        url: A service that answers with the bare address of its client.
    """
    try:
        seen = address_by_query(timeout, url)
    except AddressError as error:
        _log.info("no address of this machine from outside: %s", error)
        return candidate_addresses()
    return tuple(dict.fromkeys((seen, *candidate_addresses())))


def candidate_addresses() -> tuple[str, ...]:
    """Return every address at which this machine might be reached, likely ones first, loopback last.

    Workers try them all and take the one that answers. Sends nothing outside; never raises.
    """
    found: dict[str, None] = {}
    with suppress(AddressError):
        found[address_by_route()] = None
    with suppress(AddressError):
        found.update(dict.fromkeys(_of_this_name()))
    for addresses in _by_interface().values():
        found.update(dict.fromkeys(addresses))
    return tuple(sorted(found, key=lambda address: ipaddress.ip_address(address).is_loopback)) or ("127.0.0.1",)


def _of_this_name() -> list[str]:
    """Return the addresses to which this machine's name resolves, those of the loopback last. Raises AddressError."""
    name = socket.gethostname()
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)]
    except OSError as error:
        raise AddressError(
            f"this machine's name {name!r} does not resolve ({error}): give the executor an address by hand, or use "
            "address_by_interface"
        ) from error
    return sorted(found, key=lambda address: ipaddress.ip_address(address).is_loopback)


def _by_interface() -> Mapping[str, list[str]]:
    """Usable addresses by interface, IPv4 before IPv6; link-local ones mean nothing to other machines."""
    found: dict[str, list[str]] = {}
    for name, entries in psutil.net_if_addrs().items():
        for family in (socket.AF_INET, socket.AF_INET6):
            for entry in entries:
                if entry.family == family and not ipaddress.ip_address(entry.address.split("%")[0]).is_link_local:
                    found.setdefault(name, []).append(entry.address)
    return found

import ipaddress
import socket
import threading

import pytest

from flow_executors import HighThroughputExecutor, addresses
from flow_executors.addresses import (
    AddressError,
    address_by_hostname,
    address_by_interface,
    address_by_query,
    address_by_route,
    addresses_with_query,
    candidate_addresses,
)
from flow_providers import SlurmProvider


def _answering(body: bytes) -> str:
    """A one-shot HTTP service; returns its URL."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server, server.accept()[0] as link:
            link.recv(4096)
            link.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_the_loopback_interface_has_the_loopback_address():
    assert address_by_interface("lo") == "127.0.0.1"


def test_an_unknown_interface_is_named_beside_those_that_exist():
    with pytest.raises(AddressError, match=r"'ib7'.*lo \(127\.0\.0\.1\)"):
        address_by_interface("ib7")


def test_the_host_name_resolves_to_an_address():
    ipaddress.ip_address(address_by_hostname())


def test_a_host_name_that_does_not_resolve_is_named(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "no-such-host.invalid")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: (_ for _ in ()).throw(OSError("unknown")))
    with pytest.raises(AddressError, match=r"no-such-host\.invalid.*address_by_interface"):
        address_by_hostname()


@pytest.mark.parametrize(
    ("known", "address", "warned"),
    [
        (["127.0.1.1"], "127.0.1.1", True),
        (["127.0.1.1", "10.1.2.3"], "10.1.2.3", False),
        (["10.1.2.3", "10.9.9.9"], "10.1.2.3", False),
    ],
)
def test_a_name_that_leads_to_the_loopback_alone_is_warned_of(monkeypatch, caplog, known, address, warned):
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (one, 0)) for one in known]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: entries)
    assert address_by_hostname() == address
    assert any("cannot reach: use address_by_route" in line for line in caplog.messages) is warned


class _Probe(socket.socket):
    """A socket on a machine with one route, or none."""

    routed = True

    def connect(self, address) -> None:
        if not self.routed:
            raise OSError("Network is unreachable")

    def getsockname(self):
        return ("10.1.2.3", 1)


def test_the_route_gives_the_address_from_which_packets_would_leave(monkeypatch):
    monkeypatch.setattr(socket, "socket", _Probe)
    assert address_by_route() == "10.1.2.3"


def test_a_machine_without_a_route_is_told_what_else_to_use(monkeypatch):
    monkeypatch.setattr(socket, "socket", type("Cut", (_Probe,), {"routed": False}))
    with pytest.raises(AddressError, match=r"no route.*address_by_interface"):
        address_by_route()


def test_a_query_takes_the_address_from_the_answer():
    assert address_by_query(url=_answering(b"198.51.100.7\n")) == "198.51.100.7"


def test_a_query_refuses_an_answer_that_is_no_address():
    with pytest.raises(AddressError, match="<html>"):
        address_by_query(url=_answering(b"<html>log in first</html>"))


def test_a_query_that_nobody_answers_says_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(AddressError, match="address_by_route"):
        address_by_query(timeout=5, url=f"http://127.0.0.1:{port}/")


def test_the_address_that_is_seen_outside_comes_before_all_others():
    found = addresses_with_query(url=_answering(b"198.51.100.7\n"))
    assert found == ("198.51.100.7", *candidate_addresses())


def test_without_an_answer_from_outside_there_are_the_others():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert addresses_with_query(url=f"http://127.0.0.1:{port}/") == candidate_addresses()


def test_an_executor_takes_several_addresses_from_a_function():
    executor = HighThroughputExecutor(address=lambda: ("198.51.100.7", "10.1.2.3"), provider=SlurmProvider())
    assert executor._addresses() == ("198.51.100.7", "10.1.2.3")


def test_candidates_end_with_loopback_and_never_ask_outside(monkeypatch):
    monkeypatch.setattr(addresses, "address_by_query", lambda *a, **k: pytest.fail("asked outside"))
    found = candidate_addresses()
    assert "127.0.0.1" in found
    assert [ipaddress.ip_address(a).is_loopback for a in found] == sorted(
        ipaddress.ip_address(a).is_loopback for a in found
    )

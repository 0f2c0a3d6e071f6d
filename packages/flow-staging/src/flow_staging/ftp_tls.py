"""Sessions with ftp servers by TLS: from the first byte (``ftps:``), or asked for (``ftpes:``, AUTH TLS; RFC 4217)."""

from __future__ import annotations

import ftplib
import socket
import ssl
from functools import lru_cache

from flow_staging.ftp_connection import ENCODING, Session
from flow_staging.http_environment import trusted
from flow_staging.transfer.failures import PermanentTransferError
from flow_staging.transfer.sockets import watched

IMPLICIT = "ftps"


class TlsSession(Session):
    """A session of which commands and files are encrypted, with a server whose certificate was verified."""

    def __init__(self, timeout: float, scheme: str, ca: str | None) -> None:
        """Take the longest wait in seconds, how TLS begins, and certificates to trust beside the others (PEM text)."""
        super().__init__(timeout)
        self._implicit = scheme == IMPLICIT
        self._context = _context(ca)

    def connect(
        self, host: str = "", port: int = 0, timeout: float | None = -999, source_address: tuple[str, int] | None = None
    ) -> str:
        """Connect, and begin TLS before any command.

        Raises what ftplib and ssl raise, and PermanentTransferError.
        """
        if not self._implicit:
            welcome = super().connect(host, port)
            try:
                self.voidcmd("AUTH TLS")
            except ftplib.error_perm as error:
                raise PermanentTransferError(f"the server offers no TLS: it answered {error}") from error
            self._encrypt(self._socket())
            return welcome
        self.host, self.port = host, port
        self.sock = socket.create_connection((host, port), self.timeout)
        self.af = self.sock.family
        self._encrypt(self.sock)
        self.welcome = self.getresp()
        return self.welcome

    def login(self, user: str = "", passwd: str = "", acct: str = "") -> str:
        """Log in, and have files encrypted, too."""
        answer = super().login(user, passwd, acct)
        # RFC 4217: PBSZ must come before PROT, and is 0 for TLS. Without PROT P the files themselves go in clear.
        self.voidcmd("PBSZ 0")
        self.voidcmd("PROT P")
        return answer

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        """Begin a transfer over a connection that goes on with the TLS session of this one, which servers ask for."""
        data, size = super().ntransfercmd(cmd, rest)
        try:
            return self._shaken(data, getattr(self._socket(), "session", None)), size
        except BaseException:
            data.close()
            self.fit = False
            raise

    def _encrypt(self, raw: socket.socket) -> None:
        if self._unread:  # what came in clear must not count as said under TLS
            raise PermanentTransferError("the server sent more than its answer before TLS began")
        self.sock = self._wrapped(raw, None)  # known before the handshake, so that it can be cut
        self.sock.do_handshake()
        self.file = self.sock.makefile("r", encoding=ENCODING)

    def _shaken(self, raw: socket.socket, session: ssl.SSLSession | None) -> ssl.SSLSocket:
        wrapped = self._wrapped(raw, session)
        try:
            watched(wrapped)
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped

    def _wrapped(self, raw: socket.socket, session: ssl.SSLSession | None) -> ssl.SSLSocket:
        return self._context.wrap_socket(raw, server_hostname=self.host, do_handshake_on_connect=False, session=session)

    def _socket(self) -> socket.socket:
        assert self.sock is not None
        return self.sock


def refused_by_tls(error: ssl.SSLError) -> PermanentTransferError | None:
    """Return the permanent error for an error of TLS that no other try would change; None if one may."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return PermanentTransferError(
            f"the server's certificate is not trusted: {error.verify_message or error}; give the CA's certificate as "
            "ca_bundle="
        )
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"):
        return PermanentTransferError(
            "the server does not speak TLS from the first byte on at this port: ftpes:// asks for TLS after it has "
            "greeted, at port 21 as a rule"
        )
    return None


@lru_cache(maxsize=8)
def _context(ca: str | None) -> ssl.SSLContext:
    return trusted(ca)

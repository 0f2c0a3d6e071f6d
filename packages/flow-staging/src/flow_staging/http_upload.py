"""Files to web servers: one PUT each, so that a file is there whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flow_staging.http_cookies import Cookies
from flow_staging.http_session import HttpSessions, Request, headers_of, let_go
from flow_staging.transfer.failures import PermanentTransferError, TransientTransferError, local_failure
from flow_staging.transfer.retry import Control, Pace, RetryPolicy, again

if TYPE_CHECKING:
    from flow_staging.http_session import Answer

_CHUNK = 256 << 10  # bytes a read; only the magnitude matters
_STORED = frozenset({200, 201, 204})
_HINTS = {
    301: "write the URL that it names",
    302: "write the URL that it names",
    303: "write the URL that it names",
    404: "there is no such place: check the URL",
    405: "the server takes no files by PUT at this place",
    409: "the directory is not there, as a rule: make it on the server first",
    411: "it does not take files whose size is stated as this one's is",
    413: "the file is too large for the server",
    501: "the server takes no files by PUT",
    507: "the server has no room for it",
}

Refusal = Callable[[int, str, Mapping[str, str]], TransientTransferError | PermanentTransferError]
"""Returns what a status, its reason and the headers of an answer come to."""


class HttpUpload:
    """One file on its way; it goes when it is to be published. Used by one thread.

    Args:
        sessions: The connections.
        request: Where it goes, without its body.
        path: The file.
        retry: How often and how long to try.
        control: Deadline and stop.
        refusal: Gives the error for other statuses than those handled here.
    """

    def __init__(
        self,
        sessions: HttpSessions,
        request: Request,
        path: Path,
        retry: RetryPolicy,
        control: Control,
        refusal: Refusal,
    ) -> None:
        self._sessions = sessions
        self._url = request
        self._path = path
        self._retry = retry
        self._control = control
        self._refusal = refusal

    def publish(self) -> None:
        """Send the file and wait until it is stored; raises TransientTransferError or PermanentTransferError."""
        cookies = Cookies()
        again(self._retry, self._control, lambda: self._try(cookies))

    def discard(self) -> None:
        """Do nothing: nothing was sent."""

    def _try(self, cookies: Cookies) -> None:
        url = self._url
        try:
            size = self._path.stat().st_size
        except OSError as error:
            raise local_failure(error, f"cannot read {self._path}") from error
        headers = {**url.conditions, "Content-Length": str(size), "Content-Type": "application/octet-stream"}
        request = replace(url, conditions=headers, method="PUT", body=lambda: self._body(size))
        answer, _ = self._sessions.get(request, cookies)
        try:
            if answer.status not in _STORED:
                raise self._refused(answer)
        finally:
            let_go(answer)

    def _body(self, size: int) -> Iterator[bytes]:
        meter, pace, left = self._control.stop.meter, Pace(self._retry), size
        meter.stand(0, size)
        try:
            stream = self._path.open("rb")
        except OSError as error:
            raise local_failure(error, f"cannot read {self._path}") from error
        with stream:
            # No more than was stated: a file that grows meanwhile would break the request.
            while left and (chunk := stream.read(min(_CHUNK, left))):
                left -= len(chunk)
                yield chunk
                meter.add(len(chunk))
                self._control.check()
                pace.add(len(chunk))
        if left:
            raise PermanentTransferError(f"{self._path} became shorter while it was sent")

    def _refused(self, answer: Answer) -> TransientTransferError | PermanentTransferError:
        headers = headers_of(answer)
        hint = _HINTS.get(answer.status)
        if hint is None:
            return self._refusal(answer.status, answer.reason or "", headers)
        return PermanentTransferError(
            f"the server answered {answer.status} {answer.reason or ''}".rstrip() + f": {hint}"
        )

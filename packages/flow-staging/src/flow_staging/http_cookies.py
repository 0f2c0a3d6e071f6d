"""Cookies of one file: taken from the answers on the way to it, sent with the requests that follow."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.request import Request

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    from urllib3 import BaseHTTPResponse
    from urllib3.util import Url

    from flow_staging.http_direct import DirectAnswer, PlainAnswer


class Cookies:
    """Keeps the cookies of one file, by the rules of browsers. Used by one thread at a time."""

    def __init__(self) -> None:
        self._jar: CookieJar | None = None

    def add_to(self, headers: dict[str, str], url: Url) -> None:
        """Add the cookies that are for a URL to the headers that ask for it."""
        if self._jar is None:
            return
        asked = _asked(url)
        self._jar.add_cookie_header(asked)
        value = asked.get_header("Cookie")
        if value:
            own = next((name for name in headers if name.lower() == "cookie"), None)
            headers["Cookie"] = value if own is None else f"{headers.pop(own)}; {value}"

    def take(self, answer: BaseHTTPResponse | DirectAnswer | PlainAnswer, url: Url) -> None:
        """Take those that an answer sets."""
        # Most files come without cookies, and need no jar.
        if "Set-Cookie" not in answer.headers:
            return
        if self._jar is None:
            from http.cookiejar import CookieJar

            self._jar = CookieJar()
        self._jar.extract_cookies(answer, _asked(url))  # type: ignore[arg-type]  # it asks for info() alone


def _asked(url: Url) -> Request:
    return Request(url._replace(auth=None).url)  # cookies are of a host, which a login is no part of

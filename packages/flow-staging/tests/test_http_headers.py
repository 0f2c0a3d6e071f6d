"""Which headers go to which server."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from urllib3.util import parse_url

from flow_core.errors import ConfigurationError
from flow_staging import HTTPInTaskStaging, HTTPSeparateTaskStaging
from flow_staging.http_headers import HostHeaders


def sent(headers: dict[str, dict[str, str]], url: str) -> dict[str, str]:
    return HostHeaders.made(headers).of(parse_url(url))


@pytest.mark.parametrize(
    ("prefix", "url", "goes"),
    [
        ("https://h", "https://h/a", True),
        ("https://h", "https://H:443/a?b", True),
        ("https://H/", "https://h", True),
        ("https://h", "http://h/a", False),
        ("http://h", "https://h/a", True),
        ("http://h:8080", "https://h:8080/a", True),
        ("http://h:8080", "https://h/a", False),
        ("https://h", "https://h:8443/a", False),
        ("https://h", "https://h.evil.org/a", False),
        ("https://h", "https://evil.org/https://h/", False),
        ("https://h", "https://h@evil.org/", False),
        ("https://h/data", "https://h/data", True),
        ("https://h/data/", "https://h/data/x", True),
        ("https://h/data", "https://h/database", False),
        ("https://h/data", "https://h/data/../other", False),
        ("https://h/data", "https://h/data/%2e%2E/other", False),
        ("https://[::1]:8443", "https://[::1]:8443/a", True),
    ],
)
def test_headers_go_where_their_prefix_says_and_nowhere_else(prefix, url, goes):
    assert sent({prefix: {"X-Key": "secret"}}, url) == ({"X-Key": "secret"} if goes else {})


def test_the_longer_path_comes_first_and_names_mean_the_same_in_capitals():
    headers = {"https://h/a/b": {"x-key": "b"}, "https://h": {"X-Key": "h", "X-Other": "o"}, "*": {"Accept": "text/x"}}
    assert sent(headers, "https://h/a/b/c") == {"x-key": "b", "X-Other": "o", "Accept": "text/x"}
    assert sent(headers, "https://h/a") == {"X-Key": "h", "X-Other": "o", "Accept": "text/x"}
    assert sent(headers, "http://other") == {"Accept": "text/x"}


@given(st.text(), st.sampled_from(["https://h", "https://h/p", "http://h:81"]))
def test_no_host_but_the_named_one_gets_a_header(text, prefix):
    try:
        url = parse_url(f"https://{text}/p")
    except ValueError:
        return
    if (url.host or "").lower() != "h":
        assert HostHeaders.made({prefix: {"X-Key": "secret"}}).of(url) == {}


@pytest.mark.parametrize("method", [HTTPSeparateTaskStaging, HTTPInTaskStaging])
@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Authorization": "Bearer t"}, r'Write headers={"https://data\.example\.org": {"Authorization"'),
        ({"data.org": {"X-Key": "k"}}, r"'data\.org'.*name it as in"),
        ({"ftp://data.org": {"X-Key": "k"}}, "headers are for a server"),
        ({"https://data.org/a?b": {"X-Key": "k"}}, "headers are for a server"),
        ({"https://me:secret@data.org": {"X-Key": "k"}}, "headers are for a server"),
        ({"https://data.org:x": {"X-Key": "k"}}, "names no server"),
        ({"*": {"X-Key": "k"}}, "only accept, accept-language, user-agent may go to all"),
        ({"https://data.org": {"X Key": "k"}}, "not the name of a header"),
        ({"https://data.org": {"X-Key": "k\r\nHost: other"}}, "without line breaks"),
        ({"https://data.org": {"X-Key": 5}}, "must be a text"),
    ],
)
def test_headers_for_no_server_are_refused_and_the_form_is_shown(method, headers, told):
    with pytest.raises(ConfigurationError, match=told):
        method(headers=headers)

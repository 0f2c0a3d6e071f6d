"""The repr of staging methods evaluates back to them and shows no secrets."""

from __future__ import annotations

import zipfile

import pytest

from flow_staging import (
    FTPInTaskStaging,
    FTPSeparateTaskStaging,
    GlobusStaging,
    HTTPInTaskStaging,
    HTTPSeparateTaskStaging,
    RSyncStaging,
    S3Staging,
    ZipFileStaging,
)
from flow_staging.transfer.cache import CachePolicy
from flow_staging.transfer.retry import RetryPolicy

UUID = "7d2dc622-2edb-11e8-b8be-0ac6873fc732"
RETRY, CACHE = RetryPolicy(tries=2), CachePolicy(max_bytes=5)


def connect():
    raise AssertionError("nobody connects here")


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (HTTPSeparateTaskStaging, {}),
        (HTTPSeparateTaskStaging, {"retry": RETRY, "cache": CACHE, "threads": 3}),
        (HTTPInTaskStaging, {"cache": None}),
        (FTPSeparateTaskStaging, {"threads": 1, "cache": CACHE}),
        (FTPInTaskStaging, {"retry": RETRY}),
        (RSyncStaging, {"hostname": "me@here", "ssh": "ssh -p 2222", "retry": RETRY}),
        (ZipFileStaging, {"compression": zipfile.ZIP_STORED, "timeout_s": 5.0}),
        (
            S3Staging,
            {"endpoint_url": "http://h", "region": "r", "profile": "p", "in_task": True, "part_bytes": 5 << 20},
        ),
        (GlobusStaging, {"endpoint_uuid": UUID, "endpoint_path": "/a", "local_path": "/b", "token_file": "/t"}),
        (GlobusStaging, {"endpoint_uuid": UUID, "rename": False, "poll_s": (2.0, 4.0), "client": connect}),
    ],
)
def test_the_repr_of_a_method_names_what_is_not_as_by_default_and_evaluates_back(method, options):
    made = method(**options)
    again = eval(repr(made).replace(f"{__name__}.connect", "connect"), globals())
    assert type(again) is method
    assert repr(again) == repr(made)
    assert all(f"{name}=" in repr(made) for name in options)
    for each in (made, again):
        each.close()


def test_the_values_of_headers_are_not_shown():
    for method in (HTTPSeparateTaskStaging, HTTPInTaskStaging):
        made = method(headers={"https://h": {"Authorization": "Bearer secret"}})
        assert repr(made) == f"{method.__name__}(headers={{'https://h': {{'Authorization': '***'}}}})"
        made.close()

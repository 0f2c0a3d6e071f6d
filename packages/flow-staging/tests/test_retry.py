"""Back-off, deadlines, and the words of errors."""

from __future__ import annotations

import errno
import pickle
import threading
from pathlib import Path

import pytest

from flow_core.errors import ConfigurationError, StagingError
from flow_core.files import File
from flow_core.interfaces.staging import Direction, Transfer
from flow_staging.transfer.cache import CachePolicy
from flow_staging.transfer.failures import Dropped, Refused, Stopped, local_failure, redacted, staging_error
from flow_staging.transfer.retry import Control, RetryPolicy, Tries


def test_pauses_double_up_to_a_limit():
    policy = RetryPolicy(first_delay_s=1, max_delay_s=8)
    for failures, full in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (500, 8)]:
        assert full / 2 <= policy.delay_s(failures) <= full


def test_failures_in_a_row_are_counted_and_progress_forgives_them():
    tries = Tries(RetryPolicy(tries=3, first_delay_s=0), Control(10))
    tries.failed(Dropped("a"))
    tries.failed(Dropped("a"))
    tries.failed(Dropped("a"), progress=1 << 20)
    tries.failed(Dropped("a"))
    with pytest.raises(Dropped, match=r"b \(tried 3 times\)"):
        tries.failed(Dropped("b"))


def test_a_pause_ends_at_the_deadline():
    with pytest.raises(Refused, match="not complete within"):
        Control(0.05).pause(1000)


def test_a_stop_ends_a_pause():
    control = Control(1000, threading.Event())
    threading.Timer(0.05, control.stop.set).start()
    with pytest.raises(Stopped):
        control.pause(1000)


@pytest.mark.parametrize("wrong", [{"tries": 0}, {"first_delay_s": -1}, {"timeout_s": 0}, {"stall_timeout_s": -2}])
def test_a_senseless_policy_is_refused_by_the_options_name(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RetryPolicy(**wrong)


def test_a_senseless_cache_is_refused():
    with pytest.raises(ConfigurationError, match="max_bytes"):
        CachePolicy(max_bytes=-1)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/a", "http://h/a"),
        ("http://me:pw@h:80/a", "http://me:***@h:80/a"),
        ("ftp://me:p%40w@[::1]:21/a", "ftp://me:***@[::1]:21/a"),
        ("https://h/a?X-Sig=abc&b=1", "https://h/a?X-Sig=...&b=..."),
        ("http://h:port/a?sig=abc", "http://h:port/a"),
        ("/plain/path", "/plain/path"),
    ],
)
def test_secrets_of_urls_are_not_shown(url, shown):
    assert redacted(url) == shown


def test_an_error_names_task_executor_url_path_and_reason_and_survives_the_way_home():
    transfer = Transfer(File("ftp://me:pw@h/a"), Path("/wd/a"), Direction.OUT, 12, "htex")
    error = pickle.loads(pickle.dumps(staging_error(transfer, Refused("the disk is full"))))
    assert isinstance(error, StagingError)
    assert str(error) == "task 12 on executor htex: could not bring out /wd/a as ftp://me:***@h/a: the disk is full"
    assert error.url == "ftp://me:***@h/a"


def test_an_unforeseen_error_is_named_by_its_type():
    transfer = Transfer(File("ftp://h/a"), Path("a"), Direction.IN, 1, "")
    assert str(staging_error(transfer, KeyError("x"))).endswith("KeyError: 'x'")


def test_local_failures_say_what_to_do():
    assert "free space" in str(local_failure(OSError(errno.ENOSPC, "No space"), "cannot write /a"))
    assert "strange" in str(local_failure(OSError(9999, "strange"), "cannot write /a"))

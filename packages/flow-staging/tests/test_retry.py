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
from flow_staging.transfer.failures import (
    PermanentTransferError,
    TooSlow,
    TransferCancelled,
    TransientTransferError,
    local_failure,
    redacted,
    staging_error,
)
from flow_staging.transfer.handle import Handle, Meter
from flow_staging.transfer.retry import Control, Pace, RetryPolicy, Tries


def test_pauses_double_up_to_a_limit():
    policy = RetryPolicy(first_delay_s=1, max_delay_s=8)
    for failures, full in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (500, 8)]:
        assert full / 2 <= policy.delay_s(failures) <= full


def test_failures_in_a_row_are_counted_and_progress_forgives_them():
    tries = Tries(RetryPolicy(tries=3, first_delay_s=0), Control(10))
    tries.failed(TransientTransferError("a"))
    tries.failed(TransientTransferError("a"))
    tries.failed(TransientTransferError("a"), progress=1 << 20)
    tries.failed(TransientTransferError("a"))
    with pytest.raises(TransientTransferError, match=r"b \(tried 3 times\)"):
        tries.failed(TransientTransferError("b"))


def test_a_transfer_that_is_tried_again_says_why_and_when():
    control = Control(10)
    tries, meter = Tries(RetryPolicy(tries=3, first_delay_s=0), control), control.stop.meter
    assert meter.progress().failed is None
    tries.failed(TransientTransferError("no answer"))
    tries.failed(TransientTransferError("no answer"))
    assert "; try 2 of 3 failed: no answer; the next began 0 s ago" in str(meter.progress())
    meter.stand(0, None)
    assert meter.progress().failed is None


def test_a_pause_ends_at_the_deadline():
    with pytest.raises(PermanentTransferError, match="not complete within"):
        Control(0.05).pause(1000)


def test_a_stop_ends_a_pause():
    control = Control(1000, Handle())
    threading.Timer(0.05, control.stop.set).start()
    with pytest.raises(TransferCancelled):
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
    error = pickle.loads(pickle.dumps(staging_error(transfer, PermanentTransferError("the disk is full"))))
    assert isinstance(error, StagingError)
    assert str(error) == "task 12 on executor htex: could not bring out /wd/a as ftp://me:***@h/a: the disk is full"
    assert error.url == "ftp://me:***@h/a"


def test_an_unforeseen_error_is_named_by_its_type():
    transfer = Transfer(File("ftp://h/a"), Path("a"), Direction.IN, 1, "")
    assert str(staging_error(transfer, KeyError("x"))).endswith("KeyError: 'x'")


def test_local_failures_say_what_to_do():
    assert "free space" in str(local_failure(OSError(errno.ENOSPC, "No space"), "cannot write /a"))
    assert "strange" in str(local_failure(OSError(9999, "strange"), "cannot write /a"))


def test_a_slow_connection_is_given_up_by_its_speed_over_the_window():
    now = [0.0]
    pace = Pace(RetryPolicy(least_speed=10, least_speed_window_s=60), lambda: now[0])
    for _ in range(4):  # 15 bytes/s
        now[0] += 20
        pace.add(300)
    now[0] += 50  # the second window began at 60 s, and 300 bytes have come in it
    told = r"4\.29 bytes/s over 70 s, where least_speed=10, least_speed_window_s=60"
    with pytest.raises(TooSlow, match=told):
        pace.add(0)


def test_the_time_that_bytes_took_counts_however_late_they_are_told():
    now = [0.0]
    pace = Pace(RetryPolicy(least_speed=100, least_speed_window_s=60), lambda: now[0])
    now[0] = 600.0
    pace.add(60_001)
    now[0] = 1200.0
    with pytest.raises(TooSlow, match=r"100 bytes/s over 600 s"):
        pace.add(59_999)


def test_any_speed_will_do_if_one_says_so():
    now = [0.0]
    pace = Pace(RetryPolicy(least_speed=0), lambda: now[0])
    for _ in range(10):
        now[0] += 1000
        pace.add(0)


def test_progress_does_not_forgive_what_is_too_slow():
    tries = Tries(RetryPolicy(tries=2, first_delay_s=0), Control(10))
    tries.failed(TooSlow("slow"), progress=1 << 30)
    with pytest.raises(TransientTransferError, match=r"slow \(tried 2 times\)"):
        tries.failed(TooSlow("slow"), progress=1 << 30)


def test_a_deadline_tells_how_far_the_transfer_was():
    control = Control(1e-9)
    control.stop.meter.stand(10, 1000)
    with pytest.raises(
        PermanentTransferError, match=r"not complete within 1e-09 s \(10 of 1,000 bytes, 0 bytes/s\); .* timeout_s"
    ):
        control.check()


def test_a_meter_tells_the_speed_of_late():
    now = [0.0]
    meter = Meter(lambda: now[0])
    meter.stand(500, 100_000)
    for _ in range(100):
        now[0] += 1
        meter.add(10)
    assert (meter.progress().moved, meter.progress().total) == (1500, 100_000)
    assert meter.progress().speed == pytest.approx(10)
    for _ in range(20):
        now[0] += 1
        meter.add(1000)
    assert meter.progress().speed == pytest.approx(1000)
    now[0] += 1000
    assert meter.progress().speed < 20


@pytest.mark.parametrize("wrong", [{"least_speed": -1}, {"least_speed_window_s": 0}])
def test_a_senseless_least_speed_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RetryPolicy(**wrong)

"""Options of staging methods that change nothing beside others are named by a warning."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from flow_core import without_effect
from flow_staging import FsspecStaging, GlobusStaging, RetryPolicy, S3Staging, ZipFileStaging

UUID = "ddb59aef-6d04-11e5-ba46-22000b92c6ec"


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(without_effect, "_said", set())
    return


def globus(**options: object) -> object:
    return GlobusStaging(UUID, "/there", "/here", **options)  # type: ignore[arg-type]


CASES: list[tuple[Callable[[], object], str]] = [
    (lambda: S3Staging(in_task=True, threads=3), "S3Staging: threads=3 has no effect with in_task=True"),
    (lambda: FsspecStaging(in_task=True, threads=3), "FsspecStaging: threads=3 has no effect with in_task=True"),
    (lambda: RetryPolicy(tries=1, first_delay_s=2.0), "RetryPolicy: first_delay_s has no effect with tries=1"),
    (lambda: RetryPolicy(tries=1, max_delay_s=2.0), "RetryPolicy: max_delay_s has no effect with tries=1"),
    (lambda: RetryPolicy(least_speed=0, least_speed_window_s=9.0), "RetryPolicy: least_speed_window_s=9.0 has no"),
    (lambda: ZipFileStaging(least_speed=0, least_speed_window_s=9.0), "ZipFileStaging: least_speed_window_s=9.0 has"),
    (lambda: globus(least_speed_window_s=9.0), "GlobusStaging: least_speed_window_s=9.0 has no effect"),
    (lambda: globus(client=object, client_id="me"), "GlobusStaging: client_id has no effect with client="),
    (lambda: globus(client=object, token_file="/tokens"), "GlobusStaging: token_file has no effect with client="),
]


@pytest.mark.parametrize(("make", "said"), CASES, ids=[said for _, said in CASES])
def test_an_option_that_changes_nothing_is_named(
    make: Callable[[], object], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    make()
    assert [record.getMessage() for record in caplog.records if record.getMessage().startswith(said)]
    assert len(caplog.records) == 1


def test_options_that_count_are_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    S3Staging(threads=3)
    S3Staging(in_task=True)
    FsspecStaging(threads=3)
    RetryPolicy(tries=1)
    RetryPolicy(first_delay_s=2.0, max_delay_s=9.0, least_speed_window_s=9.0)
    ZipFileStaging()
    globus()
    assert not caplog.records

"""Work for which nobody waits."""

from __future__ import annotations

import threading

import pytest

from flow_core.staging.file_work import BackgroundFileWork


def test_errands_are_done_in_turn_by_one_thread() -> None:
    file_work = BackgroundFileWork()
    done: list[tuple[int, int]] = []
    for number in range(50):
        file_work.do(lambda number=number: done.append((number, threading.get_ident())))  # type: ignore[misc]
    file_work.close()
    assert [number for number, _ in done] == list(range(50))
    assert len({thread for _, thread in done}) == 1


def test_closing_waits_for_what_is_left_and_ends_the_thread() -> None:
    file_work, go, done = BackgroundFileWork(), threading.Event(), threading.Event()
    file_work.do(lambda: go.wait(20))
    file_work.do(done.set)
    threading.Timer(0.05, go.set).start()
    file_work.close()
    assert done.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "flow-staging-errands"]
    file_work.do(done.clear)  # a run that ends may still tidy up
    file_work.close()
    assert not done.is_set()


def test_an_errand_that_fails_is_logged_and_keeps_no_other_back(caplog: pytest.LogCaptureFixture) -> None:
    file_work, done = BackgroundFileWork(), threading.Event()
    file_work.do(lambda: 1 / 0)
    file_work.do(done.set)
    file_work.close()
    assert done.is_set()
    assert "could not be cleaned up" in caplog.text


def test_who_closes_while_the_first_errand_is_given_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    file_work, done, failed = BackgroundFileWork(), threading.Event(), []
    start = threading.Thread.start

    def close() -> None:
        try:
            file_work.close()
        except RuntimeError as error:
            failed.append(error)

    closing = threading.Thread(target=close)

    def slow_start(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        closing.start()
        closing.join(0.2)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", slow_start)
    file_work.do(done.set)
    closing.join(20)
    assert not failed
    assert done.is_set()

"""Contract of memoizers as tests: subclass MemoizerContract in a test module and give it ``make_memoizer``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from flow_core.errors import Unhashable
from flow_core.interfaces.call import Call
from flow_core.interfaces.memoizer import AppIdentity, MemoEntry, Memoizer, MemoKey
from flow_core.testing import calls

APP = AppIdentity("calls.double", calls.double, "python:1")


class MemoizerContract:
    """Subclass in a test module and implement ``make_memoizer``."""

    # Seconds: long, since it matters only where something is broken.
    timeout_s: ClassVar[float] = 30.0

    def make_memoizer(self, directory: Path) -> Memoizer:
        """Return a new memoizer that remembers, and keeps what it keeps in the directory."""
        raise NotImplementedError

    @pytest.fixture
    def memoizer(self, tmp_path: Path) -> Iterator[Memoizer]:
        """Give a memoizer and close it."""
        memoizer = self.make_memoizer(tmp_path)
        yield memoizer
        memoizer.close()

    def _key(self, memoizer: Memoizer, *args: object, **kwargs: object) -> MemoKey:
        return memoizer.key(APP, Call(calls.double, args, kwargs))

    def test_the_same_call_has_the_same_key(self, memoizer: Memoizer) -> None:
        """Equal arguments give equal digests, others give others."""
        assert self._key(memoizer, 1).digest == self._key(memoizer, 1).digest
        assert self._key(memoizer, 1).digest != self._key(memoizer, 2).digest

    def test_another_function_has_another_key(self, memoizer: Memoizer) -> None:
        """The function is part of the key."""
        other = AppIdentity("calls.nothing", calls.nothing, "python:1")
        assert memoizer.key(other, Call(calls.nothing)).digest != memoizer.key(APP, Call(calls.double)).digest

    def test_another_cache_tag_has_another_key(self, memoizer: Memoizer) -> None:
        """A new version of the key's rules finds no earlier result."""
        other = AppIdentity("calls.double", calls.double, "python:2")
        call = Call(calls.double, (1,))
        assert memoizer.key(other, call).digest != memoizer.key(APP, call).digest

    def test_ignored_parameters_are_no_part_of_the_key(self, memoizer: Memoizer) -> None:
        """Calls that differ in ignored parameters alone are the same."""
        app = AppIdentity("calls.hold", calls.hold, "python:1", ignore=("limit_s",))
        keys = [memoizer.key(app, Call(calls.hold, ("d", "n", limit))).digest for limit in (1.0, 2.0)]
        assert keys[0] == keys[1]

    def test_an_argument_that_cannot_be_part_of_a_key_is_named(self, memoizer: Memoizer) -> None:
        """Unhashable names the parameter."""
        with pytest.raises(Unhashable, match="value"):
            self._key(memoizer, value=threading.Lock())

    def test_what_was_not_stored_is_not_found(self, memoizer: Memoizer) -> None:
        """``lookup`` returns None and raises nothing."""
        assert memoizer.lookup(self._key(memoizer, 1)) is None

    @pytest.mark.parametrize("value", [None, 0, "text", [1, {"a": (2,)}], b"x" * 100_000])
    def test_what_was_stored_is_found(self, memoizer: Memoizer, value: object) -> None:
        """Values of all sizes come back equal, and under their own key alone."""
        key = self._key(memoizer, 1)
        memoizer.store([MemoEntry(key, 0, value)])
        stored = memoizer.lookup(key)
        assert stored is not None
        assert stored.result() == value
        assert memoizer.lookup(self._key(memoizer, 2)) is None

    def test_the_newest_entry_wins(self, memoizer: Memoizer) -> None:
        """Within one call of ``store`` and over several."""
        key = self._key(memoizer, 1)
        memoizer.store([MemoEntry(key, 0, "old"), MemoEntry(key, 1, "middle")])
        memoizer.store([MemoEntry(key, 2, "new")])
        stored = memoizer.lookup(key)
        assert stored is not None
        assert stored.result() == "new"

    def test_a_value_that_does_not_pickle_is_remembered_while_the_run_lasts(self, memoizer: Memoizer) -> None:
        """It is in no checkpoint, but later calls of this run find it."""
        key = self._key(memoizer, 1)
        memoizer.store([MemoEntry(key, 0, threading.Lock())])
        assert memoizer.lookup(key) is not None

    def test_changes_of_a_result_do_not_reach_what_is_remembered(self, memoizer: Memoizer) -> None:
        """A result is copied when it is stored."""
        key, value = self._key(memoizer, 1), [1, {"a": 2}]
        memoizer.store([MemoEntry(key, 0, value)])
        # The caller's object is its own again as soon as its future is done.
        value.append("the caller's")
        stored = memoizer.lookup(key)
        assert stored is not None
        assert stored.result() == [1, {"a": 2}]

    def test_each_hit_is_an_object_of_its_own(self, memoizer: Memoizer) -> None:
        """A caller that changes its result changes no other hit."""
        key = self._key(memoizer, 1)
        memoizer.store([MemoEntry(key, 0, {"a": [2]})])
        for _ in range(2):
            stored = memoizer.lookup(key)
            assert stored is not None
            found = stored.result()
            assert found == {"a": [2]}
            found["a"].append("the caller's")

    def test_a_miss_is_explained_by_what_changed(self, memoizer: Memoizer) -> None:
        """``explain`` names the parameter in which the nearest call differs."""
        memoizer.store([MemoEntry(self._key(memoizer, 1), 0, 2)])
        reason = memoizer.explain(self._key(memoizer, 5))
        assert "value" in " ".join(reason.changed)
        assert reason.nearest is not None

    def test_a_miss_of_an_app_never_seen_is_explained(self, memoizer: Memoizer) -> None:
        """``explain`` names the app where no call of it is stored."""
        reason = memoizer.explain(self._key(memoizer, 5))
        assert reason.nearest is None
        assert "calls.double" in reason.summary

    def test_a_checkpoint_names_its_directory(self, memoizer: Memoizer) -> None:
        """``checkpoint`` returns a directory that exists, or None."""
        memoizer.store([MemoEntry(self._key(memoizer, 1), 0, 2)])
        directory = memoizer.checkpoint()
        # A memoizer without checkpoints has none.
        assert directory is None or directory.is_dir()

    def test_a_stored_value_is_found_after_a_checkpoint_too(self, memoizer: Memoizer) -> None:
        """Writing moves values to a file, and ``lookup`` reads them from there."""
        key = self._key(memoizer, 1)
        memoizer.store([MemoEntry(key, 0, ["value"])])
        memoizer.checkpoint([0])
        memoizer.checkpoint()
        stored = memoizer.lookup(key)
        assert stored is not None
        assert stored.result() == ["value"]

    def test_closing_twice_is_closing_once(self, memoizer: Memoizer) -> None:
        """The second call does nothing and raises nothing."""
        memoizer.store([MemoEntry(self._key(memoizer, 1), 0, 2)])
        memoizer.close()
        memoizer.close()

    def test_threads_may_use_it_at_once(self, memoizer: Memoizer) -> None:
        """Four threads store and look up; every entry is found afterwards."""

        def work(first: int) -> None:
            """Store and look up 25 results that no other thread has."""
            for number in range(first, first + 25):
                key = self._key(memoizer, number)
                memoizer.store([MemoEntry(key, number, 2 * number)])
                memoizer.lookup(key)

        # Keys of each thread are its own, so that the result does not depend on their order.
        self._in_threads(work, range(0, 100, 25))
        found = [memoizer.lookup(self._key(memoizer, number)) for number in range(100)]
        assert [entry.result() if entry else None for entry in found] == [2 * number for number in range(100)]

    def _in_threads(self, work: Callable[[int], None], arguments: Iterable[int]) -> None:
        threads = [threading.Thread(target=work, args=(argument,), daemon=True) for argument in arguments]
        for thread in threads:
            thread.start()
        for thread in threads:
            # A thread that still runs then has met a lock that is never released.
            thread.join(self.timeout_s)
            assert not thread.is_alive()

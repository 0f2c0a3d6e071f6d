"""Any sequence of breaks, changes and refusals: a file is whole or not there."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from flow_staging.transfer.cache import CachePolicy
from flow_staging.transfer.failures import PermanentTransferError, TransientTransferError
from flow_staging.transfer.resume import Opened, fetch
from flow_staging.transfer.retry import Control, RetryPolicy
from flow_staging.transfer.verify import Digest, Remote

NOW = RetryPolicy(tries=4, first_delay_s=0.0, max_delay_s=0.0)


class Script:
    """A source that follows a script: at each opening (break after n bytes, version, may resume, states digest)."""

    def __init__(self, versions, acts) -> None:
        self.versions = versions
        self.acts = list(acts)
        self.version = 0
        self.opened = 0
        self.held = 0

    def open(self, offset, validator, known):
        self.opened += 1
        breaks, moves_on, resumes, validates, digests = (
            self.acts.pop(0) if self.acts else (None, False, True, True, True)
        )
        if moves_on:
            self.version = min(self.version + 1, len(self.versions) - 1)
        if breaks == -1:
            raise TransientTransferError("no answer")
        body, name = self.versions[self.version], f'"v{self.version}"'
        if known == name and not offset:
            return None
        start = offset if resumes and offset and validator == name else 0
        digest = Digest("sha256", hashlib.sha256(body).digest()) if digests else None
        remote = Remote(len(body), digest, name if validates else "")
        self.held += 1
        end = len(body) if breaks is None else min(len(body), start + breaks)
        position = start

        def read():
            nonlocal position
            if position >= end:
                if breaks is not None and end < len(body):
                    raise TransientTransferError("broke")
                return b""
            data = body[position : min(end, position + 3)]
            position += len(data)
            return data

        def close():
            self.held -= 1

        return Opened(remote, start, read, close)


ACTS = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(-1, 12)), st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=12), min_size=1, max_size=4), ACTS, st.booleans())
def test_a_file_is_one_whole_version_or_not_there(versions, acts, cached):
    source = Script(versions, acts)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a"
        cache = CachePolicy(directory=f"{directory}/cache") if cached else None
        for _ in range(2):
            try:
                fetch(source, path, NOW, Control(60), url="u", cache=cache)
            except TransientTransferError:
                pass
            else:
                assert path.read_bytes() == versions[source.version]
        assert not path.exists() or path.read_bytes() in versions
        assert source.held == 0
        left = [p.name for p in Path(directory).iterdir() if p.name not in ("a", "cache")]
        assert left == []


def test_a_refusal_is_not_tried_again(tmp_path):
    class Closed:
        opened = 0

        def open(self, offset, validator, known):
            self.opened += 1
            raise PermanentTransferError("no")

    source = Closed()
    with pytest.raises(PermanentTransferError, match="no"):
        fetch(source, tmp_path / "a", NOW, Control(60))
    assert source.opened == 1
    assert list(tmp_path.iterdir()) == []


def test_a_known_content_that_vanishes_meanwhile_is_fetched(tmp_path):
    source = Script([b"content"], [])
    policy = CachePolicy(directory=str(tmp_path / "cache"))
    fetch(source, tmp_path / "a", NOW, Control(60), url="u", cache=policy)
    (tmp_path / "a").unlink()
    asked = source.open

    def vanish(offset, validator, known):
        for path in (tmp_path / "cache").rglob("*.data"):
            path.unlink()
        return asked(offset, validator, known)

    source.open = vanish
    fetch(source, tmp_path / "a", NOW, Control(60), url="u", cache=policy)
    assert (tmp_path / "a").read_bytes() == b"content"


def test_a_cache_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "cache").write_text("a file in the way")
    policy = CachePolicy(directory=str(tmp_path / "cache"))
    fetch(Script([b"content"], []), tmp_path / "a", NOW, Control(60), url="u", cache=policy)
    assert (tmp_path / "a").read_bytes() == b"content"


def test_small_contents_are_not_kept_and_leave_no_locks(tmp_path):
    policy = CachePolicy(min_bytes=100, directory=str(tmp_path / "cache"))
    fetch(Script([b"content"], []), tmp_path / "a", NOW, Control(60), url="u", cache=policy)
    assert (tmp_path / "a").read_bytes() == b"content"
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["CACHEDIR.TAG"]


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_stream_that_checks_itself_is_checked_here_after_a_break(tmp_path, spoiled):
    whole = b"the whole content"

    class Checking:
        opened = 0

        def open(self, offset, validator, known):
            self.opened += 1
            digest = Digest("md5", hashlib.md5(whole).digest())
            remote = Remote(len(whole), digest, '"v"', checked=True)
            first = [whole[:5]] if self.opened == 1 else [(b"x" * 12 if spoiled else whole[offset:]), b""]

            def read():
                if not first:
                    raise TransientTransferError("broke")
                return first.pop(0)

            return Opened(remote, offset, read, lambda: None)

    if spoiled:
        with pytest.raises(TransientTransferError, match=r"md5 digest|where 17 were announced"):
            fetch(Checking(), tmp_path / "a", NOW, Control(60))
        assert list(tmp_path.iterdir()) == []
    else:
        fetch(Checking(), tmp_path / "a", NOW, Control(60))
        assert (tmp_path / "a").read_bytes() == whole


@pytest.mark.parametrize("stated", [None, Digest("sha256", hashlib.sha256(b"content").digest())])
def test_the_digest_that_was_stated_is_told_also_of_what_the_cache_has(tmp_path, stated):
    class Stating:
        def open(self, offset, validator, known):
            if known == "v":
                return None
            pieces = [b"content", b""]
            return Opened(Remote(7, stated, "v"), 0, lambda: pieces.pop(0), lambda: None)

    told = hashlib.sha256(b"content").hexdigest() if stated else ""
    for name in ("a", "a", "b"):
        cache = CachePolicy(min_bytes=0)
        assert fetch(Stating(), tmp_path / name, NOW, Control(60), url="u", cache=cache) == told
    assert fetch(Stating(), tmp_path / "c", NOW, Control(60)) == told

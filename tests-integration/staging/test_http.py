"""http and https against servers of the standard library that cut, stall, lie and refuse."""

from __future__ import annotations

import base64
import concurrent.futures
import gzip
import hashlib
import os
import pickle
import resource
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections import deque
from email.utils import formatdate
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from staging_servers import (
    DATE,
    QUICK,
    Page,
    WebServer,
    answer,
    cut_at,
    do,
    hang_at,
    incoming,
    part,
    same,
    visible,
)

from flow_core.errors import ConfigurationError, StagingError
from flow_core.interfaces.call import NodeContext
from flow_staging.http import HTTPInTaskStaging, HTTPSeparateTaskStaging
from flow_staging.transfer.cache import CachePolicy
from flow_staging.transfer.retry import RetryPolicy


@pytest.fixture
def method():
    staging = HTTPSeparateTaskStaging(retry=QUICK)
    yield staging
    staging.close()


def bring(method: HTTPSeparateTaskStaging, *transfers) -> None:
    method.stage(list(transfers)).result(50)


def refused(method: HTTPSeparateTaskStaging, url: str, path: Path) -> str:
    with pytest.raises(StagingError) as caught:
        bring(method, incoming(url, path))
    assert "task 7" in str(caught.value)
    assert caught.value.url in str(caught.value)
    assert visible(path.parent) == []
    return str(caught.value)


def test_a_file_arrives_with_its_content(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    bring(method, incoming(web.url("/a"), tmp_path / "deep" / "a"))
    assert (tmp_path / "deep" / "a").read_bytes() == payload


def test_an_empty_file_arrives(method, web, tmp_path):
    web.pages["/a"] = Page(b"")
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == b""


def test_a_transfer_cut_in_the_middle_goes_on_where_it_stopped(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    web.pages["/a"].plan.append(cut_at(1_500_000))
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload
    assert [headers.get("Range") for _, headers in web.seen] == [None, "bytes=1500000-"]


def test_a_server_without_ranges_is_asked_for_the_whole_again(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload, ranges=False)
    web.pages["/a"].plan.append(cut_at(1_500_000))
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload


def test_a_server_without_versions_is_asked_for_the_whole_again(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload, etag=None)
    web.pages["/a"].plan.append(cut_at(1_500_000))
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload
    assert [headers.get("Range") for _, headers in web.seen] == [None, None]


def test_a_file_that_changes_between_two_parts_is_never_mixed(method, web, tmp_path, payload):
    page = web.pages["/a"] = Page(payload)
    new = payload[::-1]

    def change() -> None:
        web.pages["/a"] = Page(new, etag='"v2"')

    page.plan.append(cut_at(1_500_000))
    page.plan.append(lambda handler, start, status: (change(), handler.drop(), True)[-1])
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == new


def test_a_part_of_another_version_is_not_taken(method, web, tmp_path, payload):
    new = payload[::-1]
    page = web.pages["/a"] = Page(payload)
    page.plan.append(cut_at(1_500_000))
    page.plan.append(part('"v2"', new))  # as of a server that ignores If-Range
    page.plan.append(do(lambda: web.pages.update({"/a": Page(new, etag='"v2"')})))
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() in (payload, new)


def test_the_size_of_a_file_is_learned_from_a_later_part_and_asked_for(method, web, tmp_path, payload):
    page = web.pages["/a"] = Page(payload, announce=False)
    page.plan.append(_chunked_and_cut(payload, 1_000_000))
    page.plan.append(part('"v1"', payload, end=1_500_000))
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload
    assert [headers.get("Range") for _, headers in web.seen] == [None, "bytes=1000000-", "bytes=1500000-"]


def _redirect(to: str):
    def act(handler, _start, _status) -> bool:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return act


def test_a_file_that_a_redirect_leads_to_is_not_the_next_of_the_same_etag(method, web, tmp_path):
    web.pages["/one"], web.pages["/two"] = Page(b"one"), Page(b"two")
    latest = web.pages["/latest"] = Page(b"", plan=deque(map(_redirect, ("/one", "/one", "/two", "/two", "/two"))))
    for body in (b"one", b"one", b"two", b"two"):
        bring(method, incoming(web.url("/latest"), tmp_path / "a"))
        assert (tmp_path / "a").read_bytes() == body
    assert not latest.plan  # the third time it was asked for twice
    assert len([path for path, _ in web.seen if path in ("/one", "/two")]) == 5


def test_parts_of_two_files_of_one_etag_are_not_put_together(method, web, tmp_path, payload):
    web.pages["/one"], web.pages["/two"] = Page(payload, plan=deque([cut_at(1_500_000)])), Page(payload[::-1])
    web.pages["/latest"] = Page(b"", plan=deque(map(_redirect, ("/one", "/two", "/two"))))
    bring(method, incoming(web.url("/latest"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload[::-1]


def test_a_part_that_nobody_asked_for_is_not_the_file(method, web, tmp_path):
    def first_bytes(handler, _start, _status) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Range", "bytes 0-4/*")
        handler.send_header("Content-Length", "5")
        handler.end_headers()
        handler.wfile.write(b"whole")
        return True

    web.pages["/a"] = Page(b"whole file", plan=deque([first_bytes]))
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == b"whole file"


def _chunked_and_cut(body: bytes, end: int):
    def act(handler, _start, _status) -> bool:
        handler.send_response(200)
        handler.send_header("ETag", '"v1"')
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(f"{end:x}\r\n".encode() + body[:end] + b"\r\n")
        handler.drop()
        return True

    return act


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_file_that_comes_packed_is_unpacked(method, web, tmp_path, payload, coding):
    packed = gzip.compress(payload) if coding == "gzip" else zlib.compress(payload)
    page = web.pages["/a"] = Page(packed, headers={"Content-Encoding": coding})
    page.plan.append(cut_at(len(packed) // 2))
    for _ in range(2):
        bring(method, incoming(web.url("/a"), tmp_path / "a"))
        assert (tmp_path / "a").read_bytes() == payload
    assert [headers.get("Range") for _, headers in web.seen] == [None, None, None]
    assert web.seen[-1][1]["If-None-Match"] == '"v1"'


def test_a_packing_that_is_not_known_is_refused_by_name(method, web, tmp_path):
    web.pages["/a"] = Page(b"packed", headers={"Content-Encoding": "br"})
    assert "Content-Encoding: br" in refused(method, web.url("/a"), tmp_path / "a")


def test_a_weak_version_serves_to_keep_a_file_but_not_to_put_parts_together(method, web, tmp_path, payload):
    page = web.pages["/a"] = Page(payload, etag='W/"v1"')
    page.plan.append(cut_at(1_500_000))
    for _ in range(2):
        bring(method, incoming(web.url("/a"), tmp_path / "a"))
        assert (tmp_path / "a").read_bytes() == payload
    asked = [(headers.get("Range"), headers.get("If-None-Match")) for _, headers in web.seen]
    assert asked == [(None, None), (None, None), (None, 'W/"v1"')]


def test_a_server_that_names_a_time_is_asked_again_then(method, web, tmp_path, payload):
    page = web.pages["/a"] = Page(payload)
    page.plan.append(answer(503, Retry_After=formatdate(time.time() + 3600, usegmt=True)))
    assert "asks to be left alone for 3" in refused(method, web.url("/a"), tmp_path / "a")
    assert len(web.seen) == 1
    page.plan.append(answer(503, Retry_After=formatdate(time.time() - 3600, usegmt=True)))
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload


def test_a_server_that_always_cuts_at_the_same_byte_is_given_up(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload, ranges=False)
    web.pages["/a"].plan.extend([cut_at(1_500_000)] * 50)
    assert "before the end of the file" in refused(method, web.url("/a"), tmp_path / "a")
    assert len(web.seen) < 10


def test_a_transfer_that_gains_ground_each_time_is_not_given_up(method, web, tmp_path):
    body = os.urandom(12 << 20)
    web.pages["/a"] = Page(body)
    web.pages["/a"].plan.extend([cut_at((n + 1) << 20) for n in range(11)])
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == body


def test_a_cut_answer_of_unknown_length_is_noticed_by_its_digest(method, web, tmp_path, payload):
    stated = base64.b64encode(hashlib.sha256(payload).digest()).decode()
    web.pages["/a"] = Page(payload, announce=False, headers={"Repr-Digest": f"sha-256=:{stated}:"})
    web.pages["/a"].plan.append(cut_at(1_500_000))
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload


def test_a_wrong_digest_fails_and_leaves_nothing(method, web, tmp_path, payload):
    stated = base64.b64encode(hashlib.md5(b"another").digest()).decode()
    web.pages["/a"] = Page(payload, headers={"Content-MD5": stated})
    assert "md5 digest" in refused(method, web.url("/a"), tmp_path / "a")


@pytest.mark.parametrize(("status", "hint"), [(404, "no such file"), (403, "forbids"), (401, "login"), (410, "gone")])
def test_a_refusal_is_named_and_not_repeated(method, web, tmp_path, status, hint):
    web.pages["/a"] = Page(b"x")
    web.pages["/a"].plan.extend([answer(status)] * 5)
    said = refused(method, web.url("/a"), tmp_path / "a")
    assert str(status) in said
    assert hint in said
    assert len(web.seen) == 1


def test_a_busy_server_is_asked_again(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    web.pages["/a"].plan.extend([answer(503, Retry_After="0"), answer(429), answer(500)])
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload


def test_a_server_that_stays_broken_is_given_up(method, web, tmp_path):
    web.pages["/a"] = Page(b"x")
    web.pages["/a"].plan.extend([answer(502)] * 50)
    said = refused(method, web.url("/a"), tmp_path / "a")
    assert "502" in said
    assert "tried 4 times" in said


def test_a_refused_connection_is_named(method, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "Connection refused" in refused(method, f"http://127.0.0.1:{port}/a", tmp_path / "a")


def test_a_password_in_the_url_is_not_shown(method, web, tmp_path):
    url = web.url("/missing").replace("://", "://me:secret@") + "?X-Signature=hidden"
    with pytest.raises(StagingError) as caught:
        bring(method, incoming(url, tmp_path / "a"))
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert web.seen[0][1]["Authorization"].startswith("Basic ")


def test_a_silent_server_is_left_and_asked_again(web, tmp_path, payload):
    policy = RetryPolicy(tries=3, first_delay_s=0.01, max_delay_s=0.05, stall_timeout_s=0.2)
    method = HTTPSeparateTaskStaging(retry=policy)
    web.pages["/a"] = Page(payload)
    web.pages["/a"].plan.append(hang_at(1_500_000))
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload
    method.close()


def test_the_deadline_ends_a_transfer(web, tmp_path, payload):
    policy = RetryPolicy(tries=1000, first_delay_s=0.01, max_delay_s=0.05, timeout_s=0.5)
    method = HTTPSeparateTaskStaging(retry=policy)
    web.pages["/a"] = Page(payload)
    web.pages["/a"].plan.extend([answer(503)] * 1000)
    assert "not complete within 0.5 s" in refused(method, web.url("/a"), tmp_path / "a")
    method.close()


def test_closing_the_method_cuts_what_is_going(web, tmp_path, payload):
    policy = RetryPolicy(tries=1000, first_delay_s=20, max_delay_s=20)
    method = HTTPSeparateTaskStaging(retry=policy)
    web.pages["/a"] = Page(payload)
    web.pages["/a"].plan.extend([answer(503)] * 1000)
    future = method.stage([incoming(web.url("/a"), tmp_path / "a")])
    while not web.seen:
        assert not future.done()
    method.close()
    with pytest.raises(StagingError, match="stopped"):
        future.result(10)
    assert visible(tmp_path) == []


def test_one_missing_file_fails_the_group_and_leaves_no_parts(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    transfers = [incoming(web.url(f"/{n}"), tmp_path / str(n)) for n in ("a", "b", "c")]
    with pytest.raises(StagingError, match="404"):
        bring(method, *transfers)
    assert not [name for name in visible(tmp_path) if name.endswith(".part")]


def test_a_full_disk_is_named_and_nothing_is_left(web, tmp_path):
    """A limit on the size of files stands for the disk; a real full disk gives the same kind of error."""
    web.pages["/a"] = Page(b"x" * 4_000_000)
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
from pathlib import Path
from staging_servers import incoming
from flow_staging.http import HTTPSeparateTaskStaging
try:
    HTTPSeparateTaskStaging().stage([incoming({web.url("/a")!r}, Path({str(tmp_path / "a")!r}))]).result(30)
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.stdout.startswith("StagingError task 7")
    assert "File too large" in done.stdout
    assert visible(tmp_path) == []


def test_https_with_an_own_authority(secure_web, authority, tmp_path, payload):
    secure_web.pages["/a"] = Page(payload)
    secure_web.pages["/a"].plan.append(cut_at(1_500_000))
    method = HTTPSeparateTaskStaging(ca_bundle=str(authority / "ca.pem"), retry=QUICK)
    bring(method, incoming(secure_web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload
    method.close()


def test_an_unknown_certificate_is_refused_with_a_hint(method, secure_web, tmp_path):
    secure_web.pages["/a"] = Page(b"x")
    assert "ca_bundle=" in refused(method, secure_web.url("/a"), tmp_path / "a")


def test_a_wrong_ca_bundle_is_told_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match="ca_bundle"):
        HTTPSeparateTaskStaging(ca_bundle=str(tmp_path / "none.pem"))
    with pytest.raises(ConfigurationError, match="ca_bundle"):
        HTTPInTaskStaging(ca_bundle="-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n")


def test_headers_are_sent(web, tmp_path):
    web.pages["/a"] = Page(b"x")
    method = HTTPSeparateTaskStaging(headers={web.url(""): {"Authorization": "Bearer t"}}, retry=QUICK)
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert web.seen[0][1]["Authorization"] == "Bearer t"
    method.close()


def test_a_file_that_did_not_change_is_not_fetched_again(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    bring(method, incoming(web.url("/a"), tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == payload
    assert web.seen[1][1]["If-None-Match"] == '"v1"'
    assert fetched(web) == 1


def test_a_date_of_change_serves_as_version_too(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload, etag=None, last_modified=DATE)
    web.pages["/a"].plan.append(cut_at(1_500_000))
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload
    assert web.seen[1][1]["If-Range"] == DATE
    web.pages["/a"].plan.append(hang_at(1_500_000))  # the body of what is known is not waited for
    bring(method, incoming(web.url("/a"), tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == payload


def test_a_file_of_which_only_the_date_is_known_is_not_sent_again(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload, etag=None, last_modified=DATE)
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    bring(method, incoming(web.url("/a"), tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == payload
    assert web.seen[1][1]["If-Modified-Since"] == DATE
    assert fetched(web) == 1


def test_a_server_that_answers_dates_without_a_date_is_asked_for_it(method, tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a").write_text("content")
    os.utime(tmp_path / "served" / "a", (2_000_000, 2_000_000))
    asked = []

    class Noting(Quiet):
        def send_response(self, code, message=None):
            asked.append((self.command, code))
            super().send_response(code, message)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Noting, directory=str(tmp_path / "served"))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        for name in ("b", "c"):
            bring(method, incoming(f"http://127.0.0.1:{server.server_port}/a", tmp_path / name))
            assert (tmp_path / name).read_text() == "content"
        server.shutdown()
    assert asked == [("GET", 200), ("GET", 304), ("HEAD", 200)]


def test_an_older_file_that_is_put_back_is_fetched(method, tmp_path):
    (tmp_path / "served").mkdir()
    file = tmp_path / "served" / "a"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        for content, date in (("newer", 2_000_000), ("older", 1_000_000), ("older", 1_000_000)):
            file.write_text(content)
            os.utime(file, (date, date))
            bring(method, incoming(f"http://127.0.0.1:{server.server_port}/a", tmp_path / "a"))
            assert (tmp_path / "a").read_text() == content
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_a_changed_file_is_fetched_anew(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    web.pages["/a"] = Page(payload[::-1], etag='"v2"')
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload[::-1]


def spoil(path: Path, *, hide: bool) -> None:
    """Write into a file in place; ``hide``: put its times back, as far as one can."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(b"spoiled")
    if hide:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("hide", [False, True])
def test_an_input_that_an_app_has_spoiled_is_fetched_anew(method, web, tmp_path, payload, hide):
    web.pages["/a"] = Page(payload)
    for name in "aba":
        bring(method, incoming(web.url("/a"), tmp_path / name))
        spoil(tmp_path / name, hide=hide)
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload


def test_an_app_that_writes_into_its_input_changes_no_other_copy(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    for name in "abc":
        bring(method, incoming(web.url("/a"), tmp_path / name))
    assert len({(tmp_path / name).stat().st_ino for name in "abc"}) == 3
    spoil(tmp_path / "a", hide=False)
    spoil(tmp_path / "b", hide=False)
    assert (tmp_path / "c").read_bytes() == payload
    assert fetched(web) == 1


def test_a_copy_that_an_app_has_spoiled_leaves_the_content_to_others(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    for name in "ab":
        bring(method, incoming(web.url("/a"), tmp_path / name))
    spoil(tmp_path / "b", hide=False)
    for name in "bc":
        bring(method, incoming(web.url("/a"), tmp_path / name))
        assert (tmp_path / name).read_bytes() == payload
    assert fetched(web) == 1


def test_a_staged_file_that_was_removed_comes_from_the_cache(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    for _ in range(3):
        bring(method, incoming(web.url("/a"), tmp_path / "a"))
        bring(method, incoming(web.url("/a"), tmp_path / "a"))
        (tmp_path / "a").unlink()
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload
    assert fetched(web) == 1


def test_apps_that_replace_their_input_get_the_content_back_from_the_cache(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    for _ in range(3):
        bring(method, incoming(web.url("/a"), tmp_path / "a"))
        assert (tmp_path / "a").read_bytes() == payload
        (tmp_path / "new").write_bytes(b"sorted in place")
        os.replace(tmp_path / "new", tmp_path / "a")
    assert fetched(web) == 1


def fetched(web: WebServer) -> int:
    return sum(headers.keys().isdisjoint({"If-None-Match", "If-Modified-Since"}) for _, headers in web.seen)


def test_fifty_tasks_wanting_one_file_fetch_it_once(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    futures = [method.stage([incoming(web.url("/a"), tmp_path / f"{n}", n)]) for n in range(50)]
    concurrent.futures.wait(futures, 50)
    assert all((tmp_path / f"{n}").read_bytes() == payload for n in range(50))
    assert sum("If-None-Match" not in headers for _, headers in web.seen) == 1


@pytest.mark.parametrize("size", [1 << 10, 3 << 20])
@pytest.mark.parametrize("version", [None, 'W/"v1"', '"v1"'])
def test_one_file_for_many_tasks_is_one_fetch_whatever_the_server_says_of_versions(
    method, web, tmp_path, size, version
):
    body = os.urandom(size)
    web.pages["/a"] = Page(body, etag=version)
    for batch in range(2):  # the second one finds that the first has ended
        futures = [method.stage([incoming(web.url("/a"), tmp_path / f"{batch}-{n}", n)]) for n in range(25)]
        concurrent.futures.wait(futures, 50)
        assert all((tmp_path / f"{batch}-{n}").read_bytes() == body for n in range(25))
    assert fetched(web) == 1


def test_a_content_without_version_is_fetched_again_by_the_next_run(method, web, tmp_path):
    web.pages["/a"] = Page(b"old", etag=None)
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    web.pages["/a"] = Page(b"new", etag=None)
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == b"old"
    other = HTTPSeparateTaskStaging(retry=QUICK)
    bring(other, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == b"new"
    other.close()
    web.pages["/a"] = Page(b"newer", etag=None)
    method.close()
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == b"newer"


@pytest.mark.parametrize("said", ["no-store", "private, no-cache", "max-age=0"])
def test_a_server_that_wants_to_be_asked_each_time_is_asked(method, web, tmp_path, said):
    for n in range(3):
        web.pages["/a"] = Page(b"%d" % n, etag=None, headers={"Cache-Control": said})
        bring(method, incoming(web.url("/a"), tmp_path / "a"))
        assert (tmp_path / "a").read_bytes() == b"%d" % n


def test_a_content_without_version_that_an_app_has_spoiled_is_fetched_anew(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload, etag=None)
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    spoil(tmp_path / "a", hide=True)
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload
    assert len(web.seen) == 2


def test_nodes_share_a_content_without_version_within_a_run(web, tmp_path, payload):
    web.pages["/a"] = Page(payload, etag=None)
    staging = HTTPInTaskStaging(retry=QUICK)
    code = "import pickle, sys; step, where = pickle.load(sys.stdin.buffer); step.run(lambda: None, where)"

    def on_a_node(name: str) -> subprocess.Popen[bytes]:
        step = staging.step([incoming(web.url("/a"), Path(name))])
        worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
        assert worker.stdin is not None
        worker.stdin.write(pickle.dumps((step, NodeContext(executor="here", working_dir=str(tmp_path)))))
        worker.stdin.close()
        return worker

    workers = [on_a_node(str(n)) for n in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    assert all((tmp_path / str(n)).read_bytes() == payload for n in range(4))
    assert len(web.seen) == 1
    staging.close()
    assert on_a_node("4").wait(60) == 0
    assert len(web.seen) == 2


def test_a_file_waited_for_does_not_hold_up_others(web, tmp_path, payload):
    method = HTTPSeparateTaskStaging(retry=QUICK, threads=2)
    web.pages["/a"], web.pages["/b"] = Page(payload), Page(payload)
    web.pages["/a"].plan.append(hang_at(1000))
    waiting = [method.stage([incoming(web.url("/a"), tmp_path / f"a{n}")]) for n in range(5)]
    assert web.hanging.acquire(timeout=20)
    bring(method, incoming(web.url("/b"), tmp_path / "b"))
    assert not any(future.done() for future in waiting)
    web.closing.set()
    concurrent.futures.wait(waiting, 50)
    assert all((tmp_path / f"a{n}").read_bytes() == payload for n in range(5))
    method.close()


def test_the_cache_stays_within_its_bound(web, tmp_path):
    method = HTTPSeparateTaskStaging(
        retry=QUICK, cache=CachePolicy(max_bytes=350_000, directory=str(tmp_path / "kept"))
    )
    for n in range(10):
        web.pages[f"/{n}"] = Page(os.urandom(100_000))
        bring(method, incoming(web.url(f"/{n}"), tmp_path / str(n)))
    kept = list((tmp_path / "kept").rglob("*.data"))
    assert 1 <= len(kept) <= 3
    assert len(list((tmp_path / "kept").rglob("*.*"))) == 2 * len(kept) + 1  # a record each, and the tag of all caches
    method.close()


def test_no_cache_means_no_cache(web, tmp_path, payload):
    method = HTTPSeparateTaskStaging(retry=QUICK, cache=None)
    web.pages["/a"] = Page(payload)
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert os.listdir(tmp_path) == ["a"]
    method.close()


def test_a_big_file_passes_in_constant_memory(method, web, tmp_path, big_file):
    web.pages["/big"] = Page(big_file)
    web.pages["/big"].plan.append(cut_at(40 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bring(method, incoming(web.url("/big"), tmp_path / "big"))
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert same(tmp_path / "big", big_file)
    assert grown_kb < 32 << 10


def test_the_step_brings_files_in_on_another_process(secure_web, authority, tmp_path, payload):
    secure_web.pages["/a"], secure_web.pages["/b"] = Page(payload), Page(payload[::-1])
    secure_web.pages["/a"].plan.append(cut_at(1_500_000))
    ca = (authority / "ca.pem").read_text()
    method = HTTPInTaskStaging(ca_bundle=ca, headers={secure_web.url("/"): {"X-Who": "me"}}, retry=QUICK)
    step = method.step([incoming(secure_web.url(f"/{n}"), Path("in") / n) for n in "ab"])
    (tmp_path / "step").write_bytes(pickle.dumps((step, NodeContext(executor="here", working_dir=str(tmp_path)))))
    code = """
import pickle, sys, pathlib
step, where = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
assert "requests" not in sys.modules
print(step.run(lambda: sorted(p.name for p in (pathlib.Path(where.working_dir) / "in").glob("[ab]")), where))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "step")], capture_output=True, text=True, timeout=50
    )
    assert done.stderr == ""
    assert done.stdout == "['a', 'b']\n"
    assert (tmp_path / "in" / "b").read_bytes() == payload[::-1]
    assert secure_web.seen[0][1]["X-Who"] == "me"


def test_the_step_does_not_call_the_function_when_a_file_is_missing(web, tmp_path):
    called = []
    step = HTTPInTaskStaging(retry=QUICK).step([incoming(web.url("/none"), tmp_path / "a")])
    with pytest.raises(StagingError, match="task 7 on executor here"):
        step.run(lambda: called.append(1), NodeContext())
    assert called == []


def test_a_step_never_writes_outside_the_working_directory(web, tmp_path):
    web.pages["/a"] = Page(b"x")
    (tmp_path / "wd").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "wd" / "link").symlink_to(tmp_path / "elsewhere")
    where = NodeContext(working_dir=str(tmp_path / "wd"))
    for path in (Path("../a"), Path("link/a"), tmp_path / "wd" / "link" / "a"):
        step = HTTPInTaskStaging(retry=QUICK).step([incoming(web.url("/a"), path)])
        with pytest.raises(StagingError, match="out of the working directory"):
            step.run(lambda: None, where)
    assert visible(tmp_path) == ["elsewhere", "link", "wd"]


def test_http_takes_no_outputs(method, web):
    from flow_core.files import File

    assert method.can_stage_in(File(web.url("/a")))
    assert not method.can_stage_out(File(web.url("/a")))
    assert not method.can_stage_in(File("ftp://h/a"))


def test_a_killed_transfer_leaves_a_part_that_the_next_one_takes_over(method, web: WebServer, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    web.pages["/a"].plan.append(hang_at(1_500_000))
    code = f"""
import sys
import threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from staging_servers import incoming
from flow_staging.http import HTTPSeparateTaskStaging
HTTPSeparateTaskStaging(cache=None).stage([incoming({web.url("/a")!r}, Path({str(tmp_path / "a")!r}))]).result()
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert web.hanging.acquire(timeout=30)
    finally:
        process.kill()
        process.wait(10)
    assert not (tmp_path / "a").exists()
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload
    assert visible(tmp_path) == ["a"]


def test_something_done_on_the_server_during_the_answer_does_no_harm(method, web, tmp_path, payload):
    web.pages["/a"] = Page(payload)
    web.pages["/a"].plan.append(do(lambda: web.pages.pop("/a")))
    bring(method, incoming(web.url("/a"), tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == payload

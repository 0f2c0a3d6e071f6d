"""Chapter: data management; a remote file is where the app needs it, fetched over a real connection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flow import File, bash_app, python_app
from flow.errors import FlowError

pytestmark = pytest.mark.usefixtures("kernel")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A directory and the URL under which a real server shows it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path
    server.shutdown()
    thread.join(10)
    server.server_close()


@python_app
def sort_numbers(inputs=[]):
    with open(inputs[0].filepath) as stream:
        return sorted(int(line) for line in stream)


def test_a_remote_file_is_fetched_before_the_app_runs(served: tuple[str, Path]):
    url, directory = served
    (directory / "unsorted.txt").write_text("3\n1\n2\n")
    assert sort_numbers(inputs=[File(f"{url}/unsorted.txt")]).result() == [1, 2, 3]


def test_a_remote_file_is_converted_into_a_local_one(served: tuple[str, Path], tmp_path: Path):
    @python_app
    def convert(inputs=[], outputs=[]):
        with open(inputs[0].filepath) as source, open(outputs[0].filepath, "w") as target:
            target.write(source.read().upper())

    url, directory = served
    (directory / "format.txt").write_text("all lower case\n")
    target = File(f"file://{tmp_path}/FORMAT.txt")
    convert(inputs=[File(f"{url}/format.txt")], outputs=[target]).result()
    assert Path(target.filepath).read_text() == "ALL LOWER CASE\n"


def test_a_file_that_the_server_has_not_is_named(served: tuple[str, Path]):
    url, _directory = served
    with pytest.raises(FlowError, match="missing-from-the-server"):
        sort_numbers(inputs=[File(f"{url}/missing-from-the-server.txt")]).result()


def test_an_unknown_scheme_is_named():
    with pytest.raises(FlowError, match="gopher"):
        sort_numbers(inputs=[File("gopher://example.org/numbers.txt")]).result()


def test_a_local_file_is_used_where_it_is(tmp_path: Path):
    @bash_app
    def cat(inputs=[], stdout="stdout.txt"):
        return f"cat {inputs[0]}"

    source, said = tmp_path / "test.txt", tmp_path / "said.txt"
    source.write_text("Hello\n")
    cat(inputs=[File(f"file://{source}")], stdout=str(said)).result()
    assert said.read_text() == "Hello\n"

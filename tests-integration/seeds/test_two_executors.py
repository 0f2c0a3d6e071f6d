"""Chapter: a cluster beside the login node. Simulations run on worker processes, what watches over them on threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import flow
from flow import Config, python_app
from flow.executors import HighThroughputExecutor, ThreadPoolExecutor
from flow.providers import LocalProvider


@pytest.fixture(scope="module", autouse=True)
def both(workdir: Path) -> Iterator[None]:
    nodes = HighThroughputExecutor(label="nodes", max_workers=2, provider=LocalProvider(init_blocks=1, max_blocks=1))
    with flow.load(Config(executors=[nodes, ThreadPoolExecutor(label="login", max_threads=2)], strategy=None)):
        yield


@python_app(executors=["nodes"])
def simulate(checkpoint, until):
    """Go on from the step in the file; a node that fails ends it after three steps."""
    import os
    from pathlib import Path

    step = int(Path(checkpoint).read_text()) if os.path.exists(checkpoint) else 0
    for _ in range(3):
        step += 1
        Path(checkpoint).write_text(str(step))
        if step == until:
            return os.getpid()
    raise RuntimeError(f"the node failed after step {step}")


@python_app(executors=["login"])
def until_done(checkpoint, until, attempts):
    """Launch the simulation again, from its checkpoint, until it is through."""
    for attempt in range(1, attempts + 1):
        tried = simulate(checkpoint, until)
        if tried.exception() is None:
            return attempt, tried.result()
    return tried.result()


def test_an_app_on_threads_launches_a_simulation_again_from_its_checkpoint_until_it_succeeds(workdir: Path):
    attempts, worker = until_done(str(workdir / "eight"), 8, 5).result(50)
    assert attempts == 3
    assert worker != os.getpid()
    assert (workdir / "eight").read_text() == "8"


def test_what_never_succeeds_fails_with_the_last_error(workdir: Path):
    with pytest.raises(RuntimeError, match="the node failed after step 6"):
        until_done(str(workdir / "never"), 100, 2).result(50)


def test_results_of_many_nodes_come_together_on_the_login_node(workdir: Path):
    @python_app(executors=["login"])
    def gather(inputs=[]):
        return os.getpid(), sorted(set(inputs))

    here, there = gather(inputs=[simulate(str(workdir / f"part{number}"), 1) for number in range(6)]).result(50)
    assert here == os.getpid()
    assert here not in there

"""The end of a block is told to tasks that asked for it, and what is to be run again costs nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

import flow
from flow import Config, Requeue, bash_app, join_app, python_app
from flow_core.errors import BashExitFailure, BlockLost, ConfigurationError
from flow_core.interfaces.events import Event, EventKind, TryEnded
from flow_core.interfaces.sinks import RunInfo
from flow_executors.testing.direct_run import make_direct_executor
from flow_executors.testing.local_run import PATIENCE_S, wait_until
from flow_providers.local.provider import LocalProvider

pytestmark = pytest.mark.timeout(120)

Make = Callable[..., Config]
NOTICES = (signal.SIGUSR1, signal.SIGTERM)
NO_BUDGET = {"retries": 0, "infrastructure_retries": 0}
TWO_BLOCKS = {"min_blocks": 1, "max_blocks": 2}


@python_app(warn_before_end_s=30)
def work(place: str, then: str = "raise") -> str:
    """Note who runs it, wait to be told, save; ``then`` says how to end. A later try ends with what was saved."""
    import os
    import time

    import flow

    if os.path.exists(f"{place}/saved"):
        return open(f"{place}/saved").read()
    told = []

    def save() -> None:
        with open(f"{place}/saved", "w") as file:
            file.write("half of it")
        told.append(flow.block_is_ending())
        if then == "raise":
            raise flow.Requeue("the rest is for another block")

    flow.on_block_end(save)
    with open(f"{place}/manager.new", "w") as file:
        file.write(os.environ["FLOW_WORKER_POOL_ID"].rpartition(".")[2])
    os.replace(f"{place}/manager.new", f"{place}/manager")
    while then != "return" or not told:
        time.sleep(0.05)
    return f"done, told: {told}"


def tell(place: Path, number: int) -> None:
    """Send a signal to the manager under which a task has begun, as a scheduler does."""
    wait_until((place / "manager").exists, "no task has begun")
    os.kill(int((place / "manager").read_text()), number)


def log_of(place: Path) -> str:
    """Return the log of the one run below a directory."""
    (log,) = place.glob("runinfo/*/flow.log")
    return log.read_text()


class Verdicts:
    """A sink of the ends of tries."""

    wants = EventKind.TRY

    def __init__(self) -> None:
        self.found: list[str] = []

    def start(self, run: RunInfo) -> None:
        """Nothing to open."""

    def emit(self, events: Sequence[Event]) -> None:
        """Keep verdicts."""
        self.found += [event.verdict for event in events if isinstance(event, TryEnded)]

    def close(self, timeout_s: float) -> None:
        """Nothing to close."""


@pytest.fixture(params=["htex", "llex"])
def two_blocks(request: pytest.FixtureRequest, config: Make, tmp_path: Path) -> Make:
    """Return a function that makes a Config of blocks with one worker each, of one executor or the other."""

    def make(**settings: object) -> Config:
        if request.param == "htex":
            return config(NO_BUDGET | settings, TWO_BLOCKS)
        executor = make_direct_executor(max_workers=1, provider=LocalProvider(**TWO_BLOCKS))  # type: ignore[arg-type]
        given: dict[str, object] = {"run_dir": str(tmp_path / "runinfo"), "strategy_period": 0.2}
        return Config(executors=[executor], **(given | NO_BUDGET | settings))  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize("notice", NOTICES)
def test_a_task_that_is_told_saves_its_work_and_is_run_again_without_any_budget(
    two_blocks: Make, tmp_path: Path, notice: int
) -> None:
    verdicts = Verdicts()
    with flow.load(two_blocks(sinks=[verdicts])):
        future = work(str(tmp_path))
        tell(tmp_path, notice)
        assert future.result(timeout=PATIENCE_S) == "half of it"
    told = "is run again: its block was about to end in try 1, as it was told (Requeue: the rest is for another block)"
    assert told in log_of(tmp_path)
    assert verdicts.found == ["REQUEUED", "OK"]


@pytest.mark.parametrize("notice", NOTICES)
def test_a_task_that_is_told_may_save_and_return(two_blocks: Make, tmp_path: Path, notice: int) -> None:
    with flow.load(two_blocks()):
        future = work(str(tmp_path), "return")
        tell(tmp_path, notice)
        assert future.result(timeout=PATIENCE_S) == "done, told: [True]"


@python_app
def quick() -> float:
    """Return how long it is told before the end of its block."""
    import flow

    flow.on_block_end(lambda: None)
    return 1.0


@join_app
def joined() -> Future[float]:
    """Call an app that is told."""
    return quick()


def test_a_config_tells_the_tasks_of_all_apps(config: Make) -> None:
    with flow.load(config({"warn_before_end_s": 10})):
        calls = [quick(), joined(), flow.dfk().submit(quick.__wrapped__), quick(walltime=60)]
        assert [call.result(timeout=PATIENCE_S) for call in calls] == [1.0] * 4


def test_a_config_that_is_to_tell_tasks_needs_executors_that_can(tmp_path: Path) -> None:
    threads = flow.ThreadPoolExecutor(label="threads")
    wanted = Config(executors=[threads], run_dir=str(tmp_path / "runinfo"), warn_before_end_s=10)
    with pytest.raises(ConfigurationError, match="executor 'threads' cannot tell tasks"):
        flow.load(wanted)
    with pytest.raises(ConfigurationError, match="warn_before_end_s must be a number of seconds above 0"):
        Config(warn_before_end_s=0)


def test_why_tells_of_tries_that_were_told(config: Make, tmp_path: Path) -> None:
    with flow.load(config(NO_BUDGET, {"min_blocks": 1, "max_blocks": 1})):
        future = work(str(tmp_path))
        wait_until((tmp_path / "manager").exists, "no task has begun")
        tell(tmp_path, signal.SIGUSR1)
        told: list[str] = []

        def explained() -> bool:
            why = str(future.why())
            told.append(why)
            return future.done() or "1 was to be run again, told that the block ends (which costs nothing)" in why

        wait_until(explained, "why() never told")
        assert not future.done(), told[-1]
        assert future.result(timeout=PATIENCE_S) == "half of it"


@pytest.mark.slow
def test_a_block_that_reaches_its_walltime_tells_its_tasks_ahead(config: Make, tmp_path: Path) -> None:
    provider = {"min_blocks": 1, "max_blocks": 2, "walltime": "00:00:12", "enforce_walltime": True}
    with flow.load(config(NO_BUDGET, provider)):
        future = work.options(warn_before_end_s=6)(str(tmp_path))
        assert future.result(timeout=60) == "half of it"
    assert "was about to end in try 1" in log_of(tmp_path)


def test_a_task_that_does_not_end_in_its_time_is_lost_with_the_block(config: Make, tmp_path: Path) -> None:
    with flow.load(config(NO_BUDGET, {"min_blocks": 1, "max_blocks": 1})):
        future = work.options(warn_before_end_s=0.5)(str(tmp_path), "go on")
        tell(tmp_path, signal.SIGTERM)
        with pytest.raises(BlockLost, match="SIGTERM"):
            future.result(timeout=PATIENCE_S)
    assert (tmp_path / "saved").read_text() == "half of it"


def test_a_told_task_is_killed_where_it_is_cancelled(config: Make, tmp_path: Path) -> None:
    with flow.load(config(NO_BUDGET, {"min_blocks": 1, "max_blocks": 1})):
        future = work(str(tmp_path), "go on")
        wait_until((tmp_path / "manager").exists, "it has not begun")
        wait_until(future.running, "it is not known to run")
        assert future.cancel(kill=True)
        wait_until(future.done, "it was not ended")
        assert future.cancelled()


@python_app(warn_before_end_s=5)
def impatient() -> None:
    """Ask to be run again although nobody told it anything."""
    import flow

    raise flow.Requeue("just so")


@python_app
def unasked() -> None:
    """Want to be told, by an app that does not say so."""
    import flow

    flow.on_block_end(print)


def test_what_was_not_told_fails_as_with_any_exception(config: Make) -> None:
    with flow.load(config(NO_BUDGET)):
        with pytest.raises(Requeue, match="just so"):
            impatient().result(timeout=PATIENCE_S)
        with pytest.raises(flow.errors.AppException, match="give its app warn_before_end_s"):
            unasked().result(timeout=PATIENCE_S)


@bash_app(warn_before_end_s=30, warn_signal="SIGUSR2")
def simulate(place: str, program: str) -> str:
    """Run a program below a shell that has no trap; a later try ends at once."""
    return (
        f'cd {place}; [ ! -e saved ] || exit 0; python3 {program}; code=$?; echo "the shell goes on" >shell; exit $code'
    )


PROGRAM = """
import os, signal, sys, time
def save(number, frame):
    open("saved", "w").write("half of it")
    sys.exit({code})
signal.signal(signal.SIGUSR2, save)
open("manager.new", "w").write(os.environ["FLOW_WORKER_POOL_ID"].rpartition(".")[2])
os.replace("manager.new", "manager")
while True:
    time.sleep(60)
"""


@pytest.mark.parametrize("notice", NOTICES)
def test_a_command_that_is_told_is_run_again_by_its_exit_code(two_blocks: Make, tmp_path: Path, notice: int) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.format(code=85))
    with flow.load(two_blocks()):
        future = simulate(str(tmp_path), "program.py")
        tell(tmp_path, notice)
        assert future.result(timeout=PATIENCE_S) == 0
    assert (tmp_path / "shell").read_text() == "the shell goes on\n"
    assert "ended with exit code 85 before the end of its block" in log_of(tmp_path)


def test_a_command_that_fails_once_it_was_told_learns_of_the_exit_code(config: Make, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.format(code=3))
    with flow.load(config(NO_BUDGET, {"min_blocks": 1, "max_blocks": 1})):
        future = simulate(str(tmp_path), "program.py")
        tell(tmp_path, signal.SIGUSR1)
        with pytest.raises(BashExitFailure, match="with exit code 85 it would be run again"):
            future.result(timeout=PATIENCE_S)


@bash_app(warn_before_end_s=30)
def trapped(place: str) -> str:
    """Wait in the shell itself, which has a trap."""
    return f"""cd {place}; [ ! -e saved ] || exit 0
trap 'echo half >saved; kill $!; exit 85' TERM
echo "${{FLOW_WORKER_POOL_ID##*.}}" >manager.new; mv manager.new manager
sleep 600 & wait"""


def test_a_shell_with_a_trap_is_told_itself(config: Make, tmp_path: Path) -> None:
    with flow.load(config(NO_BUDGET, TWO_BLOCKS)):
        future = trapped(str(tmp_path))
        tell(tmp_path, signal.SIGUSR1)
        assert future.result(timeout=PATIENCE_S) == 0
    assert (tmp_path / "saved").read_text() == "half\n"

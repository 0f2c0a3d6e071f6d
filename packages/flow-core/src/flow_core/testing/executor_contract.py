"""Contract of executors as tests: subclass ExecutorContract in a test module and give it ``make_executor``.

The one promise under all of them: every key that ``submit`` took gets exactly one Outcome, whatever is called in
whatever order.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from flow_core.errors import AppTimeout, ExecutorClosed
from flow_core.interfaces.call import Call, Resources, TaskSpec, TryKey
from flow_core.interfaces.executor import Executor
from flow_core.interfaces.outcome import Outcome, Verdict
from flow_core.interfaces.task_fields import HONOURED_BY_ALL, TASK_FIELDS
from flow_core.interfaces.waiting import CauseKind
from flow_core.testing import calls
from flow_core.testing.driver import Driver

# A try that never started may be reported as either: the executor need not know why it is given back.
_NOT_STARTED = (Verdict.RETURNED, Verdict.CANCELLED)


Operation = tuple[str, int]

# "quick" stands three times, so that most examples have work under way when the odd operations come.
_OPERATIONS: st.SearchStrategy[list[Operation]] = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "quick",
                "quick",
                "quick",
                "fail",
                "hold",
                "cancel",
                "kill",
                "release",
                "wait",
                "shutdown",
                "start",
                "flush",
            ]
        ),
        st.integers(0, 20),
    ),
    min_size=3,
    max_size=20,
)


class ExecutorContract:
    """Subclass in a test module, implement ``make_executor``, set the flags that differ.

    Attributes:
        timeout_s: Bound of every wait for something that must happen.
        slots: How many tasks the executor of ``make_executor`` runs at once; held tasks fill exactly these.
        isolates_tasks: Whether tasks run in other processes, which may be killed without the executor dying.
        kills_started: Whether ``cancel(kill=True)`` ends a task that runs.
        interrupts: Whether the walltime of a task that sleeps is kept.
        survives_exit: Whether SystemExit in a task is an APP_ERROR (False: LOST is accepted too).
        random_order_settings: Settings of the random order test; every example starts one executor.
    """

    # Seconds: long, since it matters only where something is broken, and machines of CI are slow.
    timeout_s: ClassVar[float] = 30.0
    slots: ClassVar[int] = 2
    isolates_tasks: ClassVar[bool] = False
    kills_started: ClassVar[bool] = False
    interrupts: ClassVar[bool] = True
    survives_exit: ClassVar[bool] = True
    random_order_settings: ClassVar[settings] = settings(
        # Each example starts and ends a whole executor, which takes up to seconds.
        max_examples=15,
        deadline=None,
        # The same examples in each run, so that a failure comes back.
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )

    def make_executor(self) -> Executor:
        """Return a new executor, not started, with ``slots`` slots."""
        raise NotImplementedError

    def make_wide(self) -> tuple[Executor, float]:
        """Return a new executor and how many cores (above 1) a task must ask for to have all of it."""
        return self.make_executor(), float(self.slots)

    @pytest.fixture
    def driver(self, tmp_path: Path) -> Iterator[Driver]:
        """Give a started executor; shut it down and check the promise at the end."""
        driver = Driver(self.make_executor(), tmp_path, self.timeout_s)
        driver.start()
        try:
            yield driver
        finally:
            driver.release()
            driver.shutdown()
        driver.check()

    # -- results

    def test_every_try_gets_its_own_result(self, driver: Driver) -> None:
        """Fifty tries at once: each outcome has the value of its own call."""
        keys = [driver.submit(calls.double, number) for number in range(50)]
        outcomes = driver.outcomes(keys)
        assert [outcome.value for outcome in outcomes] == [2 * number for number in range(50)]
        assert {outcome.verdict for outcome in outcomes} == {Verdict.OK}

    def test_none_is_a_result(self, driver: Driver) -> None:
        """A function that returns nothing ends as OK with the value None."""
        outcome = driver.outcome(driver.submit(calls.nothing))
        assert (outcome.verdict, outcome.value) == (Verdict.OK, None)

    def test_keyword_arguments_may_be_named_like_anything(self, driver: Driver) -> None:
        """Names that executors use for their own parameters reach the function all the same."""
        names = ("func", "key", "call", "self", "args", "kwargs", "spec", "steps", "where", "executor", "name")
        wanted = dict.fromkeys(names, 1)
        outcome = driver.outcome(driver.submit_call(Call(calls.echo, (7,), dict(wanted))))
        assert outcome.value == ((7,), wanted)

    def test_keys_are_64_bits_wide(self, driver: Driver) -> None:
        """A key whose upper 20 bits are set comes back as it was."""
        # The epoch fills the upper 20 bits: a key that is cut to 44 or 53 bits would be another one.
        key = driver.submit_call(Call(calls.double, (4,)), TryKey((0xFFFFF << 44) + 5))
        assert driver.outcome(key).value == 8

    def test_a_large_result_arrives_whole(self, driver: Driver) -> None:
        """Three megabytes, which no pipe takes at once."""
        # Longer than a pipe or a socket buffer takes at once.
        outcome = driver.outcome(driver.submit(calls.echo, b"x" * 3_000_000))
        assert outcome.value == ((b"x" * 3_000_000,), {})

    def test_steps_run_around_the_function_in_the_order_given(self, driver: Driver) -> None:
        """The first step is the outermost."""
        steps = (calls.Bracket("outer"), calls.Bracket("inner"))
        outcome = driver.outcome(driver.submit_call(Call(calls.double, (1,), steps=steps)))
        assert outcome.value == ("outer", ("inner", 2))

    def test_steps_are_told_where_they_run(self, driver: Driver) -> None:
        """The context has the executor's label and the key of the try."""
        key = driver.submit_call(Call(calls.nothing, steps=(calls.Whereabouts(),)))
        assert driver.outcome(key).value == (driver.executor.label, key)

    def test_an_outcome_says_where_and_when(self, driver: Driver) -> None:
        """Place and times (ns UTC) are filled, and it ended after it started."""
        outcome = driver.outcome(driver.submit(calls.nothing))
        assert outcome.place is not None
        assert outcome.place.executor == driver.executor.label
        assert 0 < outcome.started_ns <= outcome.ended_ns

    # -- failures

    def test_an_exception_keeps_its_type_and_text(self, driver: Driver) -> None:
        """An exception that pickles comes back as itself, as APP_ERROR."""
        outcome = driver.outcome(driver.submit(calls.fail, "no luck"))
        assert outcome.verdict is Verdict.APP_ERROR
        assert isinstance(outcome.error, ValueError)
        assert "no luck" in str(outcome.error)

    def test_an_exception_keeps_its_cause(self, driver: Driver) -> None:
        """``raise ... from`` is kept across processes."""
        error = driver.outcome(driver.submit(calls.fail_chained)).error
        assert isinstance(error, RuntimeError)
        assert isinstance(error.__cause__, KeyError)

    @pytest.mark.parametrize("function", [calls.fail_stubbornly, calls.fail_with_lock])
    def test_an_exception_that_cannot_travel_is_still_an_outcome(
        self, driver: Driver, function: Callable[[], None]
    ) -> None:
        """Neither an exception that does not pickle nor one that does not unpickle stops the executor."""
        outcome = driver.outcome(driver.submit(function))
        assert outcome.verdict is Verdict.APP_ERROR
        assert outcome.error is not None
        self._still_works(driver)

    def test_a_value_that_cannot_travel_is_still_an_outcome(self, driver: Driver) -> None:
        """A result that does not pickle is an APP_ERROR where tasks run in other processes."""
        outcome = driver.outcome(driver.submit(calls.return_lock))
        # In the same process a lock is a value like others.
        assert outcome.verdict in ((Verdict.APP_ERROR,) if self.isolates_tasks else (Verdict.OK, Verdict.APP_ERROR))
        self._still_works(driver)

    def test_an_argument_that_cannot_travel_is_refused_not_raised(self, driver: Driver) -> None:
        """REFUSED through the listener, since ``submit`` must not raise for a call."""
        outcome = driver.outcome(driver.submit(calls.echo, threading.Lock()))
        if self.isolates_tasks:
            assert outcome.verdict is Verdict.REFUSED
            assert outcome.error is not None
        else:
            assert outcome.verdict in (Verdict.OK, Verdict.REFUSED)
        self._still_works(driver)

    @pytest.mark.parametrize("function", [calls.exit_system, calls.interrupt])
    def test_what_is_no_exception_is_still_an_outcome(self, driver: Driver, function: Callable[[], None]) -> None:
        """A task that raises SystemExit or KeyboardInterrupt has an outcome, and the executor goes on."""
        outcome = driver.outcome(driver.submit(function))
        assert outcome.verdict in ((Verdict.APP_ERROR,) if self.survives_exit else (Verdict.APP_ERROR, Verdict.LOST))
        self._still_works(driver)

    def test_a_task_that_kills_its_worker_is_lost_and_the_loss_is_told(self, driver: Driver) -> None:
        """LOST with a reason, and the worker is replaced."""
        if not self.isolates_tasks:
            pytest.skip("tasks run in this process")
        outcome = driver.outcome(driver.submit(calls.kill_self))
        assert outcome.verdict is Verdict.LOST
        assert outcome.loss is not None
        assert outcome.loss.reason
        self._still_works(driver)

    def test_walltime_ends_a_task(self, driver: Driver) -> None:
        """A task that sleeps beyond its walltime fails with AppTimeout."""
        if not self.interrupts:
            pytest.skip("this executor cannot interrupt")
        # 0.2 s: long enough for a task to begin, short for a test.
        call = Call(calls.hold, (str(driver.gates), "slow"), spec=TaskSpec(walltime_s=0.2))
        outcome = driver.outcome(driver.submit_call(call))
        assert outcome.verdict is Verdict.APP_ERROR
        assert isinstance(outcome.error, AppTimeout)
        self._still_works(driver)

    def test_environment_is_the_tasks_own(self, driver: Driver) -> None:
        """Variables of a spec are set for its task and gone for the next one."""
        spec = TaskSpec(environment=(("FLOW_CONTRACT", "yes"),))
        key = driver.submit_call(Call(calls.environment, ("FLOW_CONTRACT",), spec=spec))
        if self.isolates_tasks:
            assert driver.outcome(key).value == "yes"
        # The next task of the same worker must not see it.
        assert driver.outcome(driver.submit(calls.environment, "FLOW_CONTRACT")).value is None

    # -- what a task asks for

    def test_what_it_honours_is_named(self, driver: Driver) -> None:
        """``honours`` holds names that a task may ask for, and what is done where each task runs is among them."""
        assert isinstance(driver.executor.honours, frozenset)
        assert set(TASK_FIELDS) >= driver.executor.honours >= HONOURED_BY_ALL

    def test_a_declared_priority_is_kept(self, driver: Driver) -> None:
        """Of tries that wait, those of higher priority start first, if the executor honours priorities."""
        if "priority" not in driver.executor.honours:
            pytest.skip("this executor honours no priorities: the kernel refuses tasks that have one")
        held = [f"held-{number}" for number in range(self.slots)]
        holders = [driver.hold(name) for name in held]
        driver.executor.flush()
        for name in held:
            driver.wait_held(name)
        low, high = (
            [driver.submit_call(Call(calls.nothing, spec=TaskSpec(priority=one))) for _ in range(3 * self.slots)]
            for one in (1, 5)
        )
        driver.executor.flush()
        driver.release()
        driver.outcomes(holders)
        outcomes = driver.outcomes([*low, *high])
        order = [one.key for one in sorted(outcomes, key=lambda one: one.started_ns)]
        # What is about to be sent when the slots become free may go as it stands.
        assert set(order[: self.slots]) <= set(high)

    def test_declared_cores_are_the_tasks_own(self, tmp_path: Path) -> None:
        """Two tries that each ask for all cores do not run at the same time, if the executor honours cores."""
        executor, cores = self.make_wide()
        if "cores" not in executor.honours:
            pytest.skip("this executor honours no cores: the kernel refuses tasks that ask for them")
        driver = Driver(executor, tmp_path, self.timeout_s)
        driver.start()
        try:
            call = Call(calls.hold, (str(driver.gates), "wide"), spec=TaskSpec(Resources(cores=cores)))
            keys = [driver.submit_call(call) for _ in range(2)]
            driver.executor.flush()
            driver.wait_held("wide")
            driver.release()
            one, other = driver.outcomes(keys)
        finally:
            driver.shutdown()
        assert {one.verdict, other.verdict} == {Verdict.OK}
        assert other.started_ns >= one.ended_ns or one.started_ns >= other.ended_ns

    # -- threads and re-entrance

    def test_many_threads_may_submit_at_once(self, driver: Driver) -> None:
        """Four threads submit; every key has its outcome."""
        keys: list[TryKey] = []

        def run() -> None:
            """Submit 25 calls, among those of three other threads."""
            keys.extend([driver.submit(calls.double, number) for number in range(25)])

        threads = [threading.Thread(target=run, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.timeout_s)
        assert len(keys) == 100
        assert {outcome.verdict for outcome in driver.outcomes(keys)} == {Verdict.OK}

    def test_a_report_may_submit_cancel_and_look(self, driver: Driver) -> None:
        """The listener may call the executor from inside a report without a deadlock."""
        left = iter(range(10))

        def next_one(outcomes: Sequence[Outcome]) -> None:
            """Do from inside a report all that a kernel may do there."""
            for outcome in outcomes:
                driver.executor.load()
                driver.executor.cancel([outcome.key])
                if next(left, None) is not None:
                    driver.submit(calls.nothing)

        driver.listener.on_finished = next_one
        driver.submit(calls.nothing)
        driver.executor.flush()
        assert driver.listener.wait_until(lambda: len(driver.listener.outcomes) == 11, self.timeout_s)

    def test_starts_are_told_once_and_with_their_place(self, driver: Driver) -> None:
        """A start is reported at most once a try, with the executor's label."""
        keys = [driver.submit(calls.nothing) for _ in range(10)]
        driver.outcomes(keys)
        for reports in list(driver.listener.starts.values()):
            assert len(reports) == 1
            assert reports[0][1].executor == driver.executor.label

    # -- load

    def test_load_counts_what_is_outstanding(self, driver: Driver) -> None:
        """Waiting and running together are the tries without outcome, and come down to 0."""
        held = [f"held-{number}" for number in range(self.slots)]
        keys = [driver.hold(name) for name in held]
        driver.executor.flush()
        for name in held:
            driver.wait_held(name)
        keys += [driver.submit(calls.nothing) for _ in range(3)]
        load = driver.executor.load()
        # The sum alone: whether a try that was just begun counts as waiting or running is the executor's.
        assert load.waiting + load.running == len(keys)
        assert load.slots == self.slots
        driver.release()
        driver.outcomes(keys)
        driver.poll(
            lambda: (driver.executor.load().waiting, driver.executor.load().running) == (0, 0),
            "load did not come down to nothing",
        )

    # -- why

    def test_what_waits_and_what_runs_is_explained(self, driver: Driver) -> None:
        """``why_waiting`` gives at least one cause for each outstanding try."""
        holders, waiting = self._filled(driver)
        for key in [*holders, *waiting]:
            causes = driver.executor.why_waiting(key, timeout_s=self.timeout_s)
            assert causes
            assert all(cause.text for cause in causes)
        kinds = {cause.kind for cause in driver.executor.why_waiting(waiting[-1], timeout_s=self.timeout_s)}
        # All slots are held, so the last one cannot run.
        assert CauseKind.RUNNING not in kinds
        driver.release()
        driver.outcomes(holders + waiting)

    def test_what_is_not_here_is_not_explained(self, driver: Driver) -> None:
        """No cause for tries that ended, that never were, or after shutdown."""
        key = driver.submit(calls.nothing)
        driver.outcome(key)
        assert list(driver.executor.why_waiting(key)) == []
        assert list(driver.executor.why_waiting(TryKey(987654321))) == []
        driver.shutdown()
        assert list(driver.executor.why_waiting(key)) == []

    # -- cancel

    def test_a_waiting_try_is_cancelled(self, driver: Driver) -> None:
        """A try that has not started ends as CANCELLED, and others are left alone."""
        holders, waiting = self._filled(driver)
        driver.executor.cancel(
            waiting[-1:]
        )  # the last: the first may be where nobody gets at them, as in a stdlib pool
        assert driver.outcome(waiting[-1]).verdict is Verdict.CANCELLED
        driver.release()
        assert {outcome.verdict for outcome in driver.outcomes(holders + waiting[:-1])} == {Verdict.OK}

    def test_what_is_said_of_a_withdrawn_try_is_true(self, driver: Driver) -> None:
        """A try that runs is never called withdrawn, and one that is called running is not cancelled."""
        holders, waiting = self._filled(driver)
        answers = {key: driver.executor.withdraw(key) for key in (*waiting[-1:], *holders)}
        driver.release()
        verdicts = {outcome.key: outcome.verdict for outcome in driver.outcomes(holders + waiting)}
        assert all(verdicts[key] is Verdict.OK for key, answer in answers.items() if answer is False)
        assert all(verdicts[key] is Verdict.CANCELLED for key, answer in answers.items() if answer is True)
        assert True not in {answers[key] for key in holders}

    def test_cancelling_twice_gives_one_outcome(self, driver: Driver) -> None:
        """A second request adds no second outcome; ``driver`` checks that."""
        keys = [driver.submit(calls.nothing) for _ in range(20)]
        for _ in range(2):
            driver.executor.cancel(keys)
        driver.outcomes(keys)

    def test_cancelling_what_runs_without_kill_lets_it_run(self, driver: Driver) -> None:
        """Without ``kill`` a try that runs may end well."""
        key = driver.hold("held")
        driver.executor.flush()
        driver.wait_held("held")
        driver.executor.cancel([key])
        driver.release()
        # The executor may not know yet that the try runs.
        assert driver.outcome(key).verdict in (Verdict.OK, Verdict.CANCELLED)

    def test_cancelling_what_runs_with_kill_ends_it_where_that_is_possible(self, driver: Driver) -> None:
        """With ``kill`` it ends as CANCELLED where ``kills_started`` says so."""
        key = driver.hold("held")
        driver.executor.flush()
        driver.wait_held("held")
        driver.executor.cancel([key], kill=True)
        if not self.kills_started:
            driver.release()
        assert driver.outcome(key).verdict in (
            (Verdict.CANCELLED,) if self.kills_started else (Verdict.OK, *_NOT_STARTED)
        )
        self._still_works(driver)

    def test_cancelling_unknown_or_finished_tries_does_nothing(self, driver: Driver) -> None:
        """Such keys are ignored, and so is an empty list."""
        key = driver.submit(calls.nothing)
        driver.outcome(key)
        driver.executor.cancel([key, TryKey(987654321)])
        driver.executor.cancel([key, TryKey(987654321)], kill=True)
        driver.executor.cancel([])
        self._still_works(driver)

    # -- life and end

    def test_nothing_is_taken_before_start(self, tmp_path: Path) -> None:
        """``submit`` raises ExecutorClosed, and the key gets no outcome."""
        driver = Driver(self.make_executor(), tmp_path, self.timeout_s)
        with pytest.raises(ExecutorClosed):
            driver.submit(calls.nothing)
        driver.check()

    def test_shutdown_before_start_is_fine(self, tmp_path: Path) -> None:
        """There is nothing to end, and nothing is raised."""
        driver = Driver(self.make_executor(), tmp_path, self.timeout_s)
        driver.shutdown()
        driver.check()

    def test_nothing_is_taken_after_shutdown(self, driver: Driver) -> None:
        """``submit`` raises ExecutorClosed; the other calls do nothing."""
        driver.shutdown()
        with pytest.raises(ExecutorClosed):
            driver.submit(calls.nothing)
        driver.executor.cancel(driver.keys)
        driver.executor.flush()
        driver.executor.load()

    def test_shutdown_gives_every_try_left_an_outcome_before_it_returns(self, driver: Driver) -> None:
        """All outcomes are there when ``shutdown`` returns; none of them is OK for a task that was held."""
        held = [f"held-{number}" for number in range(self.slots)]
        holders = [driver.hold(name) for name in held]
        driver.executor.flush()
        for name in held:
            driver.wait_held(name)
        waiting = [driver.submit(calls.nothing) for _ in range(10)]
        driver.shutdown(0.5)
        # Copied at once: what comes after shutdown has returned is too late.
        outcomes = dict(driver.listener.outcomes)
        assert set(outcomes) == set(holders + waiting)
        assert {outcomes[key][0].verdict for key in waiting} <= set(_NOT_STARTED)
        assert Verdict.OK not in {outcomes[key][0].verdict for key in holders}

    def test_shutdown_twice_is_once(self, driver: Driver) -> None:
        """The second call returns without an error."""
        key = driver.submit(calls.nothing)
        driver.outcome(key)
        driver.shutdown()
        driver.shutdown()

    def test_it_can_be_started_again(self, driver: Driver) -> None:
        """``start`` is legal after ``shutdown``."""
        driver.outcome(driver.submit(calls.nothing))
        driver.shutdown()
        driver.start()
        self._still_works(driver)

    def test_any_order_of_calls_gives_exactly_one_outcome_a_key(self) -> None:
        """Random orders of all operations, derandomized: the promise holds in each."""

        @self.random_order_settings
        @given(_OPERATIONS)
        def run(operations: list[Operation]) -> None:
            """Play one example in a directory of its own."""
            with tempfile.TemporaryDirectory(prefix="flow-contract-") as directory:
                self._play(operations, Path(directory, "run"))

        run()

    def _filled(self, driver: Driver) -> tuple[list[TryKey], list[TryKey]]:
        """Hold all slots, and submit five tries that wait; return the keys of both."""
        held = [f"held-{number}" for number in range(self.slots)]
        holders = [driver.hold(name) for name in held]
        driver.executor.flush()
        for name in held:
            driver.wait_held(name)
        waiting = [driver.submit(calls.nothing) for _ in range(5)]
        driver.executor.flush()
        return holders, waiting

    def _play(self, operations: list[Operation], directory: Path) -> None:
        driver = Driver(self.make_executor(), directory, self.timeout_s)
        driver.start()
        open_now = True
        try:
            for number, (name, argument) in enumerate(operations):
                open_now = self._step(driver, open_now, name, argument, f"held-{number}")
        finally:
            driver.release()
            driver.shutdown()
        driver.check()

    def _step(self, driver: Driver, open_now: bool, name: str, argument: int, mark: str) -> bool:
        """Do one operation; return whether the executor is open after it."""
        executor, keys = driver.executor, driver.keys
        if name in ("quick", "fail", "hold"):
            known: dict[str, Callable[..., object]] = {"quick": calls.double, "fail": calls.fail, "hold": calls.hold}
            function = known[name]
            arguments: tuple[object, ...] = (str(driver.gates), mark) if name == "hold" else (argument,)
            if open_now:
                driver.submit(function, *arguments)
            else:
                with pytest.raises(ExecutorClosed):
                    driver.submit(function, *arguments)
        elif name in ("cancel", "kill"):
            executor.cancel(keys[argument : argument + 3], kill=name == "kill")
        elif name == "release":
            driver.release(f"held-{argument}")
        elif name == "wait" and keys:
            key = keys[argument % len(keys)]
            executor.flush()
            # A short wait that need not succeed: the task may be held. It lets things happen between operations.
            driver.listener.wait_until(lambda: key in driver.listener.outcomes, 0.05)
        elif name == "flush":
            executor.flush()
        elif name == "shutdown":
            driver.shutdown(0.2)
            return False
        elif name == "start" and not open_now:
            driver.start()
            return True
        return open_now

    def _still_works(self, driver: Driver) -> None:
        outcome = driver.outcome(driver.submit(calls.double, 21))
        assert (outcome.verdict, outcome.value) == (Verdict.OK, 42)

"""Task graph and task state machine: events in, effects out.

No thread, lock, clock, file or future is touched here. The shell (``flow_core.kernel``) calls one method at a time
under its lock, then carries out the effects that came of it, and reports back with further events. Events that arrive
too late (their task has ended, their try is not known) change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flow_core.errors import MissingInputs, Requeue, TaskLost
from flow_core.graph.dependency_edges import DependencyEdges
from flow_core.graph.effects import LAUNCH, PLACE, PREPARE, STAGE_OUT, Effect, Failure
from flow_core.graph.failures import (
    after_retries,
    cancellation,
    circle_error,
    dependency_error,
    halted_error,
    is_final,
    join_error,
    named_timeout,
    other_version,
)
from flow_core.graph.growth import ran_out_of
from flow_core.graph.retry import Budgets, RetryUsage
from flow_core.graph.single_flight import InFlightCalls, digest_of, is_part_of
from flow_core.graph.states import (
    CANCELLED,
    DEP_FAIL,
    EXEC_DONE,
    FAIL_RETRYABLE,
    FAILED,
    FOLLOWING,
    JOINING,
    LAUNCHED,
    MEMO_DONE,
    PENDING,
    RUNNING,
    STAGING,
    State,
    illegal,
)
from flow_core.guard import is_a
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.outcome import (
    Loss,
    LossKind,
    Outcome,
    Place,
    Verdict,
    read_before,
    without_found,
    without_read,
)

if TYPE_CHECKING:
    from flow_core.graph.effects import Effects
    from flow_core.graph.task import SharedParents, Task

EPOCH_SHIFT = 44  # bits: 20 remain for the kernel of the process, 44 for the tries of one kernel
_NODES_MATTER = (Verdict.APP_ERROR, Verdict.LOST)
_OK = Verdict.OK  # a global: in Python 3.11 a member costs 70 ns through its class, a global 8, for each task


class GraphCore:
    """All unfinished tasks of a kernel, and all rules about them.

    Attributes:
        live: Unfinished tasks by id.
        tries: Tasks by the key of the try that is out.
        budgets: Failures that each task may spend.
        effects: Orders to the shell, which takes the list and leaves an empty one.
        ended: Tasks that ended, whose futures the shell must settle before anybody else sees the graph; the same.
        counts: Ended tasks by final state.
        dropped: Outcomes of unknown keys.
        unused: Values and errors that came too late, or of tries that are made again; the shell takes the list.
        verbose: Whether CHANGED (for more than a failed try), TRY_STARTED and TRY_ENDED effects are wanted.
        halted: With eager errors, the first failure.
        closing: Whether the run ends: nothing is begun any more.
        versions: Versions of files that nodes have brought in, by ``Staging.pin``: the first one reported.
        in_order: Puts several failures of what a task waited for into the order in which it named them; may be set.
    """

    def __init__(self, budgets: Budgets, *, epoch: int = 1, lazy_errors: bool = True, asks_price: bool = False) -> None:
        """Start with an empty graph.

        Args:
            budgets: Failures that each task may spend.
            epoch: The upper 20 bits of all try keys.
            lazy_errors: Whether independent tasks go on when one fails.
            asks_price: Whether failures are priced by the shell (a retry handler) or cost 1.
        """
        self.live: dict[int, Task] = {}
        self.tries: dict[int, Task] = {}
        self.effects: Effects = []
        self.ended: list[Task] = []
        self.counts: dict[State, int] = {state: 0 for state in State if state.final}
        self.dropped = 0
        self.unused: list[object] = []
        self.verbose = False
        self.halted: Failure | None = None
        self.versions: dict[str, str] = {}
        self.closing = False
        self.in_order: Callable[[Task, Sequence[Failure]], Sequence[Failure]] = _as_they_came
        self.budgets = budgets
        self._lazy_errors = lazy_errors
        self._asks_price = asks_price
        self._in_flight = InFlightCalls()
        self._last_key = epoch << EPOCH_SHIFT
        self._edges = DependencyEdges(self._unblocked)

    # -- a task comes in

    def meeting(self, given: tuple[SharedParents, Sequence[Task]]) -> None:
        """Take shared parents and the unfinished tasks that they stand for."""
        junction, parents = given
        self._edges.add(parents, junction)
        # All parents may have ended between the look at them, without the lock, and this event.
        if not junction.waiting:
            self._edges.open(junction)

    def submitted(self, given: tuple[Task, Sequence[Task | SharedParents], int, Sequence[Failure]]) -> None:
        """Take a new task: its unfinished parents, how many foreign futures it waits for, and failures so far."""
        task, parents, foreign, failures = given
        self.live[task.tid] = task
        task.waiting = foreign
        if failures:
            task.more().failures.extend(failures)
        self._edges.add(parents, task)
        if task.waiting:
            self._move(task, PENDING)
        else:
            self._unblocked(task)

    def submitted_placed(self, task: Task) -> None:
        """Take a new task that waits for nothing and has its executor already."""
        self.live[task.tid] = task
        if self.halted is None and not self.closing:
            self._launch(task)
        else:
            self._unblocked(task)

    def foreign_done(self, given: tuple[Task, Failure | None]) -> None:
        """Count off a future that is done and is no task of this graph."""
        task, failure = given
        if not task.state.final:
            self._edges.parent_done(task, failure)

    def keyed(self, task: Task) -> None:
        """Take the key of a cached call: it follows an identical call in flight, or leads."""
        if task.state.final:
            return
        digest = digest_of(task)
        leader = self._in_flight.leader(digest)
        if leader is None:
            self._in_flight.lead(digest, task)
            task.more().leads = True
            self.effects.append((Effect.LOOK_UP, task, None))
        elif is_part_of(task, leader):  # waiting for it would be waiting for itself
            self.effects.append((PLACE, task, None))
        else:
            self._in_flight.follow(digest, task)
            if task.state is not PENDING:
                self._move(task, PENDING)

    def remembered(self, given: tuple[Task, object]) -> None:
        """End a cached call whose result was found."""
        task, value = given
        if task.state.final:
            self.unused.append(value)
        else:
            self._end(task, MEMO_DONE, value)

    # -- a try is made

    def staging(self, task: Task) -> None:
        """Note that the files of a task are being brought in."""
        if not task.state.final:
            self._move(task, STAGING)

    def staged(self, given: tuple[Task, BaseException | None]) -> None:
        """Begin a task whose files are in, or charge it with the error of the transfer."""
        task, error = given
        if task.state is not STAGING:
            return
        if error is None:
            self._begin(task)
        else:
            self._failed_try(task, error)

    def placed(self, task: Task) -> None:
        """Begin a task that has its executor and needs no staging."""
        if task.state < EXEC_DONE:
            self._begin(task)

    def unplaced(self, given: tuple[Task, BaseException]) -> None:
        """Fail a task that cannot be prepared, or that no executor can take."""
        task, error = given
        if not task.state.final:
            self._end(task, FAILED, error=error)

    def not_launched(self, given: tuple[Task, int, BaseException]) -> None:
        """Try a task elsewhere whose executor did not take it, being closed or broken."""
        task, key, error = given
        # An executor may report a try and raise as well: only the first of the two counts.
        if self.tries.get(key) is task:
            self._refused(task, Outcome(TryKey(key), Verdict.REFUSED, error=error))

    # -- a try is reported

    def started(self, tries: Sequence[tuple[TryKey, int, Place]]) -> None:
        """Note that tries began to run; place and time stay with their tasks."""
        for start in tries:
            task = self.tries.get(start[0])
            # A start may be known before its report comes: ``cancel_task`` asks the executor and notes it.
            if task is not None and task.state is LAUNCHED:
                task.started = True
                task.start = start
                task.state = RUNNING
                if self.verbose:
                    self.effects.append((Effect.TRY_STARTED, task, start[1:]))

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """Take the outcomes of tries: end their tasks, or have these tried again."""
        for outcome in outcomes:
            task = self.tries.pop(outcome.key, None)
            if task is None:
                self.dropped += 1
                self.unused.append(outcome)
                continue
            if self.verbose:
                self.effects.append((Effect.TRY_ENDED, task, outcome))
            if outcome.verdict is _OK:
                task.key = 0
                # Most tasks have no details, and nothing but their value matters then.
                if task.details is None:
                    self._end(task, EXEC_DONE, outcome.value)
                else:
                    self._returned_value(task, outcome)
            else:
                self._went_wrong(task, outcome)

    def priced(self, given: tuple[Task, float, BaseException]) -> None:
        """Charge a task with the cost of a failure, as the retry handler or the kernel gave it."""
        task, cost, error = given
        if not task.state.final:
            self._charge(task, cost, error)

    # -- a try went well

    def joining_parts(self, given: tuple[Task, Sequence[Task]]) -> None:
        """Fail a join whose body returned parts of results of these unfinished tasks, if one of them waits for it."""
        task, whole = given
        # Parts of results (future["key"]) are no tasks, so no edge shows the circle: it would wait for ever.
        circle = None if task.state.final else self._edges.circle(task, whole)
        if circle is not None:
            self._end(task, FAILED, error=circle_error(task, circle))

    def joining(self, given: tuple[Task, Sequence[Task], int, Sequence[Failure]]) -> None:
        """Let a join wait for what its body returned: unfinished tasks, a count of foreign futures, failures so far."""
        task, parents, foreign, failures = given
        if task.state.final:
            return
        circle = self._edges.circle(task, parents)
        if circle is not None:
            self._end(task, FAILED, error=circle_error(task, circle))
            return
        self._move(task, JOINING)
        task.waiting = foreign
        task.more().failures.extend(failures)
        self._edges.add(parents, task)
        if not task.waiting:
            self._unblocked(task)

    def joined(self, given: tuple[Task, object]) -> None:
        """Take the value of a join, in which the results of its futures are in their places."""
        task, value = given
        if task.state.final:
            self.unused.append(value)
        else:
            self._publish(task, value)

    def failed(self, given: tuple[Task, BaseException]) -> None:
        """Fail a task for a reason that another try would not change."""
        task, error = given
        if task.state.final:
            self.unused.append(error)
        else:
            self._end(task, FAILED, error=error)

    def publishing(self, task: Task) -> None:
        """Note that the outputs of a task are being brought out."""
        if not task.state.final:
            self._move(task, STAGING)

    def published(self, given: tuple[Task, object, BaseException | None]) -> None:
        """End a task whose result is stored and whose outputs are out; with an error, charge it with that."""
        task, value, error = given
        if task.state.final:
            self.unused.append((value, error))
            return
        if error is None:
            self._end(task, EXEC_DONE, value)
        else:
            self._failed_try(task, error)

    # -- from outside

    def leader_of(self, task: Task) -> Task | None:
        """Return the identical call in flight that a cached call follows, if it follows one."""
        details = task.details
        if details is None or details.memo_key is None or details.leads:
            return None
        return self._in_flight.followed(digest_of(task), task)

    @property
    def tries_made(self) -> int:
        """Number of tries made so far, of all tasks."""
        return self._last_key & ((1 << EPOCH_SHIFT) - 1)

    def cancel(self, task: Task, kill: bool = False) -> bool:
        """Cancel a task unless it has started; return whether it is cancelled, or surely will end so.

        Files that are being brought in are stopped with it; those brought out, after its function, only with ``kill``.

        Its try is fenced at once: whatever comes of it is dropped. With ``kill`` the executor of a started one is asked
        to end it; where that is in the executor's power, the task ends as cancelled when it has, whatever came of it.
        """
        if task.state.final:
            return task.state is CANCELLED
        if not task.started:
            if kill and task.key and task.details is not None and task.details.replaced and self._kill(task):
                task.details.promised = True  # it may have begun without a word so far, and write to its outputs
                return True
            if task.key:
                self.effects.append((Effect.CANCEL, task, (task.executor, TryKey(task.key), kill)))
            self._end(task, CANCELLED, error=cancellation(task))
            return True
        if not kill:
            return False
        if task.state in (JOINING, STAGING):  # its function has returned: nothing of it runs
            self._end(task, CANCELLED, error=cancellation(task))
            return True
        if task.key and self._kill(task):
            task.more().promised = True
            return True
        return False

    def _kill(self, task: Task) -> bool:
        """Ask the executor of a started task to end it; return whether it can."""
        task.more().killed = True
        self.effects.append((Effect.CANCEL, task, (task.executor, TryKey(task.key), True)))
        return task.executor is not None and task.executor.kills

    def close(self, _given: None = None) -> None:
        """Cancel everything, started or not; from now on nothing is begun, and what cannot go on is cancelled."""
        self.closing = True
        # A copy: each end takes its task, and what waited for it, out of ``live``.
        for task in list(self.live.values()):
            if task.started and task.key:
                self._kill(task)  # if it ends well before that, its result counts
            else:
                self.cancel(task, kill=True)

    def abandon(self, _given: None = None) -> None:
        """End every unfinished task as cancelled, whatever it is doing."""
        for task in list(self.live.values()):
            if not task.state.final:
                self._end(task, CANCELLED, error=cancellation(task))

    # -- how: towards a launch

    def _unblocked(self, task: Task) -> None:
        """Let a task go on that waits for nothing any more, or fail as its parents did."""
        # Failures come in the order in which parents end, other in each run; errors name them in that of the call.
        failures: Sequence[Failure] = task.details.failures if task.details is not None else ()
        if failures and len(failures) > 1:
            failures = self.in_order(task, failures)
        if self.closing:
            self._end(task, CANCELLED, error=cancellation(task))
        elif task.state is JOINING:
            if failures:
                self._end(task, FAILED, error=join_error(task, failures))
            else:
                self.effects.append((Effect.UNWRAP, task, None))
        elif failures:
            self._end(task, DEP_FAIL, error=dependency_error(task, failures))
        elif self.halted is not None:
            self._end(task, DEP_FAIL, error=halted_error(task, self.halted))
        else:
            self.effects.append((PREPARE, task, None))

    def _begin(self, task: Task) -> None:
        if self.closing:
            self._end(task, CANCELLED, error=cancellation(task))
        else:
            self._launch(task)

    def _launch(self, task: Task) -> None:
        if not FOLLOWING[task.state] >> LAUNCHED & 1:
            raise illegal(task.state, LAUNCHED)
        task.state = LAUNCHED
        # Keys are never used again, so an outcome that comes late cannot be taken for that of the next try.
        key: TryKey = self._last_key + 1  # type: ignore[assignment]  # to call TryKey costs 50 ns a task
        self._last_key = key
        task.key = key
        task.tries += 1
        task.started = False
        self.tries[key] = task
        self.effects.append((LAUNCH, task, key))

    # -- how: after a try

    def _returned_value(self, task: Task, outcome: Outcome) -> None:
        details = task.more()
        # ``cancel`` has returned True: the task ends as cancelled, though it was faster than its end.
        if details.promised:
            self.unused.append(outcome)
            self._end(task, CANCELLED, error=cancellation(task))
            return
        task.started = True
        details.started_ns, details.ended_ns = outcome.started_ns, outcome.ended_ns
        if details.joins:
            self.effects.append((Effect.JOIN, task, outcome.value))
        else:
            value, told = without_read(outcome.value)
            other = self._other_version(told) if told else None
            # Two tasks of one run would otherwise have worked with different contents of one URL.
            if other is not None:
                self.unused.append(outcome)
                self._failed_try(task, other_version(task, *other))
                return
            if details.inputs is not None:
                details.inputs.read.update(told)
            value, details.found = without_found(value)
            self._publish(task, value)

    def _other_version(self, versions: dict[str, str]) -> tuple[str, str, str] | None:
        """Keep the versions of files that a try was given, for all tasks that come.

        Returns:
            Name, version, and the other one that tasks were given before, of the first file that has such.
        """
        for name, version in versions.items():
            if "\n" not in name:  # it is that of a URL, for the keys of calls
                continue
            pinned = self.versions.setdefault(name, version)
            if pinned != version:
                return name, version, pinned
        return None

    def _publish(self, task: Task, value: object) -> None:
        details = task.details
        if details is not None and (details.memo_key is not None or details.stage_out is not None):
            self.effects.append((STAGE_OUT, task, value))
        else:
            self._end(task, EXEC_DONE, value)

    def _went_wrong(self, task: Task, outcome: Outcome) -> None:
        verdict = outcome.verdict
        task.key = 0
        killed = task.details is not None and task.details.killed
        promised = task.details is not None and task.details.promised
        # After a kill a loss is what was asked for. An error of the app may have come first, by itself: it is kept.
        if verdict is Verdict.CANCELLED or promised or (killed and verdict is not Verdict.APP_ERROR):
            self.unused.append(outcome)
            self._end(task, CANCELLED, error=cancellation(task))
            return
        if verdict is Verdict.REQUEUED:
            self._requeued(task, outcome.error)
            return
        place = outcome.place or (outcome.loss.place if outcome.loss is not None else None)
        if place is not None and place.node and verdict in _NODES_MATTER:
            self._spent(task).failed_on(place.node)
        if verdict is Verdict.APP_ERROR:
            error = outcome.error
            # Executors of users may forget it, and a future with neither value nor error would count as ended well.
            if error is None:
                error = RuntimeError(f"{task} failed without an exception")
            # A failed try has seen versions too: later tries are held to them.
            self._other_version(read_before(error))
            self._failed_try(task, named_timeout(task, error))
        elif verdict is Verdict.RETURNED:
            self._returned_unstarted(task)
        elif verdict is Verdict.REFUSED:
            self._refused(task, outcome)
        else:
            loss, error = outcome.loss or Loss(LossKind.EXECUTOR, outcome.place), outcome.error
            if loss.kind is LossKind.NODE and error is not None and not self._may_move(task):
                self._failed_try(task, named_timeout(task, error))  # what it failed of, not that it could not go on
                return
            self._lost(task, loss)

    def _may_move(self, task: Task) -> bool:
        """Whether a task that its node could not run may be tried on another one."""
        return task.app.rerun_on_loss and self._spent(task).losses < self.budgets.infrastructure_retries

    def _failed_try(self, task: Task, error: BaseException) -> None:
        if task.app.growth:
            self._note_ran_out(task, error)
        if (task.details is not None and task.details.killed) or is_final(error):
            self._end(task, FAILED, error=error)
        elif self._asks_price or is_a(error, MissingInputs):  # of which the graph cannot know whether they are anywhere
            self._move(task, FAIL_RETRYABLE)
            task.started = False
            self.effects.append((Effect.RETRY_COST, task, error))
        else:
            self._charge(task, 1.0, error)

    def _charge(self, task: Task, cost: float, error: BaseException) -> None:
        spent = self._spent(task)
        if spent.app_error(cost, self.budgets):
            self._again(task, error)
        else:
            self._end(task, FAILED, error=after_retries(error, spent.failures))

    def _note_ran_out(self, task: Task, failure: BaseException | Loss) -> None:
        what = ran_out_of(failure)
        if what:
            self._spent(task).out_of(what)

    def _lost(self, task: Task, loss: Loss) -> None:
        if task.app.growth:
            self._note_ran_out(task, loss)
        error = self._spent(task).loss(loss, self.budgets, task.app.rerun_on_loss, str(task))
        if error is None:
            self._again(task, loss)
        else:
            self._end(task, FAILED, error=error)

    def _returned_unstarted(self, task: Task) -> None:
        # It has not run, so no budget for failures pays; an executor that returns all it gets is bounded here.
        if self._spent(task).returned():
            self._move(task, PENDING)
            self._replace(task)
        else:
            error = TaskLost(f"{task} came back from its executor unstarted {task.tries} times: it can run nothing")
            self._end(task, FAILED, error=error)

    def _requeued(self, task: Task, reason: BaseException | None) -> None:
        # Its block ended, which no budget pays for; its node did nothing wrong, so it is not avoided.
        if self._spent(task).requeued():
            self._again(task, reason or Requeue(f"{task} was told that its block ends"))
        else:
            told = f"{task} was told in each of {task.tries} tries that its block ends: it never comes to an end"
            self._end(task, FAILED, error=TaskLost(told))

    def _refused(self, task: Task, outcome: Outcome) -> None:
        self.tries.pop(task.key, None)
        task.key = 0
        details = task.more()
        details.refused = outcome.error
        if task.executor is not None:
            details.refused_by.add(task.executor.label)
        # A refusal is free: the task goes to another of its executors, until all have refused it.
        self._move(task, PENDING)
        self._replace(task)

    def _again(self, task: Task, reason: BaseException | Loss) -> None:
        if task.state is not FAIL_RETRYABLE:
            self._move(task, FAIL_RETRYABLE)
        self.unused.append(reason)
        # Also without ``verbose``: each failed try is reported, in the log and to the sinks.
        self.effects.append((Effect.CHANGED, task, reason))
        self._replace(task)

    def _replace(self, task: Task) -> None:
        """Make another try, unless no new work is to be begun."""
        task.started = False
        if self.closing:
            self._end(task, CANCELLED, error=cancellation(task))
        elif self.halted is None:
            self.effects.append((PLACE, task, None))
        else:
            self._end(task, DEP_FAIL, error=halted_error(task, self.halted))

    def _spent(self, task: Task) -> RetryUsage:
        if task.spent is None:
            task.spent = RetryUsage()
        return task.spent

    # -- how: the end

    def _end(self, task: Task, state: State, value: object = None, error: BaseException | None = None) -> None:
        if not FOLLOWING[task.state] >> state & 1:
            raise illegal(task.state, state)
        if task.state is STAGING and state is not EXEC_DONE:
            self.effects.append((Effect.UNSTAGE, task, None))
        task.state = state
        task.value = value
        task.error = error
        del self.live[task.tid]
        if task.key:
            self.tries.pop(task.key, None)
            task.key = 0
        self.counts[state] += 1
        # The shell settles the future before the lock is free: graph and future never differ for other threads.
        self.ended.append(task)
        if task.details is not None and task.details.leads:
            self._land(task)
        if state is FAILED and not self._lazy_errors and self.halted is None:
            self._halt(task)
        if task.children is not None:
            # The list is taken off: a task that its user keeps must not keep all that came after it.
            children, task.children = task.children, None
            self._edges.spread(task, children)

    def _land(self, leader: Task) -> None:
        """End the flight of identical calls that this one led."""
        digest = digest_of(leader)
        leader.more().leads = False
        # These ends say nothing of the call itself, so followers must not share them: one of them leads next.
        gone = leader.state in (CANCELLED, DEP_FAIL) or is_a(leader.error, TaskLost)
        gone = gone or bool(leader.more().changed)  # it was another call than its key says
        if gone and (self.halted is not None or self.closing):
            # No new work is begun now, so there is no successor.
            for follower in self._in_flight.land(digest):
                self._replace(follower)  # which ends it
            return
        if gone:
            heir = self._in_flight.succeed(digest)
            if heir is not None:
                heir.more().leads = True
                self._replace(heir)
            return
        for follower in self._in_flight.land(digest):
            if leader.error is None:
                follower.more().found = leader.more().found
                self.effects.append((Effect.SHARE, follower, leader.value))
            else:
                self._end(follower, FAILED, error=leader.error)

    def _halt(self, task: Task) -> None:
        """The first failure, with eager errors: end everything that is not out yet."""
        assert task.error is not None
        self.halted = (str(task), task.error, task.future)
        for other in list(self.live.values()):
            # A task with a try out is left to end by itself: its function may already have done something.
            if not other.started and not other.key and not other.state.final:
                self._end(other, DEP_FAIL, error=halted_error(other, self.halted))

    def _move(self, task: Task, state: State) -> None:
        if not FOLLOWING[task.state] >> state & 1:
            raise illegal(task.state, state)
        task.state = state
        # The event of a failed try has its reason with it, so ``_again`` makes that one.
        if self.verbose and state is not FAIL_RETRYABLE:
            self.effects.append((Effect.CHANGED, task, None))


def _as_they_came(_task: Task, failures: Sequence[Failure]) -> Sequence[Failure]:
    return failures

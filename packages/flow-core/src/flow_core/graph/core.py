"""The task graph and the task state machine: events in, effects out.

No thread, lock, clock, file or future is touched here. The shell (``flow_core.kernel``) calls one method at a time
under its lock, then carries out the effects that came of it, and reports back with further events. Events that arrive
too late (their task has ended, their try is not known) change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flow_core.errors import DeadlockError, TaskLost
from flow_core.graph.edges import Edges
from flow_core.graph.effects import Effect, Effects, Failure
from flow_core.graph.failures import (
    cancellation,
    circle_error,
    dependency_error,
    halted_error,
    join_error,
    named_timeout,
)
from flow_core.graph.retry import Budgets, Spent
from flow_core.graph.single_flight import Flights, digest_of, is_part_of
from flow_core.graph.states import State, check_transition
from flow_core.guard import is_a
from flow_core.interfaces.call import TryKey
from flow_core.interfaces.outcome import Loss, LossKind, Outcome, Place, Verdict

if TYPE_CHECKING:
    from flow_core.graph.task import Junction, Task

EPOCH_SHIFT = 44


class Core:
    """All unfinished tasks of a kernel, and all rules about them.

    Attributes:
        live: Unfinished tasks by id.
        tries: Tasks by the key of the try that is out.
        budgets: What each task may spend on failures.
        effects: What the shell has to do; it takes the list and leaves an empty one.
        ended: Tasks that ended, whose futures the shell must settle before anybody else sees the graph; the same.
        counts: Ended tasks by final state.
        dropped: Outcomes of unknown keys.
        verbose: Whether CHANGED (for more than a failed try), TRY_STARTED and TRY_ENDED effects are wanted.
        halted: With eager errors, the first failure.
        closing: Whether the run ends: nothing is begun any more.
        in_order: Puts several failures of what a task waited for into the order in which it named them; may be set.
    """

    def __init__(self, budgets: Budgets, *, epoch: int = 1, lazy_errors: bool = True, asks_price: bool = False) -> None:
        """Start with an empty graph.

        Args:
            budgets: What each task may spend on failures.
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
        self.verbose = False
        self.halted: Failure | None = None
        self.closing = False
        self.in_order: Callable[[Task, Sequence[Failure]], Sequence[Failure]] = _as_they_came
        self.budgets = budgets
        self._lazy_errors = lazy_errors
        self._asks_price = asks_price
        self._flights = Flights()
        self._last_key = epoch << EPOCH_SHIFT
        self._edges = Edges(self._unblocked)

    # -- a task comes in

    def meeting(self, given: tuple[Junction, Sequence[Task]]) -> None:
        """Take a junction and the unfinished tasks that it stands for."""
        junction, parents = given
        self._edges.add(parents, junction)
        if not junction.waiting:
            self._edges.open(junction)

    def submitted(self, given: tuple[Task, Sequence[Task | Junction], int, Sequence[Failure]]) -> None:
        """Take a new task: its unfinished parents, how many foreign futures it waits for, and failures so far."""
        task, parents, foreign, failures = given
        self.live[task.tid] = task
        task.waiting = foreign
        if failures:
            task.more().failures.extend(failures)
        self._edges.add(parents, task)
        if task.waiting:
            self._move(task, State.pending)
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
        """A future that is no task of this graph is done."""
        task, failure = given
        if not task.state.final:
            self._edges.parent_done(task, failure)

    def keyed(self, task: Task) -> None:
        """A cached call has its key: follow an identical call in flight, or lead."""
        if task.state.final:
            return
        digest = digest_of(task)
        leader = self._flights.leader(digest)
        if leader is None:
            self._flights.lead(digest, task)
            task.more().leads = True
            self.effects.append((Effect.LOOK_UP, task, None))
        elif is_part_of(task, leader):  # waiting for it would be waiting for itself
            self.effects.append((Effect.PLACE, task, None))
        else:
            self._flights.follow(digest, task)
            if task.state is not State.pending:
                self._move(task, State.pending)

    def remembered(self, given: tuple[Task, object]) -> None:
        """The result of a cached call was found."""
        task, value = given
        if not task.state.final:
            self._end(task, State.memo_done, value)

    # -- a try is made

    def staging(self, task: Task) -> None:
        """The task's files are being brought in."""
        if not task.state.final:
            self._move(task, State.staging)

    def staged(self, given: tuple[Task, BaseException | None]) -> None:
        """The task's files are in, or could not be brought in."""
        task, error = given
        if task.state is not State.staging:
            return
        if error is None:
            self._begin(task)
        else:
            self._failed_try(task, error)

    def placed(self, task: Task) -> None:
        """The task has its executor and needs no staging."""
        if task.state < State.exec_done:
            self._begin(task)

    def unplaced(self, given: tuple[Task, BaseException]) -> None:
        """The task cannot be prepared, or no executor can take it."""
        task, error = given
        if not task.state.final:
            self._end(task, State.failed, error=error)

    def not_launched(self, given: tuple[Task, int, BaseException]) -> None:
        """An executor did not take a try: it is closed or broken."""
        task, key, error = given
        if self.tries.get(key) is task:
            self._refused(task, Outcome(TryKey(key), Verdict.REFUSED, error=error))

    # -- a try is reported

    def started(self, tries: Sequence[tuple[TryKey, int, Place]]) -> None:
        """Tries began to run."""
        for start in tries:
            task = self.tries.get(start[0])
            if task is not None and task.state is State.launched:
                task.started = True
                task.start = start
                task.state = State.running
                if self.verbose:
                    self.effects.append((Effect.TRY_STARTED, task, start[1:]))

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """Tries ended."""
        for outcome in outcomes:
            task = self.tries.pop(outcome.key, None)
            if task is None:
                self.dropped += 1
                continue
            if self.verbose:
                self.effects.append((Effect.TRY_ENDED, task, outcome))
            if outcome.verdict is Verdict.OK:
                task.key = 0
                if task.rare is None:
                    self._end(task, State.exec_done, outcome.value)
                else:
                    self._returned_value(task, outcome)
            else:
                self._went_wrong(task, outcome)

    def priced(self, given: tuple[Task, float, BaseException]) -> None:
        """The retry handler said what a failure costs."""
        task, cost, error = given
        if not task.state.final:
            self._charge(task, cost, error)

    # -- a try went well

    def joining_parts(self, given: tuple[Task, Sequence[Task]]) -> None:
        """Among the futures returned by a join body are parts of the results of these unfinished tasks."""
        task, whole = given
        circle = None if task.state.final else self._edges.circle(task, whole)
        if circle is not None:
            self._end(task, State.failed, error=circle_error(task, circle))

    def joining(self, given: tuple[Task, Sequence[Task], int, Sequence[Failure]]) -> None:
        """The futures returned by a join body are known: unfinished tasks, a count of foreign ones, failures."""
        task, parents, foreign, failures = given
        if task.state.final:
            return
        circle = self._edges.circle(task, parents)
        if circle is not None:
            self._end(task, State.failed, error=circle_error(task, circle))
            return
        self._move(task, State.joining)
        task.waiting = foreign
        task.more().failures.extend(failures)
        self._edges.add(parents, task)
        if not task.waiting:
            self._unblocked(task)

    def joined(self, given: tuple[Task, object]) -> None:
        """The results of the joined futures are in their place."""
        task, value = given
        if not task.state.final:
            self._publish(task, value)

    def failed(self, given: tuple[Task, BaseException]) -> None:
        """The task cannot go on, for a reason that another try would not change."""
        task, error = given
        if not task.state.final:
            self._end(task, State.failed, error=error)

    def publishing(self, task: Task) -> None:
        """The task's outputs are being brought out."""
        if not task.state.final:
            self._move(task, State.staging)

    def published(self, given: tuple[Task, object, BaseException | None]) -> None:
        """The result is stored and the outputs are out, or could not be brought out."""
        task, value, error = given
        if task.state.final:
            return
        if error is None:
            self._end(task, State.exec_done, value)
        else:
            self._failed_try(task, error)

    # -- from outside

    def leader_of(self, task: Task) -> Task | None:
        """Return the identical call in flight that a cached call follows, if it follows one."""
        rare = task.rare
        if rare is None or rare.memo_key is None or rare.leads:
            return None
        return self._flights.followed(digest_of(task), task)

    @property
    def tries_made(self) -> int:
        """How many tries were made so far, of all tasks."""
        return self._last_key & ((1 << EPOCH_SHIFT) - 1)

    def cancel(self, task: Task, kill: bool = False) -> bool:
        """Cancel a task unless it has started; tell whether it is cancelled, or surely will end so.

        Its try is fenced at once: whatever comes of it is dropped. With ``kill`` the executor of a started one is asked
        to end it; where that is in the executor's power, the task ends as cancelled when it has, whatever came of it.
        """
        if task.state.final:
            return task.state is State.cancelled
        if not task.started:
            if task.key:
                self.effects.append((Effect.CANCEL, task, (task.executor, task.key, kill)))
            self._end(task, State.cancelled, error=cancellation(task))
            return True
        if not kill:
            return False
        if task.state is State.joining:  # its body has returned: nothing of it runs
            self._end(task, State.cancelled, error=cancellation(task))
            return True
        if task.key and self._kill(task):
            task.more().promised = True
            return True
        return False

    def _kill(self, task: Task) -> bool:
        """Ask the executor of a started task to end it; tell whether it can."""
        task.more().killed = True
        self.effects.append((Effect.CANCEL, task, (task.executor, task.key, True)))
        return task.executor is not None and task.executor.kills

    def close(self, _given: object = None) -> None:
        """Cancel everything, started or not; from now on nothing is begun, and what cannot go on is cancelled."""
        self.closing = True
        for task in list(self.live.values()):
            if task.started and task.key:
                self._kill(task)  # what it still comes to counts
            else:
                self.cancel(task, kill=True)

    def abandon(self, _given: object = None) -> None:
        """End every unfinished task as cancelled, whatever it is doing."""
        for task in list(self.live.values()):
            if not task.state.final:
                self._end(task, State.cancelled, error=cancellation(task))

    # -- how: towards a launch

    def _unblocked(self, task: Task) -> None:
        """Nothing is waited for any more: go on, or fail as parents did."""
        failures: Sequence[Failure] = task.rare.failures if task.rare is not None else ()
        if failures and len(failures) > 1:
            failures = self.in_order(task, failures)
        if self.closing:
            self._end(task, State.cancelled, error=cancellation(task))
        elif task.state is State.joining:
            if failures:
                self._end(task, State.failed, error=join_error(task, failures))
            else:
                self.effects.append((Effect.UNWRAP, task, None))
        elif failures:
            self._end(task, State.dep_fail, error=dependency_error(task, failures))
        elif self.halted is not None:
            self._end(task, State.dep_fail, error=halted_error(task, self.halted))
        else:
            self.effects.append((Effect.PREPARE, task, None))

    def _begin(self, task: Task) -> None:
        if self.closing:
            self._end(task, State.cancelled, error=cancellation(task))
        else:
            self._launch(task)

    def _launch(self, task: Task) -> None:
        self._move(task, State.launched)
        self._last_key = key = self._last_key + 1
        task.key = key
        task.tries += 1
        task.started = False
        self.tries[key] = task
        self.effects.append((Effect.LAUNCH, task, key))

    # -- how: after a try

    def _returned_value(self, task: Task, outcome: Outcome) -> None:
        rare = task.more()
        if rare.promised:
            self._end(task, State.cancelled, error=cancellation(task))
            return
        task.started = True
        rare.started_ns, rare.ended_ns = outcome.started_ns, outcome.ended_ns
        if rare.joins:
            self.effects.append((Effect.JOIN, task, outcome.value))
        else:
            self._publish(task, outcome.value)

    def _publish(self, task: Task, value: object) -> None:
        rare = task.rare
        if rare is not None and (rare.memo_key is not None or rare.stage_out is not None):
            self.effects.append((Effect.PUBLISH, task, value))
        else:
            self._end(task, State.exec_done, value)

    def _went_wrong(self, task: Task, outcome: Outcome) -> None:
        verdict = outcome.verdict
        task.key = 0
        killed = task.rare is not None and task.rare.killed
        promised = task.rare is not None and task.rare.promised
        if verdict is Verdict.CANCELLED or promised or (killed and verdict is not Verdict.APP_ERROR):
            self._end(task, State.cancelled, error=cancellation(task))
        elif verdict is Verdict.APP_ERROR:
            error = outcome.error
            if error is None:
                error = RuntimeError(f"{task} failed without an exception")
            self._failed_try(task, named_timeout(task, error))
        elif verdict is Verdict.RETURNED:
            self._returned_unstarted(task)
        elif verdict is Verdict.REFUSED:
            self._refused(task, outcome)
        else:
            self._lost(task, outcome.loss or Loss(LossKind.EXECUTOR, outcome.place))

    def _failed_try(self, task: Task, error: BaseException) -> None:
        if (task.rare is not None and task.rare.killed) or is_a(error, DeadlockError):
            self._end(task, State.failed, error=error)  # the same waits in another try would end the same way
        elif self._asks_price:
            self._move(task, State.fail_retryable)
            task.started = False
            self.effects.append((Effect.PRICE, task, error))
        else:
            self._charge(task, 1.0, error)

    def _charge(self, task: Task, cost: float, error: BaseException) -> None:
        if self._spent(task).app_error(cost, self.budgets):
            self._again(task, error)
        else:
            self._end(task, State.failed, error=error)

    def _lost(self, task: Task, loss: Loss) -> None:
        error = self._spent(task).loss(loss, self.budgets, task.app.rerun_on_loss, str(task))
        if error is None:
            self._again(task, loss)
        else:
            self._end(task, State.failed, error=error)

    def _returned_unstarted(self, task: Task) -> None:
        if self._spent(task).returned():
            self._move(task, State.pending)
            self._replace(task)
        else:
            error = TaskLost(f"{task} came back from its executor unstarted {task.tries} times: it can run nothing")
            self._end(task, State.failed, error=error)

    def _refused(self, task: Task, outcome: Outcome) -> None:
        self.tries.pop(task.key, None)
        task.key = 0
        rare = task.more()
        rare.refused = outcome.error
        if task.executor is not None:
            rare.refused_by.add(task.executor.label)
        self._move(task, State.pending)
        self._replace(task)

    def _again(self, task: Task, reason: BaseException | Loss) -> None:
        if task.state is not State.fail_retryable:
            self._move(task, State.fail_retryable)
        self.effects.append((Effect.CHANGED, task, reason))
        self._replace(task)

    def _replace(self, task: Task) -> None:
        """Make another try, unless no new work is to be begun."""
        task.started = False
        if self.closing:
            self._end(task, State.cancelled, error=cancellation(task))
        elif self.halted is None:
            self.effects.append((Effect.PLACE, task, None))
        else:
            self._end(task, State.dep_fail, error=halted_error(task, self.halted))

    def _spent(self, task: Task) -> Spent:
        if task.spent is None:
            task.spent = Spent()
        return task.spent

    # -- how: the end

    def _end(self, task: Task, state: State, value: object = None, error: BaseException | None = None) -> None:
        check_transition(task.state, state)
        task.state = state
        task.value = value
        task.error = error
        del self.live[task.tid]
        if task.key:
            self.tries.pop(task.key, None)
            task.key = 0
        self.counts[state] += 1
        self.ended.append(task)
        if task.rare is not None and task.rare.leads:
            self._land(task)
        if state is State.failed and not self._lazy_errors and self.halted is None:
            self._halt(task)
        if task.children is not None:
            children, task.children = task.children, None
            self._edges.spread(task, children)

    def _land(self, leader: Task) -> None:
        """End the flight of identical calls that this one led."""
        digest = digest_of(leader)
        leader.more().leads = False
        gone = leader.state in (State.cancelled, State.dep_fail) or is_a(leader.error, TaskLost)
        gone = gone or bool(leader.more().changed)  # it was another call than its key says
        if gone and (self.halted is not None or self.closing):
            for follower in self._flights.land(digest):
                self._replace(follower)  # which ends it
            return
        if gone:
            heir = self._flights.succeed(digest)
            if heir is not None:
                heir.more().leads = True
                self._replace(heir)
            return
        for follower in self._flights.land(digest):
            if leader.error is None:
                self.effects.append((Effect.SHARE, follower, leader.value))
            else:
                self._end(follower, State.failed, error=leader.error)

    def _halt(self, task: Task) -> None:
        """The first failure, with eager errors: end everything that is not out yet."""
        assert task.error is not None
        self.halted = (str(task), task.error, task.future)
        for other in list(self.live.values()):
            if not other.started and not other.key and not other.state.final:
                self._end(other, State.dep_fail, error=halted_error(other, self.halted))

    def _move(self, task: Task, state: State) -> None:
        check_transition(task.state, state)
        task.state = state
        if self.verbose and state is not State.launched and state is not State.fail_retryable:
            self.effects.append((Effect.CHANGED, task, None))


def _as_they_came(_task: Task, failures: Sequence[Failure]) -> Sequence[Failure]:
    return failures

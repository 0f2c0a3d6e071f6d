"""The scaler of an executor's blocks: a thread that asks the core once a period, and carries out its decisions."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from flow_core.errors import ExecutorError, FlowError, ScalingFailed
from flow_core.guard import named, to_log
from flow_core.interfaces.context import RunContext
from flow_core.interfaces.events import BlockChanged, EventKind
from flow_core.interfaces.scaling import BlockInfo, BlockLimits
from flow_core.interfaces.waiting import Cause, duration
from flow_executors.common.unreached import NOT_REACHED
from flow_executors.scaling.block import Bounds
from flow_executors.scaling.block_jobs import BlockJobs
from flow_executors.scaling.failures import describe, failure_text, how, last_line
from flow_executors.scaling.host import BlockOwner
from flow_executors.scaling.job_hosts_core import JobHosts, Joined
from flow_executors.scaling.pending_reasons import block_causes
from flow_executors.scaling.scaling_core import Decision, ScalingCore
from flow_executors.scaling.strategies import StrategyCalls, strategy_of
from flow_providers.errors import HostsAway, ProviderError
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.interfaces.provider import ExecutionProvider

# Seconds between an event and the turn that it leads to, so that events which come together are answered together.
_POKED_S = 0.05
# Seconds between looks while blocks are given back: ``scale_in`` waits for it.
_RELEASING_POLL_S = 0.5
# Seconds between looks while blocks start: one that fails at once is replaced soon.
_STARTING_POLL_S = 1.0
# Seconds that managers have to come before somebody is told, and blocks of which that is told at once.
_LATE_S = 10.0
_LATE_AT_ONCE = 3
# Seconds that the removal of files on other machines has at the end, though the time is up.
_CLEAR_S = 2.0
# Seconds for which the end asks again for jobs that could not be ended: the reaper goes on when the script has ended.
_SILENT_S = 5.0
_MOST_NAMED = 16  # nodes of a job in a warning
_ENDED_WELL = (JobState.COMPLETED, JobState.CANCELLED, JobState.SCALED_IN)
# Least seconds between two turns, so that a deadline that has passed does not make the loop spin.
_SOONEST_S = 0.02


class Scaler:
    """Scales the blocks of one started executor. Any thread.

    Args:
        host: The executor.
        provider: Gives and takes jobs.
        context: Of the start.
        block_error_handler: True, None: tasks fail when blocks go on failing, see ``recovery.RecoveryPolicy``. False:
            they never do. Or the user's own, see ``failures.BlockErrorHandler``.
        slots_hint: Tasks that one block will run at once, where that is known before the first one connects.
        bounds: How long what does not work is borne with.
    """

    def __init__(
        self,
        host: BlockOwner,
        provider: ExecutionProvider,
        context: RunContext,
        block_error_handler: object = None,
        *,
        slots_hint: int = 0,
        bounds: Bounds | None = None,
    ) -> None:
        settings = context.scaling
        limits = BlockLimits(provider.init_blocks, provider.min_blocks, provider.max_blocks, provider.parallelism)
        strategy = strategy_of(settings.strategy)
        handler = True if block_error_handler is None else block_error_handler
        self._host = host
        self._context = context
        self._log: logging.Logger = context.logger
        self._advice = StrategyCalls(host.label, strategy, handler, context.logger)
        self._period_s = max(0.05, settings.period_s)
        self._core = ScalingCore(
            limits, strategy, settings.max_idletime_s, slots_per_block=slots_hint, bounds=bounds or Bounds()
        )
        self._core.recovery.jitter = random.random
        self._hosts = JobHosts()
        # Never held while a provider, a strategy or a handler is called: the receiver thread takes it for each manager
        # that joins or leaves, and all results would wait.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._poked = False
        self._stopped = False
        self._closed = False
        self._left_to_clear: list[str] = []  # jobs that ended well while the run was ending
        # Failures at the last verdict: the handler is asked again only after another one.
        self._judged = 0
        self._unknown = ""
        self._unknown_since = 0.0
        self._give_back: set[str] = set()
        self._moved = ""
        self._last_words = ""
        self._away = ""
        # Blocks that run and have no manager: when to look at their jobs' words again, and what these were.
        self._late: dict[str, tuple[float, str]] = {}
        self._cause: BaseException | None = None
        self.not_ended: tuple[str, ...] = ()
        """What ``close`` could not end: phrases that go on after "could not"."""
        self._jobs: BlockJobs | None = None
        self._make_jobs: Callable[[], BlockJobs] = lambda: BlockJobs(
            provider,
            label=host.label,
            run_id=context.run_id,
            run_dir=context.run_dir,
            executor_dir=context.executor_dir,
            logger=context.logger,
        )
        self._thread = threading.Thread(target=self._run, name=f"flow-scaling-{host.label}", daemon=True)

    # -- the executor's side

    def start(self) -> None:
        """Start the thread, which submits the first blocks. Does not block for a scheduler. Raises ExecutorError."""
        try:
            self._jobs = self._make_jobs()
        except ProviderError as error:
            raise ExecutorError(f"the provider of {self._host.label} cannot be used: {error}") from error
        self._thread.start()

    def scale_out(self, blocks: int = 1) -> Sequence[str]:
        """Submit blocks now and return their ids.

        Raises:
            ScalingFailed: the provider refused one; the cause is chained. Those submitted before stay.
        """
        names = []
        for _ in range(blocks):
            name, error = self._submit_one()
            if error is not None:
                raise ScalingFailed(f"no more blocks for {self._host.label}: {named(error)}") from error
            names.append(name)
        self._poke()
        return names

    def scale_in(self, blocks: int, max_idletime_s: float | None = None, timeout_s: float = 60.0) -> Sequence[str]:
        """Drain up to so many blocks that have nothing to do, and give them back; return their ids.

        Blocks for ``timeout_s`` at most; what is not drained by then goes on draining.
        """
        idle_s = 0.0 if max_idletime_s is None else max_idletime_s
        self._learn_activity()
        with self._lock:
            chosen = self._core.idlest(blocks, idle_s, time.monotonic())
        released = self._release(chosen, idle_s)
        self._poke()
        self._wait(lambda: all(self._core.blocks[name].ended for name in released), timeout_s)
        return released

    def joined(self, manager: Joined) -> None:
        """A manager of a block registered."""
        block = manager.block
        with self._lock:
            self._hosts.joined(manager)
            attempts = self._core.recovery.attempts
            self._core.joined(block, time.monotonic())
        if attempts:
            self._log.warning("%s has workers again: block %s connected", self._host.label, block)
        self._compare_hosts(block)
        self._poke()

    def left(self, block: str, reason: str) -> None:
        """A manager of a block is gone."""
        with self._lock:
            self._core.left(block, reason, time.monotonic())
        self._poke()

    def bar(self, names: Collection[str], give_back: Collection[str]) -> None:
        """All nodes of these blocks are held: they do not count. Some of them are to be drained and given back."""
        with self._lock:
            self._core.bar(names)
            self._give_back.update(give_back)
        self._poke()

    def blocks(self) -> dict[str, JobState]:
        """Return the state of every block so far."""
        with self._lock:
            return {name: block.status.state for name, block in self._core.blocks.items()}

    def infos(self) -> list[BlockInfo]:
        """Return all blocks so far, for people to look at."""
        now = time.monotonic()
        with self._lock:
            blocks = [replace(block) for block in self._core.blocks.values()]  # each as it is at this moment
        return [
            BlockInfo(
                block=one.name,
                job_id=one.job_id,
                state=one.status.state.name,
                reason=one.condemned or one.status.message or one.status.reason,
                active=one.active,
                managers=one.managers,
                age_s=now - one.submitted_at,
            )
            for one in blocks
        ]

    def counts(self) -> tuple[tuple[str, int], ...]:
        """Return the number of blocks in each state that occurs."""
        with self._lock:
            return self._core.counts()

    def why_waiting(self) -> list[Cause]:
        """Return why there are no more workers: blocks on their way, failed ones, the limit, what is amiss."""
        now = time.monotonic()
        with self._lock:
            notes = [text for text in (self._moved, self._advice.problem) if text]
            notes += self._advice.slow()
            notes += [] if self._jobs is None else self._jobs.slow()
            if self._unknown:
                since = duration(now - self._unknown_since)
                notes.append(f"the states of jobs have not been known for {since}: {self._unknown}")
            if self._last_words and self._core.recovery.attempts:
                notes.append(f"the last of these blocks that wrote to standard error ended with {self._last_words!r}")
            if (away_s := self._core.recovery.away_until - now) > 0:
                notes.append(f"{self._away}; tried again in {duration(away_s)}")
            notes += [
                f"block {name} runs, and no manager of it has reached this script{words and f': {words}'}"
                for name, (_, words) in list(self._late.items())[:_LATE_AT_ONCE]
            ]
            return block_causes(self._core, self._host.label, now, notes)

    @property
    def attempts(self) -> int:
        """Attempts to start a block that failed in a row; 0 once one has connected, or the tasks were told."""
        return self._core.recovery.attempts

    def job_ids(self) -> dict[str, str]:
        """Return the job's id of every block that was submitted."""
        with self._lock:
            return {name: block.job_id for name, block in self._core.blocks.items() if block.job_id}

    @property
    def slots_per_block(self) -> int:
        """Tasks that one block runs at once; 0 where not known yet."""
        return self._core.slots_per_block

    def stop(self) -> None:
        """Submit nothing more from now on; does not wait."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()

    def close(self, timeout_s: float) -> list[str]:
        """Cancel all jobs and end the thread; return what had to be forced. ``not_ended`` has the jobs. Idempotent."""
        deadline = time.monotonic() + timeout_s
        self.stop()
        with self._lock:
            if self._closed:
                return []
            self._closed = True
        left = []
        if self._thread.is_alive():
            self._thread.join(max(0.1, timeout_s / 2))
            if self._thread.is_alive():
                left.append(f"the scaling thread of {self._host.label} waits for its provider")
        # Also where the thread hangs in its provider: each call is made on a thread of its own, and jobs that are left
        # run on.
        self.not_ended = tuple(self._cancel_all(deadline))
        if self._jobs is not None and not left and not self.not_ended:
            self._jobs.close()  # else the reaper goes on cancelling when this process has ended
        return left

    # -- the thread

    def _run(self) -> None:
        while True:
            try:
                self._turn()
            except BaseException as error:
                self._turn_failed(error)
            with self._wake:
                if not self._poked and not self._stopped:
                    self._wake.wait(self._patience_s())
                self._poked = False
                if self._stopped:
                    return
            self._rest()

    def _turn_failed(self, error: BaseException) -> None:
        """Count a turn with an unexpected error as a failed attempt: else tasks would wait without end."""
        self._log.error("scaling of %s: this turn failed, the next one comes", self._host.label, exc_info=to_log(error))
        with self._lock:
            self._cause = error
            self._core.recovery.failed(f"scaling failed: {named(error)}", time.monotonic())

    def _patience_s(self) -> float:
        blocks = self._core.blocks.values()
        most = self._period_s
        if any(block.releasing_since is not None and not block.ended for block in blocks):
            most = min(most, _RELEASING_POLL_S)
        elif any(block.active and block.joined_at is None for block in blocks):
            most = min(most, _STARTING_POLL_S)  # a block that fails at its start is seen soon
        return max(_SOONEST_S, min(most, self._core.next_look_s(time.monotonic())))

    def _rest(self) -> None:
        """Let events that come together be answered together."""
        with self._wake:
            if not self._stopped:
                self._wake.wait(_POKED_S)

    def _turn(self) -> None:
        # The reaper first: it ends the jobs if this process dies in the midst of what follows.
        self._the_jobs().tend()
        self._look_at_home()
        self._learn_states()
        self._look_for_managers()
        self._learn_activity()
        load = self._host.load()  # not under the lock: it asks this object for the blocks
        with self._lock:
            load = self._core.in_slots(load)
            view = self._core.view(load, time.monotonic())
        change = self._advice.change(view)
        with self._lock:
            decision = self._core.decide(load, time.monotonic(), change)
        self._carry_out(decision)
        with self._lock:
            attempts = self._core.recovery.attempts
            hopeless = self._core.hopeless(time.monotonic()) and attempts > self._judged
            self._judged = min(self._judged, attempts)
        # who was told before is told again only if there is somebody to tell
        if hopeless and not self._advice.never_ends and (load.waiting or not self._core.recovery.told):
            self._judge()

    def _carry_out(self, decision: Decision) -> None:
        for name in decision.condemned:
            self._condemned(name)
        for name in decision.written_off:
            self._log.error(
                "job %s of block %s of %s could not be ended: it no longer counts, and may still run",
                self._core.blocks[name].job_id,
                name,
                self._host.label,
            )
        if decision.cancel:
            self._cancel(decision.cancel)
        for _ in range(decision.add):
            if self._stopped or self._submit_one()[1] is not None:
                break
        self._replace_barred()
        self._replace_short(decision.replace)
        if decision.release:
            self._release(decision.release, self._context.scaling.max_idletime_s)

    def _replace_barred(self) -> None:
        """Give blocks back whose nodes are held, so that others can come; what runs there has the time of a drain."""
        with self._lock:
            names = [name for name in self._give_back if (block := self._core.blocks.get(name)) and block.barred]
            self._give_back.clear()
        gone = self._release(names, None) if names else []
        if gone:
            self._log.info("blocks %s of %s are given back: their nodes are held", ", ".join(gone), self._host.label)

    def _replace_short(self, names: Sequence[str]) -> None:
        """Drain blocks that have lost nodes which tasks wait for; what runs there ends by itself."""
        for name in self._release(names, None) if names else []:
            with self._lock:
                self._core.finish(name, time.monotonic())
                block, lacking = self._core.blocks[name], self._core.lacking
                most = max(block.most, self._core.usual)
            self._log.warning(
                "block %s of %s (job %s) has %d of its %d managers left, and tasks wait for %d nodes of one block: it "
                "takes nothing new, and is replaced when what runs there is over",
                name,
                self._host.label,
                block.job_id,
                block.managers,
                most,
                max((nodes for nodes in lacking if nodes <= most), default=most),
            )

    def _condemned(self, name: str) -> None:
        """Report a block that is of no use, and keep its managers out."""
        block = self._core.blocks[name]
        label = self._host.label
        self._log.warning("block %s of %s (job %s) is given up: %s", name, label, block.job_id, block.condemned)
        self._tell(name, block.job_id, replace(block.status, reason=block.condemned))
        self._host.dismiss(name)
        self._report_failure(name)

    # -- what there is

    def _learn_states(self) -> None:
        with self._lock:
            asked = self._core.jobs()
        try:
            states = self._the_jobs().status(list(asked))
        except ProviderError as error:
            self._not_known(error)
            return
        if asked and self._unknown:
            self._log.warning("the states of the blocks of %s are known again", self._host.label)
            self._unknown = ""
        for job_id, status in states.items():
            if job_id in asked:  # else it was asked for in an earlier turn, and is over
                self._changed(asked[job_id], status)

    def _look_for_managers(self) -> None:
        """Say of blocks whose jobs run that no manager has come, and what these tried, as their jobs wrote."""
        now = time.monotonic()
        with self._lock:
            late = {
                block.name: block.job_id
                for block in self._core.blocks.values()
                if block.active and block.joined_at is None and now - (block.running_since or now) >= _LATE_S
            }
            for name in [name for name in self._late if name not in late]:
                del self._late[name]
            asked = {
                name: job_id
                for name, job_id in late.items()
                if name not in self._late or (not self._late[name][1] and now >= self._late[name][0])
            }
        for name, text in self._the_jobs().tails(dict(list(asked.items())[:_LATE_AT_ONCE])).items():
            words = next((line for line in reversed(text.splitlines()) if NOT_REACHED in line), "")
            first = name not in self._late
            self._late[name] = (now + _LATE_S, words)
            if first or words:
                self._log.log(
                    logging.WARNING if words else logging.INFO,
                    "block %s of %s (job %s) runs, and no manager of it has reached this script%s",
                    name,
                    self._host.label,
                    asked[name],
                    f": {words}" if words else " yet",
                )

    def _look_at_home(self) -> None:
        """Log once that the run's directory is not where it was: logs go elsewhere, new blocks make another one."""
        moved = self._the_jobs().moved
        if moved and not self._moved:
            self._log.error("%s: %s; what was open in it goes on there", self._host.label, moved)
        self._moved = (self._moved or moved) if moved else ""

    def _not_known(self, error: ProviderError) -> None:
        """Log, once a reason, that states of jobs are not known. Blocks whose managers are gone are ended anyway."""
        text = str(error)
        if text != self._unknown:
            self._unknown_since = self._unknown_since if self._unknown else time.monotonic()
            self._unknown = text
            self._log.warning("the states of the blocks of %s are not known now: %s", self._host.label, error)

    def _changed(self, name: str, status: JobStatus) -> None:
        with self._lock:
            moved = self._core.changed(name, status, time.monotonic())
            block = self._core.blocks[name]
            now_is = block.status
        self._compare_hosts(name)
        if moved:
            self._tell(name, block.job_id, now_is)
            if now_is.terminal:
                self._host.dismiss(name)
                with self._lock:
                    self._hosts.forget(name)
                if not block.condemned:  # else it was told then
                    self._report_failure(name)
                    if now_is.state in _ENDED_WELL and name not in self._core.failed:
                        if self._closed:
                            self._left_to_clear.append(block.job_id)  # with those that are cancelled now
                        else:
                            self._the_jobs().clear([block.job_id])

    def _compare_hosts(self, name: str) -> None:
        """Warn of managers that are on none of their job's nodes, as far as the provider tells these."""
        with self._lock:
            block = self._core.blocks.get(name)
            found = [] if block is None else self._hosts.elsewhere(name, tuple(block.status.nodes))
        for one, nodes in found:
            self._log.warning(
                "manager %s has the key of block %s and says that it runs on %s%s, which is none of its job's nodes "
                "(%s%s): if it is not yours, cancel the job, and see who can read the run's directory",
                one.name,
                one.block,
                one.node,
                f" (its connection comes from {one.address})" if one.address else "",
                ", ".join(nodes[:_MOST_NAMED]),
                ", ..." if len(nodes) > _MOST_NAMED else "",
            )

    def _tell(self, name: str, job_id: str, status: JobStatus) -> None:
        label = self._host.label
        self._log.info("block %s of %s (job %s): %s", name, label, job_id or "none", how(status))
        events = self._context.events
        if events.wants & EventKind.BLOCK:
            reason = status.reason or status.message
            events.post(BlockChanged(self._context.clock.time_ns(), label, name, job_id, status.state.name, reason))
        with self._wake:
            self._wake.notify_all()  # somebody may wait for this in scale_in

    def last_words_of(self, name: str) -> str:
        """Return what the job of a block wrote to standard error last; waits for the provider, not for long."""
        with self._lock:
            block = self._core.blocks.get(name)
        return "" if block is None else self._the_jobs().tails({name: block.job_id})[name]

    def _report_failure(self, name: str) -> None:
        """Log that a block failed: how often that has happened, and when the next one is tried."""
        with self._lock:
            recovery = self._core.recovery
            attempts, pause_s = recovery.attempts, recovery.next_at - time.monotonic()
            if name not in self._core.failed:
                return
            block = self._core.blocks.get(name)
            job_id = "" if block is None else block.job_id
        words = last_line(self._the_jobs().tails({name: job_id})[name])
        self._last_words = words or self._last_words
        self._log.warning(
            "%s: attempt %d in a row to start a block failed: %s%s; the next one is made in %.0f s if it is needed",
            self._host.label,
            attempts,
            recovery.last_error,
            f" (its last line of standard error: {words})" if words else "",
            max(0.0, pause_s),
        )

    def _learn_activity(self) -> None:
        with self._lock:
            if not any(block.managers for block in self._core.blocks.values()):
                self._core.lacking, self._core.wide = (), None
                return
        try:
            reply = self._host.activity()
        except FlowError as error:
            self._log.debug("the activity of %s is not known now: %s", self._host.label, error)
            with self._lock:
                # No block is given up, and none asked for, for what was true once.
                self._core.lacking, self._core.wide = (), None
            return
        with self._lock:
            self._core.told({one.block: (one.slots, one.idle_for_s) for one in reply.blocks})
            self._core.lacking, self._core.wide = reply.lacking or (), reply.wide

    # -- submitting and releasing

    def _submit_one(self) -> tuple[str, BaseException | None]:
        with self._lock:
            # Counted before it is submitted: a slow scheduler must not let other turns submit more than the limit.
            name = self._core.new_block()
        try:
            job_id = self._the_jobs().submit(name, self._host.order(name))
        except BaseException as error:
            self._not_submitted(name, error)
            if not isinstance(error, Exception):
                raise  # Ctrl-C in scale_out: what a provider raises comes as a ProviderError
            return name, error
        with self._lock:
            self._core.submitted(name, job_id, time.monotonic())
        self._tell(name, job_id, self._core.blocks[name].status)
        return name, None

    def _not_submitted(self, name: str, error: BaseException) -> None:
        if isinstance(error, HostsAway):
            with self._lock:
                self._core.put_off(name, time.monotonic() + error.again_s)
                self._away = str(error)
            self._host.dismiss(name)
            return
        foreseen = isinstance(error, ProviderError | FlowError)
        with self._lock:
            self._cause = error
            self._core.not_submitted(name, str(error) if foreseen else named(error), time.monotonic())
        self._host.dismiss(name)
        self._tell(name, "", self._core.blocks[name].status)
        self._report_failure(name)
        if not foreseen or error.__cause__ is not None:
            self._log.debug("how block %s of %s failed", name, self._host.label, exc_info=to_log(error))

    def _release(self, names: Sequence[str], idle_s: float | None) -> list[str]:
        """Drain blocks that have managers, cancel those that have none; return those that go."""
        with self._lock:
            # Blocks without managers have nothing to drain: their jobs are cancelled at once.
            connected = [name for name in names if self._core.blocks[name].managers]
            going = [name for name in names if name not in connected]
        if connected:
            try:
                going += self._host.drain(connected, idle_s)
            except FlowError as error:
                self._log.warning("no blocks of %s are released now: %s", self._host.label, error)
        with self._lock:
            for name in going:
                self._core.release(name, time.monotonic())
        return going

    def _cancel(self, names: Sequence[str]) -> None:
        with self._lock:
            self._core.cancelling(names, time.monotonic())
            jobs = {self._core.blocks[name].job_id: name for name in names if self._core.blocks[name].job_id}
        try:
            left = self._the_jobs().cancel(list(jobs))
            problem = "the provider could not"
        except ProviderError as error:
            left, problem = list(jobs), str(error)
        if left:
            label = self._host.label
            self._log.warning("jobs %s of %s could not be cancelled, trying again: %s", ", ".join(left), label, problem)
            with self._lock:
                self._core.not_cancelled([jobs[job_id] for job_id in left], time.monotonic())

    def _cancel_all(self, deadline: float) -> list[str]:
        """Cancel whatever is not known to have ended; try again for some seconds. Return what could not be."""
        if self._jobs is None:
            return []
        with self._lock:
            jobs = self._core.jobs()
            self._core.cancelling(list(jobs.values()), time.monotonic())
        left, problem, began = list(jobs), "", time.monotonic()
        while left:
            try:
                left = self._jobs.cancel(left, max(1.0, deadline - time.monotonic()))
                problem = "its provider could not, as where its host does not answer"
            except ProviderError as error:
                problem = str(error)
            deadline = min(deadline, began + _SILENT_S)
            if not left or time.monotonic() >= deadline:
                break
            time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
        gone = [job_id for job_id in jobs if job_id not in left]
        for job_id in gone:
            self._changed(jobs[job_id], JobStatus(JobState.CANCELLED))
        ended = list(dict.fromkeys([*gone, *self._left_to_clear]))
        self._jobs.clear(ended, max(_CLEAR_S, deadline - time.monotonic()))
        label = self._host.label
        return [
            f"end job {job_id} of block {jobs[job_id]} of {label}, which may still run: {problem}" for job_id in left
        ]

    # -- failure

    def _judge(self) -> None:
        """Enough blocks failed: let the handler decide whether the tasks fail."""
        now = time.monotonic()
        with self._lock:
            recovery = self._core.recovery
            self._judged = recovery.attempts
            failed = dict(self._core.failed)
            jobs = {name: self._core.blocks[name].job_id for name in failed}
        tails = self._the_jobs().tails(dict(list(jobs.items())[-3:]))
        text = describe(self._host.label, recovery, recovery.waited_s(now), failed, jobs, tails, self._cause)
        text = f"{text}\nBesides, {self._moved}." if self._moved else text
        error = self._advice.verdict(self._host, failed, failure_text(text, self._cause))
        if error is None:
            return
        with self._lock:
            self._core.gave_up()
            self._judged = 0
        self._log.error("%s", error)
        self._host.give_up(error)

    # -- threads

    def _the_jobs(self) -> BlockJobs:
        if self._jobs is None:
            raise ExecutorError(f"the scaling of {self._host.label} was not started")
        return self._jobs

    def _poke(self) -> None:
        with self._wake:
            self._poked = True
            self._wake.notify_all()

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        with self._wake:
            return self._wake.wait_for(lambda: done() or self._stopped, timeout_s)

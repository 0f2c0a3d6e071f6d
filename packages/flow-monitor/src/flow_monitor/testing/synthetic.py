"""Made-up runs: events of runs that never were, for tests, demonstrations and benchmarks. Same seed, same events."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from flow_core.interfaces.call import TryKey
from flow_core.interfaces.events import (
    BlockChanged,
    Event,
    FileStaged,
    NodeJoined,
    NodeLeft,
    RunEnded,
    RunStarted,
    Sampled,
    TaskChanged,
    TaskEnded,
    TaskSubmitted,
    TryEnded,
    TryLaunched,
    TryStarted,
)
from flow_core.interfaces.outcome import Place, Usage
from flow_core.interfaces.sampler import Sample

_S = 1_000_000_000  # nanoseconds


@dataclass(slots=True)
class _Ran:
    """A try that ran in a slot: cores it used on the mean, its most memory, when it was sampled first."""

    slot: int
    key: int
    started: int
    ended: int
    cores: float
    rss_kb: int
    sampled: int = 0


@dataclass(frozen=True, slots=True)
class SyntheticRun:
    """A run of map-reduce rounds: ``split``, many ``simulate``, a ``merge``; some fail, some come from the memo.

    Attributes:
        run_id: Its id.
        tasks: Number of tasks, about.
        width: Tasks in one stage.
        nodes: Nodes, each of one block.
        workers: Workers a node.
        fail_rate: Part of ``simulate`` tasks whose first try fails; half of them fail for good.
        samples: Resource samples a node, 0 for none.
        ended: Whether the run ends; else the last tasks are still running.
        began_ns: When it began.
        name: The workflow's name.
        app_prefix: Put before the names of apps.
        seed: Of the random numbers.
    """

    run_id: str = "synthetic"
    tasks: int = 50
    width: int = 12
    nodes: int = 2
    workers: int = 4
    fail_rate: float = 0.05
    samples: int = 30
    ended: bool = True
    began_ns: int = 1_760_000_000 * _S
    name: str = "synthetic.py"
    app_prefix: str = ""
    seed: int = 1

    def events(self) -> Iterator[Event]:
        """Yield the events, in order of time as a kernel would give them, near enough."""
        return _Player(self).play()


class _Player:
    """Player of one synthetic run: its clock, slots and random numbers."""

    def __init__(self, run: SyntheticRun) -> None:
        self._run = run
        self._random = random.Random(run.seed)
        self._now = run.began_ns
        self._places = [
            Place("htex", str(node), f"node{node:02d}.cluster", f"m{node}", worker, 1000 + 100 * node + worker)
            for node in range(run.nodes)
            for worker in range(run.workers)
        ]
        self._free_at = [0] * len(self._places)
        self._key = 1 << 44
        self._done = {"exec_done": 0, "memo_done": 0, "failed": 0, "dep_fail": 0, "cancelled": 0}
        self._ran: list[_Ran] = []

    def play(self) -> Iterator[Event]:
        """Yield the events of the run, see ``SyntheticRun.events``."""
        run = self._run
        yield RunStarted(
            run.began_ns, run.run_id, 1, run.name, f"/home/user/{run.name}", "0.1.0", "3.11.2", "login1", "user",
            "/home/user/runinfo/000", ("htex",),
        )  # fmt: skip
        yield from self._nodes_come()
        task_id, ends = 0, run.began_ns
        parents: tuple[int, ...] = ()
        finals: dict[int, tuple[int, bool]] = {}
        while task_id < run.tasks:
            stage = self._stage(task_id, parents)
            ends_before, events = ends, []
            for app, kind, depends in stage:
                live = not run.ended and task_id >= run.tasks - 6
                events += self._task(task_id, app, kind, depends, finals, live=live)
                ends = max(ends, finals[task_id][0])
                task_id += 1
            parents = self._next_parents(stage, task_id)
            events += self._samples(ends_before, ends)
            yield from sorted(events, key=lambda e: e.time_ns)
        if run.ended:
            yield from self._end(ends + _S)

    def _stage(self, first: int, parents: tuple[int, ...]) -> list[tuple[str, str, tuple[int, ...]]]:
        """Return app, kind and parents of the tasks of the next stage."""
        run, prefix = self._run, self._run.app_prefix
        left = run.tasks - first
        if not parents:
            return [(f"{prefix}split", "python", ())]
        if len(parents) == 1:
            count = max(1, min(run.width, left))
            return [
                (f"{prefix}{('simulate', 'analyse')[i % 4 == 3]}", "bash" if i % 4 == 3 else "python", parents)
                for i in range(count)
            ]
        return [(f"{prefix}merge", "python", parents)]

    def _next_parents(self, stage: list[tuple[str, str, tuple[int, ...]]], next_id: int) -> tuple[int, ...]:
        return tuple(range(next_id - len(stage), next_id))

    def _task(
        self,
        task_id: int,
        app: str,
        kind: str,
        depends: tuple[int, ...],
        finals: dict[int, tuple[int, bool]],
        *,
        live: bool,
    ) -> list[Event]:
        rng = self._random
        invoked = self._run.began_ns + task_id * 2_000_000
        ready = max([invoked, *(finals[p][0] for p in depends)])
        inputs = (f"/data/in_{task_id}.csv",) if kind == "bash" else ()
        outputs = (f"https://store.example/out_{task_id}.csv",) if kind == "bash" else ()
        stdout = f"task_{task_id:04d}.stdout" if kind == "bash" else ""
        label = f"part {task_id}" if kind == "bash" else ""
        events: list[Event] = [
            TaskSubmitted(invoked, task_id, app, kind, label, ("htex",), depends, inputs, outputs, stdout, "", True)
        ]
        if any(not finals[p][1] for p in depends) and "merge" not in app:
            self._done["dep_fail"] += 1
            error = f"DependencyError: task {task_id} was not run since task {depends[0]} failed"
            events.append(TaskEnded(ready + 1_000_000, task_id, "dep_fail", error=error))
            finals[task_id] = (ready + 1_000_000, False)
            return events
        if rng.random() < 0.04:
            self._done["memo_done"] += 1
            events.append(TaskEnded(ready + 1_000_000, task_id, "memo_done", hashsum=f"{task_id:032x}", memoized=True))
            finals[task_id] = (ready + 1_000_000, True)
            return events
        fails = rng.random() < self._run.fail_rate and "simulate" in app
        tries = 2 if fails else 1
        good = not (fails and rng.random() < 0.5)
        at = ready + 1_000_000
        for try_id in range(tries):
            last = try_id == tries - 1
            at = self._try(task_id, try_id, at, events, ok=last and good, retry=not last, live=live and last)
        if live:
            finals[task_id] = (at, True)
            return events
        state = "exec_done" if good else "failed"
        self._done[state] += 1
        events.append(TaskEnded(
            at + 500_000, task_id, state, f"{task_id:032x}", False, tries, tries - good, float(tries - good),
            "" if good else "ValueError: the simulation did not converge",
            "" if good else 'Traceback (most recent call last):\n  File "app.py", line 7, in simulate\n'
            "    raise ValueError('the simulation did not converge')\nValueError: the simulation did not converge\n",
        ))  # fmt: skip
        finals[task_id] = (at + 500_000, good or bool(rng.random() < 0.7))
        return events

    def _try(
        self, task_id: int, try_id: int, at: int, events: list[Event], *, ok: bool, retry: bool, live: bool
    ) -> int:
        """Play one try; return when it ended."""
        rng = self._random
        slot = min(range(len(self._places)), key=lambda i: self._free_at[i])
        place = self._places[slot]
        launched = at
        started = max(launched + 2_000_000, self._free_at[slot])
        ended = started + int(rng.lognormvariate(0.4, 0.6) * _S)
        self._free_at[slot] = ended
        self._key += 1
        ran = _Ran(slot, self._key, started, ended, 0.8, 200_000)
        self._ran.append(ran)
        events.append(TryLaunched(launched, task_id, try_id, self._key, "htex"))
        events.append(TryStarted(started, task_id, try_id, place))
        if live:
            return ended
        ran.cores, ran.rss_kb = rng.uniform(0.6, 0.99), rng.randrange(40_000, 900_000)
        cpu = (ended - started) / _S * ran.cores
        usage = Usage(cpu * 0.9, cpu * 0.1, ran.rss_kb, rng.randrange(2000), rng.randrange(2000))
        verdict, error = ("OK", "") if ok else ("APP_ERROR", "ValueError: the simulation did not converge")
        events.append(TryEnded(ended, task_id, try_id, verdict, started, ended, "htex", place, usage, error))
        if retry:
            events.append(TaskChanged(ended + 100_000, task_id, "fail_retryable"))
        if task_id % 4 == 0:
            url = f"https://store.example/out_{task_id}.csv"
            events.append(FileStaged(ended, task_id, url, f"out_{task_id}.csv", "out", 12_345, "ab" * 16))
        return ended + 200_000

    def _nodes_come(self) -> Iterator[Event]:
        for node in range(self._run.nodes):
            at = self._run.began_ns + node * 10_000_000
            yield BlockChanged(at, "htex", str(node), "", "PENDING", "Resources")
            yield BlockChanged(at + _S // 2, "htex", str(node), f"4711{node}", "RUNNING", "")
            yield NodeJoined(
                at + _S, "htex", str(node), f"node{node:02d}.cluster", f"m{node}", 900 + node, self._run.workers, 64,
                256 << 30, "3.11.2",
            )  # fmt: skip

    def _samples(self, since: int, until: int) -> Iterator[Event]:
        if not self._run.samples:
            return
        step = max(_S // 8, (until - since) // self._run.samples)
        rng = self._random
        ran, self._ran = self._ran, [one for one in self._ran if one.ended > until]
        for at in range(since, until, step):
            for node in range(self._run.nodes):
                elapsed = (at - self._run.began_ns) / _S
                samples = [
                    Sample(
                        at,
                        None,
                        0,
                        40,
                        rng.uniform(20, 95),
                        elapsed * 3,
                        elapsed / 3,
                        90 << 30,
                        35.0,
                        int(elapsed * 1e7),
                        int(elapsed * 3e6),
                        int(elapsed * 1e6),
                        int(elapsed * 2e6),
                    )
                ]
                for one in ran:
                    if one.slot // self._run.workers == node and one.started <= at < one.ended:
                        one.sampled = one.sampled or at
                        cpu = (at - one.sampled) / _S * one.cores  # a sampler counts from its first look
                        memory = int(min(1.0, 0.2 + (at - one.started) / _S) * one.rss_kb) << 10
                        pid, busy = self._places[one.slot].pid, 100 * one.cores
                        samples.append(
                            Sample(
                                at,
                                TryKey(one.key),
                                pid,
                                2,
                                busy,
                                cpu * 0.9,
                                cpu * 0.1,
                                memory,
                                0.3,
                                int(cpu * 1e6),
                                4096,
                                int(cpu * 2e5),
                                int(cpu * 3e6),
                            )
                        )
                yield Sampled(at, "htex", str(node), f"node{node:02d}.cluster", f"m{node}", tuple(samples))

    def _end(self, at: int) -> Iterator[Event]:
        for node in range(self._run.nodes):
            yield NodeLeft(at, "htex", str(node), f"m{node}", "drained" if node else "lost its network", not node)
            yield BlockChanged(at, "htex", str(node), f"4711{node}", "SCALED_IN", "the run ended")
        done = self._done
        yield RunEnded(
            at + 1,
            self._run.run_id,
            done["exec_done"] + done["memo_done"],
            done["failed"] + done["dep_fail"],
            done["memo_done"],
            done["cancelled"],
        )

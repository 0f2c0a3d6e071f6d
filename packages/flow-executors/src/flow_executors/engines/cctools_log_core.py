"""The log of transactions of a Work Queue or of TaskVine: which worker has which task, which came and went. Pure.

It is the one place in which the libraries say when a task was sent to a worker, and to which. Work Queue names a
worker by its address in lines of tasks, TaskVine by its id.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TaskSent:
    """A worker has a task: the library's number of it, the worker's id and address, and when, in ns UTC."""

    task: int
    worker: str
    address: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class WorkerHas:
    """What a worker has: cores, memory and disk (MB), gpus. The first time it is there from now on."""

    worker: str
    address: str
    resources: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """A worker has gone, and why, in the library's own word."""

    worker: str
    why: str


LogEvent = TaskSent | WorkerHas | WorkerGone


class TransactionLog:
    """Reads what has been appended, in parts of any length."""

    def __init__(self) -> None:
        self._part = b""
        self._ids: dict[str, str] = {}  # address -> id of the worker
        self._addresses: dict[str, str] = {}

    def feed(self, data: bytes) -> list[LogEvent]:
        """Return what whole lines say; what is not understood is left out."""
        *lines, self._part = (self._part + data).split(b"\n")
        events = []
        for line in lines:
            words = line.decode(errors="replace").split(maxsplit=5)
            if len(words) >= 5 and words[0].isdigit():
                event = self._event(int(words[0]) * 1000, words)
                if event is not None:
                    events.append(event)
        return events

    def _event(self, at_ns: int, words: list[str]) -> LogEvent | None:
        what, subject, verb = words[2:5]
        rest = words[5] if len(words) > 5 else ""
        if what == "TASK" and verb == "RUNNING" and rest and subject.isdigit():
            named = rest.split()[0]
            worker = self._ids.get(named, named)
            return TaskSent(int(subject), worker, self._addresses.get(worker, ""), at_ns)
        if what != "WORKER":
            return None
        if ":" in verb:  # Work Queue: the address comes before the verb
            address, (verb, _, rest) = verb, rest.partition(" ")
            self._know(subject, address)
        elif verb == "CONNECTION" and rest:
            self._know(subject, rest.split()[0])
        if verb == "RESOURCES":
            try:
                amounts = {name: float(amount[0]) for name, amount in json.loads(rest).items()}
            except (ValueError, LookupError, TypeError, AttributeError):
                return None
            return WorkerHas(subject, self._addresses.get(subject, ""), amounts)
        if verb == "DISCONNECTION":
            self._ids.pop(self._addresses.pop(subject, ""), None)
            return WorkerGone(subject, (rest.split() or ["UNKNOWN"])[0])
        return None

    def _know(self, worker: str, address: str) -> None:
        self._ids[address] = worker
        self._addresses[worker] = address

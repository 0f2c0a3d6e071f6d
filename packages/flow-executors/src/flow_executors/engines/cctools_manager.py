"""The manager of a Work Queue or of TaskVine, as a process of its own below the script.

It is run as a file by a Python that has the bindings of the Cooperative Computing Tools (``ndcctools``), which need not
be the script's: so it imports nothing of Flow. A crash of the library does not end the script, and its calls, which
hold the interpreter while they wait, do not stop the script's threads.

Standard input has one command a line, standard output one event a line, both JSON. The first command is ``open``. The
manager ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import select
import sys
import traceback
import warnings
from typing import Any, Protocol

Message = dict[str, Any]
_WAIT_S = 1  # seconds, the least that the library waits
_FORGET_S = 5  # seconds without an answer after which a worker that was asked for one counts as gone
_ASK_EVERY_S = 5  # seconds between two such questions


class _Library(Protocol):
    """What both libraries can do, under one name each."""

    port: int
    log: str

    def submit(self, order: Message) -> int: ...

    def wait(self, seconds: int) -> Message | None: ...

    def waits(self, task: int) -> bool: ...

    def cancel(self, task: int) -> None: ...

    def stats(self) -> Message: ...

    def close(self) -> None: ...


class _WorkQueue:
    """Work Queue, by ``ndcctools.work_queue``."""

    def __init__(self, options: Message) -> None:
        from ndcctools import work_queue  # type: ignore[import-not-found,unused-ignore]

        self._module = work_queue
        self.log = os.path.join(options["directory"], "transactions.log")
        debug = os.path.join(options["directory"], "debug.log") if options["full_debug"] else None
        certificate = {"ssl": (options["key"], options["certificate"])} if options["certificate"] else {}
        self._queue = work_queue.WorkQueue(
            port=options["port"], transactions_log=self.log, debug_log=debug, **certificate
        )
        if options["project_name"]:
            self._queue.specify_name(options["project_name"])
        if options["password_file"] and not self._queue.specify_password_file(options["password_file"]):
            raise RuntimeError(f"the password file {options['password_file']} cannot be read")
        self._queue.specify_keepalive_interval(_ASK_EVERY_S)
        self._queue.specify_keepalive_timeout(_FORGET_S)
        if options["learn_sizes"]:
            self._queue.enable_monitoring(os.path.join(options["directory"], "measured"))
        self._learn = options["learn_sizes"]
        self._categories: set[str] = set()
        self.port = int(self._queue.port)

    def submit(self, order: Message) -> int:
        module = self._module
        task = module.Task(order["command"])
        for local, remote, cache in order["inputs"]:
            task.specify_input_file(local, remote, cache=cache)
        for local, remote in order["outputs"]:
            task.specify_output_file(local, remote, cache=False)
        for name, value in order["environment"].items():
            task.specify_environment_variable(name, value)
        if order.get("feature"):
            task.specify_feature(order["feature"])
        for name, set_amount in (
            ("cores", task.specify_cores),
            ("memory", task.specify_memory),
            ("disk", task.specify_disk),
            ("gpus", task.specify_gpus),
            ("time_max", task.specify_running_time_max),
            ("time_min", task.specify_running_time_min),
        ):
            if order.get(name) is not None:
                set_amount(order[name])
        task.specify_priority(order["priority"])
        if order["category"]:
            task.specify_category(order["category"])
            if self._learn and order["category"] not in self._categories:
                self._categories.add(order["category"])
                self._queue.specify_category_mode(order["category"], module.WORK_QUEUE_ALLOCATION_MODE_MAX_THROUGHPUT)
        return int(self._queue.submit(task))

    def wait(self, seconds: int) -> Message | None:
        task = self._queue.wait(seconds)
        if task is None:
            return None
        code, measured = int(task.result), task.resources_measured
        return {
            "task": int(task.id),
            "well": code == 0,
            "result": str(task.result_str),
            "exit": int(task.return_status),
            "output": (task.output or "")[-4000:],
            "host": task.hostname or "",
            "limits": _limits(task.limits_exceeded),
            "memory": float(measured.memory) if measured else -1.0,
        }

    def waits(self, task: int) -> bool:
        return bool(self._queue.task_state(task) == self._module.WORK_QUEUE_TASK_READY)

    def cancel(self, task: int) -> None:
        self._queue.cancel_by_taskid(task)

    def stats(self) -> Message:
        return _stats(self._queue.stats)

    def close(self) -> None:
        self._queue.shutdown_workers(0)


class _TaskVine:
    """TaskVine, by ``ndcctools.taskvine``."""

    def __init__(self, options: Message) -> None:
        warnings.simplefilter("ignore")  # it says at its import that there is no Dask
        from ndcctools import taskvine  # type: ignore[import-not-found,unused-ignore]

        runs = os.path.join(options["directory"], "vine")
        certificate = {"ssl": (options["key"], options["certificate"])} if options["certificate"] else {}
        manager = taskvine.Manager(port=options["port"], run_info_path=runs, **certificate)
        self._module, self._manager = taskvine, manager
        if options["project_name"]:
            manager.set_name(options["project_name"])
        if options["password_file"] and not manager.set_password_file(options["password_file"]):
            raise RuntimeError(f"the password file {options['password_file']} cannot be read")
        manager.set_keepalive_interval(_ASK_EVERY_S)
        manager.set_keepalive_timeout(_FORGET_S)
        if options["peer_transfers"]:
            manager.enable_peer_transfers()
        else:
            manager.disable_peer_transfers()
        if options["learn_sizes"]:
            manager.enable_monitoring()
        self._learn = options["learn_sizes"]
        self._files: dict[str, Any] = {}
        self._uses: dict[int, list[Any]] = {}
        self._known: dict[int, Any] = {}
        self._categories: set[str] = set()
        self.port = int(manager.port)
        self.log = os.path.join(manager.logging_directory, "transactions")

    def submit(self, order: Message) -> int:
        manager = self._manager
        task = self._module.Task(order["command"])
        own = []
        for local, remote, cache in order["inputs"]:
            if cache:
                # One declaration for all tasks: what it names is one file of every worker's cache.
                file = self._files.get(local)
                if file is None:
                    file = self._files[local] = manager.declare_file(local, cache="workflow")
            else:
                file = manager.declare_file(local, cache="task")
                own.append(file)
            task.add_input(file, remote)
        for local, remote in order["outputs"]:
            file = manager.declare_file(local, cache=False)
            own.append(file)
            task.add_output(file, remote)
        for name, value in order["environment"].items():
            task.set_env_var(name, value)
        if order.get("feature"):
            task.add_feature(order["feature"])
        for name, set_amount in (
            ("cores", task.set_cores),
            ("memory", task.set_memory),
            ("disk", task.set_disk),
            ("gpus", task.set_gpus),
            ("time_max", task.set_time_max),
            ("time_min", task.set_time_min),
        ):
            if order.get(name) is not None:
                set_amount(order[name])
        task.set_priority(order["priority"])
        if order["category"]:
            task.set_category(order["category"])
            if self._learn and order["category"] not in self._categories:
                self._categories.add(order["category"])
                manager.set_category_mode(order["category"], "max throughput")
        number = int(manager.submit(task))
        self._uses[number], self._known[number] = own, task
        return number

    def wait(self, seconds: int) -> Message | None:
        task = self._manager.wait(seconds)
        if task is None:
            return None
        number = int(task.id)
        self._known.pop(number, None)
        for file in self._uses.pop(number, ()):
            self._manager.undeclare_file(file)
        measured = task.resources_measured
        return {
            "task": number,
            "well": task.result == "success",
            "result": str(task.result),
            "exit": int(task.exit_code),
            "output": (task.std_output or "")[-4000:],
            "host": task.hostname or "",
            "limits": _limits(task.limits_exceeded),
            "memory": float(measured.memory) if measured else -1.0,
        }

    def waits(self, task: int) -> bool:
        known = self._known.get(task)
        return known is not None and str(known.state).lower() == "ready"

    def cancel(self, task: int) -> None:
        self._manager.cancel_by_task_id(task)

    def stats(self) -> Message:
        return _stats(self._manager.stats)

    def close(self) -> None:
        self._manager.workers_shutdown(0)


def _limits(exceeded: Any) -> list[str]:
    """Return what a task has used more of than it may, as the library measured it."""
    found = []
    for name in ("cores", "memory", "disk", "wall_time"):
        amount = getattr(exceeded, name, -1) if exceeded else -1
        if amount is not None and amount > 0:
            found.append(f"{name} {amount:g}")
    return found


_WANTED_STATS = (
    "workers_connected",
    "tasks_waiting",
    "tasks_running",
    "max_cores",
    "max_memory",
    "max_disk",
    "max_gpus",
    "bytes_sent",
    "bytes_received",
)


def _stats(found: Any) -> Message:
    return {name: getattr(found, name, 0) for name in _WANTED_STATS}


class _Manager:
    """The turns of the manager."""

    def __init__(self, library: _Library) -> None:
        self._library = library
        self._numbers: dict[int, int] = {}  # task of the library -> the script's number
        self._tasks: dict[int, int] = {}  # and back
        self._unread = b""

    def run(self) -> None:
        """Work until the script closes its end."""
        while True:
            if _readable(0) and not self._read():
                return
            # Returns when a task has ended, when a second is over, or when somebody knocks at its port.
            ended = self._library.wait(_WAIT_S)
            if ended is not None:
                number = self._numbers.pop(ended["task"], None)
                if number is not None:
                    self._tasks.pop(number, None)
                    _say({**ended, "event": "ended", "task": number})

    def _read(self) -> bool:
        data = os.read(0, 1 << 20)
        if not data:
            return False
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            try:
                self._do(json.loads(line))
            except Exception:
                traceback.print_exc()  # no answer: whoever asked does not wait for ever
        return True

    def _do(self, command: Message) -> None:
        what = command["command_name"]
        if what == "submit":
            try:
                task = self._library.submit(command)
            except Exception as error:
                _say({"event": "refused", "task": command["task"], "why": f"{type(error).__name__}: {error}"})
                return
            self._numbers[task], self._tasks[command["task"]] = command["task"], task
            _say({"event": "submitted", "task": command["task"], "named": task})
        elif what in ("cancel", "take_back"):
            number = command["task"]
            task = self._tasks.get(number, -1)
            known = task >= 0
            waits = known and self._library.waits(task)
            done = known and (waits or what == "cancel")
            if done:
                self._library.cancel(task)
                self._numbers.pop(task, None)
                self._tasks.pop(number, None)
            _say({"event": "answer", "question": command["question"], "known": known, "waits": waits, "done": done})
        elif what == "stats":
            _say({"event": "stats", **self._library.stats()})


def _readable(seconds: float) -> bool:
    return bool(select.select([0], [], [], seconds)[0])


def _say(message: Message) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(_OUT, data) :]


_OUT = 1


def main() -> int:
    """Open the library by the first line of standard input, and run."""
    global _OUT
    _OUT = os.dup(1)
    os.dup2(2, 1)  # what the library prints is no event
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(0, 1)
        if not more:
            return 0
        line += more
    options = json.loads(line)
    try:
        library: _Library = (_TaskVine if options["library"] == "taskvine" else _WorkQueue)(options)
    except BaseException as error:
        traceback.print_exc()
        _say({"event": "failed", "kind": type(error).__name__, "why": str(error)})
        return 1
    _say(
        {
            "event": "open",
            "port": library.port,
            "log": library.log,
            "pid": os.getpid(),
            "python": sys.version.split()[0],
        }
    )
    try:
        _Manager(library).run()
    finally:
        library.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

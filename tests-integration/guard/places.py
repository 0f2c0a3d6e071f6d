"""The table of all places where an object of a user's meets Flow, and what is done there when it is hostile.

A place is a method of an interface that users implement, an option of a Config, an executor or an app, or a method
that Flow calls of any object. ``every_place`` finds them by itself; a new one that is not in the table fails the test.
"""

from __future__ import annotations

import abc
import concurrent.futures
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from hostile import act

import flow
import flow.executors
import flow_core.interfaces
import flow_providers.interfaces
from flow_core.apps.decorators import bash_app, python_app
from flow_core.apps.special import AUTO_LOGNAME
from flow_core.executors.threads import ThreadPoolExecutor
from flow_core.files import File
from flow_core.futures.callbacks import packing_calls
from flow_core.interfaces.events import EventKind
from flow_core.interfaces.sampler import SamplerSpec
from flow_core.interfaces.staging import Staging, Transfer
from flow_core.memo.memoizer import BasicMemoizer

# -- what there is


def interfaces_of(package: ModuleType) -> Iterator[type]:
    """Yield the abstract classes and protocols of a package."""
    for module_info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{module_info.name}")
        for found in vars(module).values():
            if not inspect.isclass(found) or found.__module__ != module.__name__:
                continue
            if getattr(found, "_is_protocol", False) or abc.ABC in found.__mro__:
                yield found


def methods_of(interface: type) -> list[str]:
    """Return what an interface adds to its bases: methods, and attributes that must be there."""
    names = [name for name in vars(interface) if not name.startswith("_") or name == "__call__"]
    annotated = [name for name in vars(interface).get("__annotations__", ()) if not name.startswith("_")]
    return list(dict.fromkeys((*names, *annotated)))


def every_place() -> set[str]:
    """Return the names of all places, as the interfaces, options and decorators of today have them."""
    places = {
        f"{interface.__name__}.{name}"
        for package in (flow_core.interfaces, flow_providers.interfaces)
        for interface in interfaces_of(package)
        for name in methods_of(interface)
    }
    executors = (flow.HighThroughputExecutor, flow.LowLatencyExecutor, flow.ThreadPoolExecutor)
    for made in (flow.Config, *executors, flow.executors.ExtremeScaleExecutor):
        places |= {
            f"{made.__name__}({name}=)" for name in inspect.signature(made.__init__).parameters if name != "self"
        }
    for decorator in (flow.python_app, flow.bash_app, flow.mpi_app, flow.join_app):
        places |= {f"{decorator.__name__}({name}=)" for name in inspect.signature(decorator).parameters}
    return places


# -- what is called there


@dataclass(frozen=True)
class Case:
    """How one hook is tried.

    Attributes:
        config: Options of a Config in which the hook is hostile; takes how it is so, and a directory.
        victim: Calls what comes to the hook; gives a future, or None.
        raises: What must come of a hook that exits: ``fails`` (the victim's future, with the hook's name), ``logged``
            (the log has the name), ``load`` (``flow.load`` refuses, with the name), ``harmless``.
        odd: The same of one that returns nonsense.
        hangs: The same of one that does not return; ``caller``: it is the user's own call that hangs; not tried.
        overdue: What becomes of the victim's future if such a hook has a limit; by default as of one that exits.
    """

    config: Callable[[str, Path], dict[str, Any]]
    victim: Callable[[], Any]
    raises: str = "fails"
    odd: str = "fails"
    hangs: str = "logged"
    overdue: str = ""

    def expected(self, how: str) -> str:
        """Return what must come of it."""
        return str(getattr(self, how))


def spoiled(base: type, method: str, how: str, place: str) -> Any:
    """Return a class in which one method is hostile."""
    return type("Mine", (base,), {method: lambda self, *args, **named: act(how, place)})


@python_app(executors=["good"])
def plain(x: int) -> int:
    """Return one more; comes to no hook."""
    return x + 1


@python_app(executors=["good"])
def divide(x: int) -> float:
    """Fail for 0."""
    return 1 / x


@python_app(executors=["good"], cache=True)
def cached(x: int) -> int:
    """Return one more, and be remembered."""
    return x + 1


@python_app(executors=["good"])
def reads(inputs: Sequence[File] = ()) -> int:
    """Take files."""
    return len(inputs)


@python_app(executors=["good"], cache=True)
def writes_cached(outputs: Sequence[File] = ()) -> None:
    """Make files, and be remembered."""
    for file in outputs:
        Path(file.filepath).touch()


@python_app(executors=["good"])
def writes(outputs: Sequence[File] = ()) -> None:
    """Make files."""
    for file in outputs:
        Path(file.filepath).touch()


@python_app(executors=["bad"])
def on_bad(x: int) -> int:
    """Run on the hostile executor."""
    return x + 1


@python_app(executors=["bad"])
def slow_on_bad() -> None:
    """Run there for a while."""
    import time

    time.sleep(0.3)


@python_app(executors=["bad", "good"])
def chosen(x: int) -> int:
    """Run on either."""
    return x + 1


@python_app(executors=["good"])
def lasting() -> None:
    """Run long enough to be sampled."""
    import time

    time.sleep(0.3)


@bash_app(executors=["good"])
def says(stdout: object = None) -> str:
    """Write to a file."""
    return "echo x"


class Moving(Staging):
    """A staging method of the submit side for URLs that begin with ``mine:``."""

    def can_stage_in(self, file: File) -> bool:
        return file.scheme == "mine"

    can_stage_out = can_stage_in

    def stage(self, transfers: Sequence[Transfer]) -> Any:
        moved: concurrent.futures.Future[None] = concurrent.futures.Future()
        moved.set_result(None)
        return moved


class Sink:
    """An event sink."""

    wants = EventKind.ALL

    def start(self, run: object) -> None: ...

    def emit(self, events: object) -> None: ...

    def close(self, timeout_s: float) -> int:
        return 0


class Mine:
    """A remembered result."""

    def __init__(self, how: str) -> None:
        self._how = how

    def result(self) -> object:
        return act(self._how, "Stored.result")


def _memoizer(method: str) -> Callable[[str, Path], dict[str, Any]]:
    def config(how: str, folder: Path) -> dict[str, Any]:
        kind = spoiled(BasicMemoizer, method, how, f"Memoizer.{method}")
        return {"memoizer": kind(checkpoint_dir=folder / "checkpoint"), "checkpoint_mode": "dfk_exit"}

    return config


def _stored(how: str, folder: Path) -> dict[str, Any]:
    kind = type("Mine", (BasicMemoizer,), {"lookup": lambda self, key: Mine(how)})
    return {"memoizer": kind(checkpoint_dir=folder / "checkpoint")}


def _staging(method: str) -> Callable[[str, Path], dict[str, Any]]:
    return lambda how, _folder: {"staging": [spoiled(Moving, method, how, f"Staging.{method}")()]}


def _sink(method: str, place: str, base: type = Sink) -> Callable[[str, Path], dict[str, Any]]:
    return lambda how, _folder: {"sinks": [spoiled(base, method, how, place)()]}


def _wants(how: str, _folder: Path) -> dict[str, Any]:
    kind = type("Mine", (Sink,), {"wants": property(lambda self: act(how, "EventSink.wants"))})
    one = object.__new__(kind)
    return {"sinks": [one]}


def _sampler(method: str) -> Callable[[str, Path], dict[str, Any]]:
    def config(how: str, _folder: Path) -> dict[str, Any]:
        settings = (("method", method), ("how", how))
        spec = SamplerSpec("hostile:Sampler", 0.05, settings, thread_factory="hostile:Sampler")
        return {"sinks": [type("Sampled", (Sink,), {"sampler": lambda self: spec})()]}

    return config


def _executor(method: str) -> Callable[[str, Path], dict[str, Any]]:
    def config(how: str, _folder: Path) -> dict[str, Any]:
        return {"executors": [spoiled(ThreadPoolExecutor, method, how, f"Executor.{method}")("bad")]}

    return config


def _hook(option: str) -> Callable[[str, Path], dict[str, Any]]:
    def config(how: str, _folder: Path) -> dict[str, Any]:
        def mine(*_args: object) -> object:
            return act(how, f"Config({option}=)")

        return {option: mine}

    return config


def _taken_back() -> Any:
    futures = [slow_on_bad() for _ in range(3)]  # one more than there are threads
    assert packing_calls.drain(5)  # an executor of the user's own is given its tasks there
    futures[2].cancel()
    return None


def _asked() -> Any:
    futures = [slow_on_bad() for _ in range(3)]  # one more than there are threads
    return str(futures[2].why(0.2)) and futures[2]


def _awaited() -> Any:
    future = slow_on_bad()
    future.result(5)
    return future


def _after_a_task(app: Any) -> Callable[[], Any]:
    return lambda: app(plain(1))


_IN = [File("mine://host/in")]
_OUT = [File("mine://host/out")]

CASES: dict[str, Case] = {
    "Config(retry_handler=)": Case(_hook("retry_handler"), lambda: divide(0)),
    "Config(executor_chooser=)": Case(_hook("executor_chooser"), _after_a_task(chosen)),
    "Config(dependency_resolver=)": Case(_hook("dependency_resolver"), lambda: plain([1]), odd="harmless"),
    "Config(std_autopath=)": Case(_hook("std_autopath"), lambda: says(stdout=AUTO_LOGNAME), hangs="caller"),
    "Memoizer.key": Case(_memoizer("key"), lambda: cached(1)),
    "Memoizer.lookup": Case(_memoizer("lookup"), lambda: cached(1), odd="logged"),
    "Memoizer.lookup_call": Case(_memoizer("lookup_call"), lambda: cached(1), odd="logged"),
    "Memoizer.store": Case(_memoizer("store"), lambda: cached(1), raises="logged", odd="harmless"),
    "Memoizer.checkpoint": Case(_memoizer("checkpoint"), lambda: cached(1), raises="logged", odd="harmless"),
    "Memoizer.close": Case(_memoizer("close"), lambda: cached(1), raises="logged", odd="harmless"),
    "Stored.result": Case(_stored, lambda: cached(1), raises="logged", odd="harmless", overdue="fails"),
    "Staging.can_stage_in": Case(_staging("can_stage_in"), lambda: reads(inputs=_IN)),
    "Staging.can_stage_out": Case(_staging("can_stage_out"), lambda: writes(outputs=_OUT)),
    "Staging.local_path": Case(_staging("local_path"), lambda: reads(inputs=_IN)),
    "Staging.stage": Case(_staging("stage"), lambda: reads(inputs=_IN)),
    "Staging.step": Case(_staging("step"), lambda: reads(inputs=_IN)),
    "Staging.look": Case(
        _staging("look"), lambda: writes_cached(outputs=_OUT), raises="logged", odd="harmless", hangs="logged"
    ),
    "Staging.close": Case(_staging("close"), lambda: reads(inputs=_IN), raises="logged", odd="harmless"),
    "EventSink.start": Case(
        _sink("start", "EventSink.start"), lambda: plain(1), raises="load", odd="harmless", hangs="caller"
    ),
    "EventSink.emit": Case(_sink("emit", "EventSink.emit"), lambda: plain(1), raises="logged", odd="harmless"),
    "EventSink.close": Case(_sink("close", "EventSink.close"), lambda: plain(1), raises="logged", odd="logged"),
    "EventSink.wants": Case(_wants, lambda: plain(1), raises="load", odd="load", hangs="caller"),
    "SamplingSink.sampler": Case(_sink("sampler", "SamplingSink.sampler"), lambda: plain(1), "load", "load", "caller"),
    "RecordSink.emit_records": Case(
        _sink("emit_records", "RecordSink.emit_records"), lambda: plain(1), raises="logged", odd="harmless"
    ),
    "NodeSampler.sample": Case(_sampler("sample"), lasting, raises="logged", odd="logged", hangs="harmless"),
    "NodeSampler.ended": Case(_sampler("ended"), lasting, raises="logged", odd="logged", hangs="caller"),
    "NodeSampler.close": Case(_sampler("close"), lasting, raises="harmless", odd="harmless", hangs="caller"),
    "Executor.start": Case(_executor("start"), lambda: plain(1), raises="load", odd="harmless", hangs="caller"),
    "Executor.submit": Case(_executor("submit"), lambda: on_bad(1), odd="harmless"),
    "Executor.flush": Case(_executor("flush"), _awaited, raises="logged", odd="harmless", hangs="harmless"),
    "Executor.cancel": Case(_executor("cancel"), _taken_back, "harmless", "harmless", "harmless"),
    "Executor.why_waiting": Case(_executor("why_waiting"), _asked, "harmless", "harmless", "harmless"),
    "Executor.shutdown": Case(_executor("shutdown"), lambda: on_bad(1), raises="logged", odd="logged"),
}

# -- where there is nothing to call, or where it is tried elsewhere

_OURS = "it is Flow's own: users get it and do not give it"
_OF_MANAGERS = ("HighThroughputExecutor", "LowLatencyExecutor", "ExtremeScaleExecutor")
_DATA = "it is plain data, checked where it is given"
_IN_TASK = "it runs in the task itself, like the app's function: test_executors.py"
_ASKED_BY_USERS = "only the user's own calls come to it, and get what it raises"
_ASKED_BY_COMMANDS = "commands that look at the run ask it, each within a bound: flow-core's test_live_answers.py"
_OF_BLOCKS = "test_blocks.py"
_BY_PROVIDER = "only providers call it, whose every call is guarded: test_blocks.py"
_ELSEWHERE_IN_TABLE = "the methods of its interface are in the table"

ELSEWHERE: dict[str, str] = {
    **{
        f"{name}.{method}": _OURS
        for name, methods in {
            "Clock": ("time_ns", "monotonic"),
            "TryListener": ("started", "finished", "ended", "moving", "moved"),
            "EventPort": ("post", "wants"),
            "Snapshot": ("digest", "blob", "identity", "changes", "begins"),
            "ScriptFiles": ("begin",),
            "ScriptFilesSession": ("root", "bring", "send", "close"),
        }.items()
        for method in methods
    },
    "TaskStep.run": _IN_TASK,
    "Memoizer.load": _ASKED_BY_USERS,
    "Memoizer.explain": _ASKED_BY_USERS,
    "Memoizer.file_versions": "only Flow's own memoizer is asked",
    "Executor.withdraw": _ASKED_BY_USERS,
    **{
        f"Staging.{name}": _DATA
        for name in (
            "copies_local",
            "files_home",
            "files_on_node",
            "moves",
            "checks_digests",
            "makes_directories",
            "at_once",
            "refresh",
        )
    },
    "Staging.pin": "asked of methods that move on nodes, when their step is, and guarded as that is",
    "Staging.wrong_with": "only Flow's own methods are asked, at the call",
    "Executor.load": "only Flow's own scaling asks, and users",
    "Executor.adopt": "nothing calls it yet",
    **{
        f"Executor.{name}": _DATA
        for name in (
            "label",
            "storage_access",
            "working_dir",
            "managed",
            "kills",
            "carries_files",
            "in_process",
            "avoids_nodes",
            "honours",
            "task_limits",
        )
    },
    **{f"BlockExecutor.{name}": _ASKED_BY_COMMANDS for name in ("block_infos", "most_blocks")},
    **{f"BlockExecutor.{name}": _ASKED_BY_USERS for name in ("scale_out", "scale_in", "scaling_enabled", "provider")},
    **{f"RemoteProcess.{name}": _BY_PROVIDER for name in ("pid", "poll", "wait", "terminate")},
    **{
        f"Channel.{name}": _BY_PROVIDER
        for name in (
            "is_local",
            "script_dir",
            "offer_script_dir",
            "execute_wait",
            "execute_no_wait",
            "push_file",
            "push_bytes",
            "pull_file",
            "makedirs",
            "isdir",
            "abspath",
            "forward",
            "close",
        )
    },
    "Launcher.__call__": _OF_BLOCKS,
    **{
        f"ExecutionProvider.{name}": _OF_BLOCKS
        for name in ("submit", "status", "cancel", "clear", "tail", "close", "offer_script_dir")
    },
    **{f"ExecutionProvider.{name}": _ASKED_BY_USERS for name in ("find", "current_capacity")},
    **{
        f"ExecutionProvider.{name}": _DATA
        for name in (
            "appears_within_s",
            "delivers_files",
            "shares_nodes",
            "asks_for_use",
            "expected_use",
            "keeps_ended",
            "starts_on_each_node",
            "locality",
            "label",
            "nodes_per_block",
            "cores_per_node",
            "mem_per_node",
            "walltime_s",
            "init_blocks",
            "min_blocks",
            "max_blocks",
            "parallelism",
        )
    },
    **{
        f"Config({name}=)": _DATA
        for name in (
            "app_cache",
            "checkpoint_files",
            "checkpoint_mode",
            "checkpoint_period",
            "data_management_max_threads",
            "initialize_logging",
            "lazy_errors",
            "max_idletime",
            "retries",
            "run_dir",
            "strategy_period",
            "usage_tracking",
            "usage_address",
            "infrastructure_retries",
            "max_worker_kills",
            "max_pending",
            "exit_mode",
            "unseen_failures",
            "log_format",
            "log_level",
            "name",
            "output_conflicts",
            "run_dir_mode",
            "trust_owner",
            "hook_timeout",
            "warn_before_end_s",
        )
    },
    **{f"Config({name}=)": _ELSEWHERE_IN_TABLE for name in ("executors", "monitoring", "memoizer", "sinks", "staging")},
    "Config(strategy=)": _OF_BLOCKS,
    **{
        f"ThreadPoolExecutor({name}=)": _DATA
        for name in (
            "label",
            "max_threads",
            "thread_name_prefix",
            "working_dir",
            "managed",
        )
    },
    "ThreadPoolExecutor(storage_access=)": _ELSEWHERE_IN_TABLE,
    **{
        f"{kind}({name}=)": _DATA
        for kind in _OF_MANAGERS
        for name in (
            "label",
            "launch_cmd",
            "worker_ports",
            "worker_port_range",
            "interchange_port_range",
            "working_dir",
            "worker_debug",
            "cores_per_worker",
            "mem_per_worker",
            "max_workers",
            "prefetch_capacity",
            "heartbeat_threshold",
            "sleep_threshold",
            "heartbeat_period",
            "poll_period",
            "suppress_failure",
            "managed",
            "worker_logdir_root",
            "encrypted",
            "available_accelerators",
            "cpu_affinity",
            "drain_period",
            "manager_selector",
            "loopback_address",
            "max_result_bytes",
            "max_worker_log_bytes",
            "max_transfer_bytes",
            "max_workers_per_node",
            "block_start_timeout",
            "recovery_timeout",
            "python",
            "bootstrap",
            "environment",
            "code",
            "hold_bad_nodes",
            "container",
        )
    },
    "ExtremeScaleExecutor(ranks_per_node=)": _DATA,
    **{
        f"{kind}({name}=)": _OF_BLOCKS
        for kind in _OF_MANAGERS
        for name in (
            "provider",
            "address",
            "block_error_handler",
        )
    },
    **{f"{kind}(storage_access=)": _ELSEWHERE_IN_TABLE for kind in _OF_MANAGERS},
    **{
        f"{app}({name}=)": _DATA
        for app in ("python_app", "bash_app", "mpi_app", "join_app")
        for name in (
            "data_flow_kernel",
            "walltime",
            "executors",
            "cache",
            "cache_files",
            "cache_globals",
            "ignore_for_cache",
            "rerun_on_loss",
            "snapshot",
            "warn_before_end_s",
            "warn_signal",
            "grow_on_retry",
        )
    },
    **{
        f"mpi_app({name}=)": _DATA
        for name in ("ranks", "nodes", "ranks_per_node", "cores_per_rank", "gpus_per_rank", "exclusive", "gather")
    },
    "HighThroughputExecutor(mpi_launcher=)": _IN_TASK,
    **{f"{app}(function=)": _IN_TASK for app in ("python_app", "bash_app", "mpi_app", "join_app")},
}
"""Why a place has no case above."""

__all__ = ["CASES", "ELSEWHERE", "Case", "every_place", "plain"]

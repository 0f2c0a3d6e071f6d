"""What the executors on Work Queue and TaskVine have in common: their options, and functions as source text."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

from flow_core.errors import ConfigurationError, TaskRefused
from flow_core.interfaces.call import Call, TryKey
from flow_core.interfaces.task_fields import HONOURED_BY_ALL
from flow_core.option_records import about, at_least
from flow_core.remote.source_call import SourceCall
from flow_executors.engines.executor import EngineExecutor, EngineOptions


def _wrong_names(value: object) -> str:
    well = value is None or (
        isinstance(value, Mapping)
        and all(isinstance(name, str) and name and "=" not in name for name in value)
        and all(isinstance(text, str) for text in value.values())
    )
    return "" if well else "must be a dict of texts by name, such as {'MODE': 'fast'}"


@dataclass(eq=False, repr=False)
class CctoolsOptions(EngineOptions):
    """The options of executors on Work Queue and TaskVine."""

    _: KW_ONLY
    project_name: str | None = field(
        default=None,
        metadata=about(
            "Name under which the manager announces itself to a catalog server (``CATALOG_HOST``), so that workers "
            "find it (``-M NAME``); unique among its managers. None: it announces itself nowhere."
        ),
    )
    project_password: str | None = field(
        default=None, metadata=about("Password that workers need. None: one is made for blocks of the executor's own.")
    )
    project_password_file: str | None = field(default=None, metadata=about("File with that password."))
    port: int = field(default=0, metadata=about("TCP port for workers; 0 for one that is free.", at_least(0)))
    host: str | None = field(
        default=None,
        metadata=about(
            "Name or address of this machine at which workers of blocks reach the manager. None: ``127.0.0.1`` where "
            "blocks are on this machine, else its host name."
        ),
    )
    env: Mapping[str, str] | None = field(
        default=None, metadata=about("Environment variables of all tasks.", _wrong_names, untyped=True)
    )
    shared_fs: bool = field(
        default=False,
        metadata=about(
            "Whether workers see the script's disk under the same paths: then no file is sent to them, nor renamed."
        ),
    )
    source: bool = field(
        default=False,
        metadata=about(
            "Whether functions go as source text and are compiled by the worker, whose Python may then be of another "
            "release. They may use nothing but their arguments and what they import themselves."
        ),
    )
    init_command: str = field(
        default="", metadata=about("Shell command before that of each task, such as ``source env/bin/activate``.")
    )
    full_debug: bool = field(
        default=True, metadata=about("Whether Work Queue writes its debug log into the executor's directory.")
    )
    see_worker_output: bool = field(
        default=False, metadata=about("Whether what tasks print appears on the standard output of the script.")
    )
    learn_sizes: bool = field(
        default=False,
        metadata=about(
            "Whether the library measures cores, memory and disk of tasks, and gives later tasks of the same function "
            "what earlier ones took. Needs its ``resource_monitor``."
        ),
    )
    gpus_per_node: int = field(default=0, metadata=about("Accelerators of a node of a block.", at_least(0)))
    worker_options: tuple[str, ...] = field(
        default=(), metadata=about("Further words of the command of a block's workers.", untyped=True)
    )
    worker_program: str = field(
        default="", metadata=about("The worker's program on the nodes: a command or a path there.")
    )
    manager_python: str | None = field(
        default=None,
        metadata=about(
            "Python of this machine that has ``ndcctools``, in which the library runs. None for the script's own."
        ),
    )
    ssl_certificate: str | None = field(
        default=None, metadata=about("Certificate file: workers then talk to the manager by TLS; with ``ssl_key``.")
    )
    ssl_key: str | None = field(default=None, metadata=about("Key file of that certificate."))


class CctoolsExecutor(CctoolsOptions, EngineExecutor):
    """What the executors on Work Queue and TaskVine have in common."""

    honours = HONOURED_BY_ALL.union(("cores", "memory", "disk", "gpus", "priority"))
    kills = True
    engine_name = ""

    @property
    def borrowed(self) -> bool:
        """Whether workers are started by somebody else: so it is without a provider."""
        return self.provider is None

    @property
    def carries_files(self) -> bool:  # type: ignore[override]  # of each instance
        """Whether it moves files of tasks."""
        return not self.shared_fs

    def __post_init__(self) -> None:
        self.bound_port = 0  # to which workers connect, while it is started
        super().__post_init__()
        name = f"{type(self).__name__} {self.label!r}"
        if self.project_password is not None and self.project_password_file is not None:
            raise ConfigurationError(
                f"{name}: project_password and project_password_file both name a password: give one"
            )
        if (self.ssl_certificate is None) != (self.ssl_key is None):
            raise ConfigurationError(f"{name}: ssl_certificate and ssl_key belong together")
        if self.port > 65535:
            raise ConfigurationError(f"{name}: port={self.port} is no port")

    def ineffective_options(self) -> list[str]:
        """Return a sentence for each option that was given and changes nothing."""
        sentences = super().ineffective_options()
        # The Python of tasks is theirs too where their workers are somebody's.
        sentences = [one for one in sentences if not one.startswith("python=")]
        if self.borrowed:
            given = {"host": self.host, "gpus_per_node": self.gpus_per_node, "worker_options": self.worker_options}
            sentences += [
                f"{one}={value!r} has no effect: workers are started by somebody else"
                for one, value in given.items()
                if value
            ]
        if self.working_dir is not None and not self.shared_fs:
            sentences.append(
                f"working_dir={self.working_dir!r} has no effect without shared_fs: tasks have a sandbox each"
            )
        return sentences

    def submit(self, key: TryKey, call: Call, /) -> None:
        """Take one try. Any thread; does not wait for the engine. Raises ExecutorClosed, ExecutorBroken."""
        super().submit(key, self._by_source(call) if self.source else call)

    def _by_source(self, call: Call) -> Call:
        try:
            func = source_of(call.func)
        except TaskRefused:
            return call  # goes as ever
        return Call(func, call.args, call.kwargs, call.spec, call.steps)

    def opening(self) -> dict[str, object]:
        """Return what its library is told at its start beside the options that both have."""
        return {}


def source_of(func: object) -> SourceCall:
    """Return a function as source text. Raises TaskRefused: there is none, or it uses what lies around it."""
    name = getattr(func, "__name__", repr(func))
    code = getattr(func, "__code__", None)
    if code is None or code.co_freevars or name == "<lambda>":
        raise TaskRefused(f"{name} cannot go as source text: it is no plain function of its own")
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(func)))  # type: ignore[arg-type]  # it has code
    except (OSError, TypeError, SyntaxError) as error:
        raise TaskRefused(f"the source of {name} cannot be read: {error}") from error
    found = tree.body[0]
    if not isinstance(found, ast.FunctionDef):
        raise TaskRefused(f"{name} cannot go as source text: it is no plain function")
    found.decorator_list = []
    return SourceCall(name, ast.unparse(found))

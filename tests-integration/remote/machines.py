"""A laptop on which scripts run, and nodes that share nothing with it; see ``services/second_machine.sh``."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from provider_services import SERVICES, exports, missing

PATIENCE_S = 60.0
_LOG_CHARS = 6000
PROJECT = "/home/bob/proj"
"""Where scripts of the laptop are: no node has this path, or can make it."""
PYTHON = "/opt/flowenv/bin/python"
"""The Python of nodes that have Flow."""

_SCRIPT = SERVICES / "second_machine.sh"

PREAMBLE = '''\
"""A script of the laptop's user, who may log in as alice on the nodes by the key in ~/.ssh."""
import json
import os
import sys
import threading
import time

import flow_core as flow
from flow_core import AUTO_LOGNAME, Config, File, bash_app, python_app
from flow_executors import HighThroughputExecutor, LowLatencyExecutor
from flow_providers import AdHocProvider, LocalProvider
from flow_providers.channels.ssh import SSHChannel

FLOWENV = {"worker_init": "source /opt/flowenv/bin/activate"}


TELLING = threading.Lock()  # callbacks of futures tell, too


def tell(**said):
    with TELLING:
        print(json.dumps(said), flush=True)


def channels(*hosts, **options):
    return [SSHChannel(host, username="alice", **options) for host in hosts]


def executor(*hosts, kind="htex", channel=None, provider=None, **options):
    provider = AdHocProvider(channels(*hosts, **(channel or {})), **{**FLOWENV, **(provider or {})})
    made = {"htex": HighThroughputExecutor, "llex": LowLatencyExecutor}[kind]
    defaults = {"max_workers": 2, "cores_per_worker": 0.1} if kind == "htex" else {}
    return made(label=kind, provider=provider, **{**defaults, **options})


def config(*hosts, options=None, **others):
    return Config(executors=[executor(*hosts, **others)], strategy="none", **(options or {}))


@python_app
def where():
    import os

    return os.uname().nodename


@python_app
def nap(seconds):
    import os
    import time

    time.sleep(seconds)
    return os.uname().nodename


def everywhere(nodes, patience_s=50):
    """Return the names of the nodes that do tasks, once there are as many."""
    seen, end = set(), time.monotonic() + patience_s
    while len(seen) < nodes and time.monotonic() < end:
        seen |= {one.result(timeout=patience_s) for one in [nap(0.05) for _ in range(4 * nodes)]}
    return sorted(seen)


'''


def wait_until(condition: Callable[[], object], failure: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds; fail with a text, and what was seen last, if it takes longer."""
    end = time.monotonic() + patience_s
    while not (seen := condition()):
        if time.monotonic() > end:
            pytest.fail(f"{failure} within {patience_s:g} s; last seen: {seen!r}")
        time.sleep(0.1)


class Machines:
    """The machines of one test. One thread.

    Attributes:
        nodes: Addresses of the nodes that were started, by number.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._scripts: list[Script] = []
        self.nodes: dict[int, str] = {}

    # -- machines

    def start(self, *numbers: int, **faults: str) -> None:
        """Start nodes (and, first, the laptop) with the faults of the script's head: ``SM_RO_HOME="1"``."""
        started = self._call("start", *map(str, numbers), timeout_s=300, check=False, **faults)
        if started.returncode != 0:
            missing(f"second machines do not start: {started.stderr.strip()[-1000:]}")
        told = exports(started.stdout)
        self.nodes.update({number: told[f"SM_NODE{number}"] for number in numbers})

    def do(self, verb: str, *arguments: object, **environment: str) -> str:
        """Let the script do a verb of its head: ``do("cut", 1)``; return what it printed."""
        return self._call(verb, *map(str, arguments), **environment).stdout

    def service(self, script: Path, *arguments: object) -> str:
        """Let another script do a verb on these machines, such as to start a batch system; return what it printed."""
        return self._call(*map(str, arguments), script=script, timeout_s=100).stdout

    def on(self, node: int, command: str) -> str:
        """Run a shell command as root on a node."""
        return self.do("exec", node, "sh", "-c", command)

    def put(self, node: int, path: str, content: bytes) -> None:
        """Write a file of alice's on a node, that nobody else may read."""
        text = b64encode(content).decode()
        self.on(node, f"umask 077; echo {text} | base64 -d >{path}; chown alice {path}")

    def processes(self, node: int) -> list[str]:
        """Return the command lines of all that runs on a node and is not of the node itself."""
        lines = [line.split(None, 4) for line in self.do("ps", node).splitlines()]
        return [fields[4] for fields in lines if len(fields) == 5 and not fields[4].endswith("<defunct>")]

    def written(self, node: int) -> list[str]:
        """Return the paths of all files on a node that were not there when it started."""
        return sorted(self.do("disk", node).splitlines())

    def power_off(self) -> None:
        """Take the laptop's power away: its link goes silent, and then all its processes end at once."""
        self.do("cut", "laptop")
        os.kill(self._laptop(), signal.SIGKILL)

    def sleep(self, seconds: float) -> None:
        """Let the laptop sleep: its link is away, and none of its processes runs."""
        self.do("cut", "laptop")
        there = self._all_of_laptop()
        try:
            for pid in there:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
        finally:
            for pid in there:
                os.kill(pid, signal.SIGCONT)
            for script in self._scripts:
                script.go_on()
            self.do("heal", "laptop")

    def stop(self) -> None:
        """End all scripts and machines, and remove what they had. Idempotent."""
        try:
            for script in self._scripts:
                script.close()
        finally:
            self._call("stop", check=False)

    # -- scripts

    @property
    def project(self) -> Path:
        """The laptop's project directory, as this process sees it."""
        return Path(f"/proc/{self._laptop()}/root{PROJECT}")

    def write(self, name: str, text: str) -> None:
        """Write a file into the project."""
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def begin(self, text: str, name: str = "script.py", preamble: str = PREAMBLE, **environment: str) -> Script:
        """Start a script on the laptop, in the project directory."""
        self.write(name, preamble + text)
        given = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SM_DIR": str(self._directory),
            **environment,
        }
        process = subprocess.Popen(
            ["bash", _SCRIPT, "laptop", sys.executable, "-u", name],
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._scripts.append(made := Script(process, self.project / "runinfo"))
        return made

    def run(self, text: str, timeout_s: float = PATIENCE_S, **options: str) -> list[dict[str, object]]:
        """Run a script to its end and return all that it told; fail if it fails."""
        return self.begin(text, **options).ended(timeout_s)

    # -- internals

    def _all_of_laptop(self) -> list[int]:
        """Return the process ids of all that runs on the laptop, but for its first process."""
        first = self._laptop()
        own, found = os.readlink(f"/proc/{first}/ns/pid"), []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.readlink(path / "ns/pid") == own and int(path.name) != first:
                    found.append(int(path.name))
        return found

    def _laptop(self) -> int:
        holder = (self._directory / "laptop" / "pid").read_text().strip()
        return int(Path(f"/proc/{holder}/task/{holder}/children").read_text().split()[0])

    def _call(
        self,
        *arguments: str,
        timeout_s: float = 50,
        check: bool = True,
        script: Path = _SCRIPT,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        given = {**os.environ, "SM_DIR": str(self._directory), **environment}
        log = self._directory.with_suffix(".out")  # not pipes: what a start leaves running would hold them
        with log.open("w+") as out, log.with_suffix(".err").open("w+") as errors:
            done = subprocess.run(
                ["bash", script, *arguments], env=given, stdout=out, stderr=errors, timeout=timeout_s, check=False
            )
            out.seek(0)
            errors.seek(0)
            result = subprocess.CompletedProcess(done.args, done.returncode, out.read(), errors.read())
        if check and result.returncode != 0:
            pytest.fail(f"{script.name} {' '.join(arguments)} ended with {result.returncode}: {result.stderr}")
        return result


class Script:
    """A script that runs on the laptop. One thread."""

    def __init__(self, process: subprocess.Popen[str], runs: Path) -> None:
        self._process = process
        self._runs = runs
        self._told: queue.Queue[dict[str, object] | None] = queue.Queue()
        self._errors: list[str] = []
        self._all: list[dict[str, object]] = []
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._read, self._read_errors)]
        for thread in self._threads:
            thread.start()

    @property
    def errors(self) -> str:
        """Its standard error so far, and the ends of the logs of its runs."""
        logs = [
            f"\n{log.parent.name}/flow.log: {log.read_text()[-_LOG_CHARS:]}" for log in self._runs.glob("*/flow.log")
        ]
        return "".join([*self._errors, *logs])

    @property
    def pid(self) -> int:
        """The process id of the script itself; waits until there is one."""
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        wait_until(lambda: path.read_text().split(), "the script has no process")
        return int(path.read_text().split()[0])

    def told(self, timeout_s: float = PATIENCE_S) -> dict[str, object]:
        """Return the next thing that it tells; waits for it."""
        try:
            said = self._told.get(timeout=timeout_s)
        except queue.Empty:
            pytest.fail(f"the script told nothing for {timeout_s:g} s; its standard error:\n{self.errors}")
        if said is None:
            self._threads[1].join(5)
            pytest.fail(f"the script ended ({self._process.wait(5)}); its standard error:\n{self.errors}")
        return said

    def ended(self, timeout_s: float = PATIENCE_S) -> list[dict[str, object]]:
        """Wait until it has ended well and return all that it told."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the script does not end within {timeout_s:g} s; its standard error:\n{self.errors}")
        for thread in self._threads:
            thread.join(5)
        if code != 0:
            pytest.fail(f"the script ended with {code}; it told {self._all}; its standard error:\n{self.errors}")
        return self._all

    def go_on(self) -> None:
        """Continue what started it, which stops itself when it sees the script stopped."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it, and nothing that it started, with SIGKILL; wait for that."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def close(self) -> None:
        """End it, if it runs."""
        if self._process.poll() is None:
            self.kill()
        for thread in self._threads:
            thread.join(10)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                said = json.loads(line)
                self._all.append(said)
                self._told.put(said)
        self._told.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)

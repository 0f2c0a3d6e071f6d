"""Count the files and functions of Flow that one event enters, in each process: what a reader of that way has to open.

    python benchmarks/house/trace.py [--events threads,threads-again,htex,htex-again,chain,...] [--names]

Each event happens once in a fresh script. The first call of an app looks at its function, and sends it; ``-again`` is
the second call. A function counts when it is first entered after the event began and before it was over, in each
process for itself; comprehensions and lambdas count as functions; the total counts a file, or a function, once. Code of
import time (bodies of modules and of classes) is not counted. ``--names`` lists the functions.

A directory with a ``sitecustomize`` on ``PYTHONPATH`` puts a profile function into every thread of every process, which
looks at one byte of a mapped file to know whether the event is going on. A profiled run is slow: no time is reported.
"""

from __future__ import annotations

import argparse
import collections
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_PROFILE = """
import mmap, os, sys, threading

_folder = os.environ.get("FLOW_TRACE")
if _folder:
    _descriptor = os.open(_folder + "/going", os.O_RDONLY)
    _going = mmap.mmap(_descriptor, 1, prot=mmap.PROT_READ)
    os.close(_descriptor)
    _seen, _of = set(), [os.getpid()]

    def _entered(frame, event, _argument):
        if event != "call" or _going[0] != 1:
            return
        code = frame.f_code
        if _of[0] != os.getpid():
            _of[0] = os.getpid()
            _seen.clear()
        if code in _seen:
            return
        _seen.add(code)
        name = code.co_filename
        # Bodies of modules and classes have no variables of their own: they run when something is imported.
        if "/flow" in name and code.co_flags & 1:
            out = os.open(f"{_folder}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open("/proc/self/cmdline", "rb") as file:
                command = file.read().replace(b"\\0", b" ").decode(errors="replace").strip()
            with open("/proc/self/comm") as file:
                command += " # " + file.read().strip()
            os.write(out, f"{name}\\t{code.co_qualname}\\t{code.co_firstlineno}\\t{command}\\n".encode())
            os.close(out)

    threading.setprofile(_entered)
    sys.setprofile(_entered)
"""

_SCRIPT = """
import mmap, os, sys, threading, time
import flow

folder, event = os.environ["FLOW_TRACE"], sys.argv[1]
descriptor = os.open(folder + "/going", os.O_RDWR)
going = mmap.mmap(descriptor, 1)

@flow.python_app
def plus(x):
    return x + 1

@flow.python_app(cache=True)
def kept(x):
    return x + 1

@flow.python_app
def size(inputs=()):
    return inputs[0].size if hasattr(inputs[0], "size") else len(open(inputs[0]).read())

def traced(call):
    going[0] = 1
    answer = call()
    going[0] = 2
    return answer

def pool(**options):
    return flow.HighThroughputExecutor(max_workers=1, **options)

def run(config, call, first=None):
    with flow.load(config):
        if first is not None:
            first()
        traced(call)

def idle():
    deadline = time.monotonic() + 60
    executor = flow.dfk().executors["htex"]
    while not executor.connected_managers() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)  # the worker has been forked and waits

options = {"run_dir": folder + "/runinfo"}
def before():
    if event.startswith("htex") or event == "chain":
        idle()  # what the start of a worker enters is not the call's
    if event.endswith("-again"):
        plus(1).result(60)
        time.sleep(1.0)  # what follows a result, such as acknowledgements, is over

if event.startswith("threads"):
    run(flow.Config(executors=[flow.ThreadPoolExecutor()], **options), lambda: plus(1).result(60), before)
elif event.startswith("htex") or event == "chain":
    call = (lambda: plus(plus(1)).result(60)) if event == "chain" else (lambda: plus(1).result(60))
    run(flow.Config(executors=[pool(label="htex")], **options), call, before)
elif event == "cached":
    run(flow.Config(executors=[flow.ThreadPoolExecutor()], **options), lambda: kept(1).result(60),
        lambda: kept(1).result(60))
elif event == "http":
    import functools, http.server
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with open(folder + "/data", "w") as file:
        file.write("data")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/data"
    run(flow.Config(executors=[flow.ThreadPoolExecutor()], **options),
        lambda: size(inputs=[flow.File(url)]).result(60))
elif event == "monitored":
    hub = flow.MonitoringHub()
    run(flow.Config(executors=[flow.ThreadPoolExecutor()], monitoring=hub, **options),
        lambda: (plus(1).result(60), time.sleep(3.0)))  # the projection follows the run within a second
elif event == "block":
    provider = flow.providers.LocalProvider(init_blocks=0, min_blocks=0, max_blocks=1)
    run(flow.Config(executors=[pool(provider=provider)], **options), lambda: plus(1).result(60))
"""

_EVENTS = {
    "threads": "plain call, threads",
    "threads-again": "a second plain call, threads",
    "htex": "plain call, HighThroughputExecutor",
    "htex-again": "a second plain call, HighThroughputExecutor",
    "chain": "f(f(1)), HighThroughputExecutor",
    "cached": "cache hit, threads",
    "http": "http File in, threads",
    "monitored": "plain call with monitoring, to the database",
    "block": "0 to 1 block and the first task",
}
_TIMEOUT_S = 120.0


def _role(command: str) -> str:
    """Name a process by its command line and name."""
    for part, role in (
        ("flow_executors.interchange", "interchange"),
        ("flow_executors.direct", "manager"),
        ("flow_monitor", "projection"),
        ("flow_providers", "providers' helpers"),
    ):
        if part in command:
            return role
    if "flow_executors.manager" in command:
        name = command.rpartition(" # ")[2]
        return "worker" if name.startswith("flow-w") else "fork server" if name != "flow-manager" else "manager"
    return "script"


def trace(event: str) -> dict[str, set[tuple[str, str, int]]]:
    """Carry out an event in a fresh script; return (file, function, line) of what it entered, by kind of process."""
    found: dict[str, set[tuple[str, str, int]]] = collections.defaultdict(set)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(_PROFILE)
        (Path(folder) / "script.py").write_text(_SCRIPT)
        (Path(folder) / "going").write_bytes(b"\0")
        environment = {**os.environ, "FLOW_TRACE": folder, "PYTHONPATH": folder}
        command = [sys.executable, f"{folder}/script.py", event]
        subprocess.run(command, cwd=folder, env=environment, check=True, timeout=_TIMEOUT_S)
        for entry in Path(folder).iterdir():
            if entry.name.isdigit():
                for line in entry.read_text().splitlines():
                    file, name, number, words = line.split("\t")
                    file = file.partition("/src/")[2] or file.rpartition("site-packages/")[2]
                    found[_role(words)].add((file, name, int(number)))
    return found


def main() -> None:
    """Trace the events and print a line for each."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--events", default=",".join(_EVENTS))
    parser.add_argument("--names", action="store_true", help="list the functions, by process and file")
    given = parser.parse_args()
    for event in given.events.split(","):
        found = trace(event)
        every = set().union(*found.values())
        parts = ", ".join(f"{role} {len({f for f, *_ in seen})}/{len(seen)}" for role, seen in sorted(found.items()))
        print(f"{_EVENTS[event]}: {len({f for f, *_ in every})} files, {len(every)} functions ({parts})")
        if given.names:
            for role, seen in sorted(found.items()):
                for file, name, number in sorted(seen):
                    print(f"    {role}: {file}:{number} {name}")


if __name__ == "__main__":
    main()

"""What a worker loads: start-up of thousands of nodes on one file system depends on it."""

import subprocess
import sys

PROBE = """
import sys
before = set(sys.modules)
from flow_executors.manager import fork_client
from flow_executors.worker import bootstrap
bootstrap.preload()
loaded = set(sys.modules) - before
tops = sorted({name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"__mp_main__"})
ours = sorted(name for name in loaded if name.startswith("flow"))
print(tops)
print(ours)
print(len(loaded))
"""

OURS = [
    "flow_core",
    "flow_core.errors",
    "flow_core.guard",
    "flow_core.interfaces",
    "flow_core.interfaces.call",
    "flow_core.interfaces.container",
    "flow_core.lazy",
    "flow_core.loss",
    "flow_core.prctl",
    "flow_core.remote",
    "flow_core.remote.errors",
    "flow_core.remote.faults",
    "flow_core.remote.fetching",
    "flow_core.remote.functions",
    "flow_core.remote.pickling_attributes",
    "flow_core.remote.processes",
    "flow_core.remote.refs",
    "flow_core.remote.run",
    "flow_core.remote.state",
    "flow_core.remote.usage",
    "flow_executors",
    "flow_executors.manager",
    "flow_executors.manager.fork_client",
    "flow_executors.manager.fork_server",
    "flow_executors.manager.process_trees",
    "flow_executors.worker",
    "flow_executors.worker.bootstrap",
    "flow_executors.worker.loop",
    "flow_executors.worker.packets",
    "flow_executors.worker.prints",
    "flow_executors.worker.unpack",
]


def loaded():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=30)
    tops, ours, count = done.stdout.splitlines()
    return eval(tops), eval(ours), int(count)


def test_a_worker_starts_with_the_standard_library_and_the_leaf_alone():
    tops, ours, count = loaded()
    assert set(tops) <= {"flow_core", "flow_executors", "cloudpickle"}
    assert ours == OURS
    assert count < 130

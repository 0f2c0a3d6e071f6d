"""Files, streams and logs of tasks on nodes that share nothing with the script are where they would be without."""

from __future__ import annotations

import time

import pytest
from machines import Machines, wait_until

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

APPS = """
from pathlib import Path
from flow_core import Directory, Glob
from flow_core.events import EventKind, FileStaged


@python_app
def read(inputs=()):
    import os

    return [Path(one).read_text() for one in inputs], os.uname().nodename


@python_app
def write(text, outputs=()):
    import time
    Path(outputs[0]).write_text(text)
    time.sleep(0.1)
    return os.uname().nodename


@bash_app
def say(word, stdout=None, stderr=None):
    return f"echo {word}; echo {word} on $(hostname) >&2"


"""

ORDINARY = """
os.makedirs("data", exist_ok=True)
Path("data/in.txt").write_text("one")
Path("/home/bob/far.txt").write_text("two")

class Sink:
    wants = EventKind.FILE
    events = []

    def start(self, run):
        pass

    def emit(self, events):
        self.events += events

    def close(self, timeout_s):
        return 0


with flow.load(config("node1", "node2", kind=KIND, options={"sinks": [Sink()]})) as kernel:
    everywhere(2)
    told = {}
    given = [File("data/in.txt"), File("/home/bob/far.txt"), File("file:///home/bob/proj/data/in.txt")]
    told["inputs"] = read(inputs=given).result()[0]
    made = [write(str(n), outputs=[File(f"made/{n}.txt")]) for n in range(12)]
    told["made"] = [Path(one.outputs[0].result()).read_text() for one in made]
    told["nodes"] = sorted({one.result() for one in made})
    chained = [read(inputs=[one.outputs[0]]) for one in made]
    told["chain"] = [one.result()[0][0] for one in chained]
    said = [say(str(n), stdout="out.txt", stderr=AUTO_LOGNAME) for n in range(6)]
    told["codes"] = [one.result() for one in said]
    told["out"] = sorted(Path("out.txt").read_text().split())
    told["errors"] = sorted(Path(one.stderr).read_text().split()[0] for one in said)
    told["apart"] = [offer.sees_run for offer in kernel.config.executors[0].connected_managers()]
    told["missing"] = type(read(inputs=[File("none")]).exception()).__name__
moved = [(one.url, one.direction, one.size, one.error) for one in Sink.events if isinstance(one, FileStaged)]
told["moved in"] = sorted({one for one in moved if one[:2] in {("data/in.txt", "in"), ("/home/bob/far.txt", "in")}})
told["moved out"] = sorted(one[2:] for one in moved if one[0].startswith("made/") and one[1] == "out")
tell(**told)
"""


@pytest.mark.parametrize("kind", ["htex", "llex"])
def test_files_and_streams_are_where_they_would_be_without_nodes(machines: Machines, kind: str) -> None:
    machines.start(1, 2)
    (told,) = machines.run(APPS + ORDINARY.replace("KIND", repr(kind)), timeout_s=150)
    numbers = [str(n) for n in range(12)]
    assert told == {
        "inputs": ["one", "two", "one"],
        "made": numbers,
        "nodes": ["node1", "node2"],
        "chain": numbers,
        "codes": [0] * 6,
        "out": numbers[:6],
        "errors": numbers[:6],
        "apart": [False, False],
        "missing": "MissingInputs",
        "moved in": [["/home/bob/far.txt", "in", 3, ""], ["data/in.txt", "in", 3, ""]],
        "moved out": [[len(n), ""] for n in sorted(numbers, key=len)],
    }
    assert [machines.processes(node) for node in (1, 2)] == [[], []]
    for node in (1, 2):
        assert [path for path in machines.written(node) if "/.cache/flow/.flow-staged" in path] == []
    assert list(machines.project.rglob("*.part")) == []


LOGS = """
@python_app
def die():
    import os
    import sys

    print("last words of a worker", file=sys.stderr, flush=True)
    os._exit(3)


with flow.load(config("node1", kind=KIND, options={"infrastructure_retries": 0})) as kernel:
    where().result()
    print_it = say("hello")
    print_it.result()
    tell(error=str(die().exception()))
    run_dir = kernel.run_dir
logs = {path.name: path.read_text() for path in Path(run_dir).glob("*/block-*/*/*.log")}
registered = "registered as manager" in logs.get("manager.log", "")
tell(logs=sorted(logs), manager=registered, words=str(logs).count("last words"))
"""


@pytest.mark.parametrize("kind", ["htex", "llex"])
def test_logs_come_home_and_a_lost_worker_has_its_last_words(machines: Machines, kind: str) -> None:
    machines.start(1)
    said = machines.run(APPS + LOGS.replace("KIND", repr(kind)), timeout_s=150)
    assert "last words of a worker" in str(said[0]["error"])
    logs = said[1]["logs"]
    assert isinstance(logs, list)
    assert {"manager.log", "worker_0.log"} <= set(logs)
    assert said[1]["manager"] is True
    assert said[1]["words"] == 1
    assert [path for path in machines.written(1) if path.endswith(".log") and "/home/" in path] == []


KILLED = """
@python_app
def speak():
    import sys
    import time

    print("words of a task", file=sys.stderr, flush=True)
    time.sleep(100)


QUICK = {"heartbeat_period": 2, "heartbeat_threshold": 8, "options": {"infrastructure_retries": 0}}
with flow.load(config("node1", kind=KIND, **QUICK)) as kernel:
    future = speak()
    known = kernel.config.executors[0]._started().client.directory.words._ends
    while not any("words of a task" in text for _, ends in list(known.values()) for text in ends.values()):
        time.sleep(0.05)
    tell(heard=True)
    tell(error=str(future.exception(timeout=60)))
    run_dir = kernel.run_dir
tell(logs={path.name: path.read_text() for path in Path(run_dir).glob("*/block-*/*/*.log")})
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["htex", "llex"])
def test_the_last_words_of_a_manager_that_is_killed_come_home(machines: Machines, kind: str) -> None:
    machines.start(1)
    script = machines.begin(APPS + KILLED.replace("KIND", repr(kind)))
    script.told(100)
    machines.on(1, "pkill -9 -x flow-manager")
    said = script.ended(100)
    assert "The end of its log:" in str(said[1]["error"])
    assert "registered as manager" in str(said[1]["error"])
    logs = said[2]["logs"]
    assert isinstance(logs, dict)
    assert "registered as manager" in logs["manager.log"]
    assert any("words of a task" in text for name, text in logs.items() if name.startswith("worker"))


BEGUN = """
with open("large.bin", "wb") as stream:
    stream.truncate(3_000_000_000)


@python_app
def large(inputs=(), outputs=()):
    with open(outputs[0], "wb") as stream:
        stream.truncate(2_000_000_000)


QUICK = {"heartbeat_period": 2, "heartbeat_threshold": 8, "options": {"infrastructure_retries": 0}}
with flow.load(config("node1", **QUICK)):
    where().result()
    given = [File("large.bin")] if WAY == "in" else []
    future = large(inputs=given, outputs=[File("made.bin")])
    while future.task_status() != "running":
        time.sleep(0.1)
    tell(begun=True)
"""


def moving(machines: Machines, way: str) -> object:
    """Whether a large file is on its way: part of it is there."""
    if way == "in":
        return [path for path in machines.written(1) if path.endswith(".part")]
    return [path for path in machines.project.glob(".*.part") if path.stat().st_size]


ENDS = """
    if ENDING == "cancel":
        while not os.path.exists("go"):
            time.sleep(0.05)
        future.cancel(kill=True)
    try:
        error = future.exception(timeout=100)
    except BaseException as cancelled:
        error = cancelled
    tell(error=type(error).__name__, made=os.path.exists("made.bin"))
    again = write("small", outputs=[File("small.txt")])
    tell(small=Path(again.outputs[0].result(timeout=60)).read_text())
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.parametrize("ending", ["cancel", "worker"])
def test_a_task_that_ends_while_its_files_move_leaves_nothing(machines: Machines, way: str, ending: str) -> None:
    machines.start(1)
    text = BEGUN.replace("WAY", repr(way)) + ENDS.replace("ENDING", repr(ending))
    script = machines.begin(APPS + text)
    script.told(100)
    wait_until(lambda: moving(machines, way), "nothing moves")
    if ending == "cancel":
        machines.write("go", "")
    else:
        machines.on(1, "pkill -9 flow-w; true")
    said = script.ended(150)
    assert said[1] == {"error": "CancelledError" if ending == "cancel" else "WorkerLost", "made": False}
    assert said[2] == {"small": "small"}
    assert list(machines.project.rglob("*.part")) == []
    assert [path for path in machines.written(1) if ".flow-staged" in path and "/cache" in path] == []


@pytest.mark.slow
def test_a_link_that_is_cut_while_files_move_loses_nothing(machines: Machines) -> None:
    machines.start(1)
    text = """
block = os.urandom(1 << 20)
with open("large.bin", "wb") as stream:
    for number in range(400):
        stream.write(number.to_bytes(4, "little") + block[4:])


@python_app
def turn(file, outputs=()):
    import shutil

    shutil.copyfile(file, outputs[0])


with flow.load(config("node1", options={"retries": 0, "infrastructure_retries": 0})):
    where().result()
    future = turn(File("large.bin"), outputs=[File("made.bin")])
    tell(begun=True)
    future.outputs[0].result(timeout=200)
    tell(same=Path("made.bin").read_bytes() == Path("large.bin").read_bytes())
"""
    script = machines.begin(APPS + text)
    script.told(100)
    wait_until(lambda: moving(machines, "in"), "nothing moves")
    machines.do("cut", 1)
    try:
        time.sleep(12)
    finally:
        machines.do("heal", 1)
    assert script.ended(250)[-1] == {"same": True}


@pytest.mark.slow
def test_nothing_is_left_of_a_manager_that_is_killed_while_files_move(machines: Machines) -> None:
    machines.start(1)
    text = BEGUN.replace("WAY", "'in'") + "    tell(error=type(future.exception()).__name__)\n"
    script = machines.begin(APPS + text)
    script.told(100)
    wait_until(lambda: moving(machines, "in"), "nothing moves")
    machines.on(1, "pkill -9 -x flow-manager")
    assert script.told(60) == {"error": "ManagerLost"}
    wait_until(lambda: not [path for path in machines.written(1) if ".flow-staged" in path], "files are left")
    script.close()


SHARED = """
Path("large.bin").write_bytes(os.urandom(5_000_000))
time.sleep(2.1)  # what was changed just now has no sure version


@python_app
def size(file):
    import os
    import time

    time.sleep(0.3)
    return os.environ["FLOW_WORKER_POOL_ID"], os.path.getsize(file)


with flow.load(config("node1", provider={"init_blocks": 2, "max_blocks": 2})):
    seen, end = {}, time.monotonic() + 60
    while len(seen) < 2 and time.monotonic() < end:
        seen |= dict(one.result(timeout=60) for one in [size(File("large.bin")) for _ in range(4)])
    tell(sizes=sorted(seen.values()))
    while not os.path.exists("go"):
        time.sleep(0.05)
"""


@pytest.mark.slow
def test_managers_of_one_node_share_what_one_has_brought(machines: Machines) -> None:
    machines.start(1)
    script = machines.begin(APPS + SHARED)
    assert script.told(100) == {"sizes": [5_000_000, 5_000_000]}
    kept = "find /home/alice/.cache/flow/.flow-staged-1500/*/cache -type f -size +1000k -printf '%i\\n'"
    inodes = machines.on(1, kept).split()
    assert len(inodes) == 2
    assert len(set(inodes)) == 1
    machines.write("go", "")
    script.ended(60)
    assert [path for path in machines.written(1) if ".flow-staged" in path] == []


def test_a_full_disk_of_a_node_is_named_with_the_node_and_the_path(machines: Machines) -> None:
    machines.start(1)
    cache = "/home/alice/.cache/flow"
    machines.on(1, f"mkdir -p {cache} && chown -R alice /home/alice/.cache")
    machines.on(1, f"mount -t tmpfs -o size=3m,mode=700,uid=$(id -u alice) tmpfs {cache}")
    (said,) = machines.run(
        """
from flow import File


@python_app
def size(inputs=()):
    import os

    return os.path.getsize(inputs[0])


open("big.bin", "wb").write(bytes(8 << 20))
with flow.load(config("node1")):
    tell(error=str(size(inputs=[File("big.bin")]).exception(timeout=50)))
"""
    )
    assert "/big.bin cannot be written: No space left on device (on node node1)" in str(said["error"])


DIRECTORIES = """
for name in ("data/sub", "/home/bob/far"):
    Path(name).mkdir(parents=True, exist_ok=True)
    Path(name, "x").write_text("1")


@python_app
def look(*given, outputs=()):
    for one in outputs:
        Path(one).mkdir()
        Path(str(one), "z").write_text("2")
    os.chdir("/")
    return [[str(one), os.listdir(str(one))] for one in given], given


with flow.load(config("node1", working_dir="/home/alice/made/work")):
    given = Directory("data/sub"), Directory("/home/bob/far")
    made = look(*given, outputs=[Directory("out"), Directory("/home/bob/out")])
    there, back = made.result()
    tell(there=there, back=[str(one) for one in back], out=[os.listdir(str(one.result())) for one in made.outputs])
"""


def test_a_directory_is_text_for_its_path_on_each_side_and_what_was_made_for_it_goes(machines: Machines) -> None:
    machines.start(1)
    (told,) = machines.run(APPS + DIRECTORIES)
    there = told["there"]
    assert isinstance(there, list)
    assert [names for _, names in there] == [["x"], ["x"]]
    assert all(path.startswith("/home/alice/made/work/.flow-staged-") for path, _ in there)
    assert told["back"] == ["data/sub", "/home/bob/far"]
    assert told["out"] == [["z"], ["z"]]
    wait_until(lambda: "made" not in machines.on(1, "ls -A /home/alice"), "the working_dir stays")

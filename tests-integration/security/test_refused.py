"""What another user of the machine, or a page of another site, tries and does not get."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from security_attacker import Attacker

from flow_core.testing import calls
from flow_core.testing.driver import Driver
from flow_executors import HighThroughputExecutor
from flow_executors.runtime import ExecutorRuntime
from flow_executors.testing.local_run import PATIENCE_S, interchange_pid, make_executor, processes_of, run_id_of
from flow_monitor.queries.database import open_database
from flow_monitor.testing.made import make_database
from flow_monitor.testing.synthetic import SyntheticRun
from flow_viz.app import create_app

NETWORK = "{python} -P -m {module} {debug} {options} --addresses=127.0.0.1"

GREET = r"""
import socket, sys
port, mechanism = int(sys.argv[1]), sys.argv[2].encode()
end = socket.create_connection(("127.0.0.1", port), 20)
end.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + mechanism.ljust(20, b"\0") + bytes(32))
commands = {
    b"NULL": b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER",
    b"PLAIN": b"\x05HELLO\x04user\x08password",
    b"CURVE": b"\x05HELLO\x01\x00" + bytes(72) + b"k" * 120,
}
command = commands[mechanism]
got = b""
try:
    end.sendall(b"\x04" + bytes([len(command)]) + command + b"\x00\x05VHELO")
    while True:
        part = end.recv(4096)
        if not part:
            break
        got += part
except OSError as error:
    pass
print("READY" in repr(got[64:]) or "WELCOME" in repr(got[64:]))
"""

LOCAL = r"""
import socket, sys
end = socket.socket(socket.AF_UNIX)
end.settimeout(20)
end.connect("\0" + sys.argv[1])
try:
    end.sendall(b"\x28\0\0\0" + b"k" * 40 + b"\1\0\0\0V")
    print(end.recv(100))
except OSError:
    print(b"")
"""

PROC = """
import os, sys
read = []
for pid in sys.argv[1:]:
    for name in ("environ", "maps", "mem", "stack", "syscall", "fd", "map_files", "fdinfo", "cwd", "root", "exe"):
        path = f"/proc/{pid}/{name}"
        try:
            read.append((path, os.listdir(path) if os.path.isdir(path) else
                         os.readlink(path) if name in ("cwd", "root", "exe") else open(path, "rb").read(64)))
        except OSError:
            pass
print(read)
"""

ASK = """
import socket, sys
port, host = int(sys.argv[1]), sys.argv[2]
end = socket.create_connection(("127.0.0.1", port), 20)
head = f"GET {sys.argv[3]} HTTP/1.1\\r\\n" + "".join(f"{line}\\r\\n" for line in host.split("|") if line)
end.sendall(f"{head}Connection: close\\r\\n\\r\\n".encode())
data = b""
while part := end.recv(65536):
    data += part
print(data.split()[1].decode() if data else "closed")
"""

AUDIT = """
import os, sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if address is not None:
            with open({log!r}, "a") as file:
                print("internet" if isinstance(address, tuple) else "machine", repr(address), sys.argv[:2], file=file)
sys.addaudithook(hook)
"""


@pytest.fixture
def driver(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Driver]:
    made = Driver(make_executor(max_workers=1, **request.param), tmp_path / "run", PATIENCE_S)
    made.start()
    yield made
    made.shutdown()
    made.check()


def pilot_of(driver: Driver) -> ExecutorRuntime:
    executor = driver.executor
    assert isinstance(executor, HighThroughputExecutor)
    assert executor._runtime is not None
    return executor._runtime


@pytest.mark.parametrize("driver", [{"launch_cmd": NETWORK}], indirect=True)
@pytest.mark.parametrize("mechanism", ["NULL", "PLAIN", "CURVE"])
def test_another_user_is_not_greeted_at_the_port_without_a_key(
    driver: Driver, attacker: Attacker, mechanism: str
) -> None:
    interchange = interchange_pid(driver)
    assert attacker.run(GREET, pilot_of(driver).port, mechanism) == "False\n"
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4
    assert interchange_pid(driver) == interchange


@pytest.mark.parametrize("driver", [{}], indirect=True)
def test_another_user_hears_nothing_at_the_socket_within_the_machine(driver: Driver, attacker: Attacker) -> None:
    address = pilot_of(driver)._site.local_address.removeprefix("local:")
    assert attacker.run(LOCAL, address) == "b''\n"
    assert driver.outcome(driver.submit(calls.double, 2)).value == 4


@pytest.mark.parametrize("driver", [{}], indirect=True)
def test_no_process_of_a_run_tells_another_user_more_than_its_command_line(driver: Driver, attacker: Attacker) -> None:
    driver.outcome(driver.submit(calls.double, 2))
    pids = [os.getpid(), *processes_of(run_id_of(driver))]
    assert len(pids) > 2
    assert attacker.run(PROC, *pids) == "[]\n"
    assert "environ" in attacker.run(PROC, "self")  # what it may, it reads


@pytest.fixture(params=["pages", "metrics"])
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """A server without a token on this machine: its port, and what it answers to."""
    database = make_database(tmp_path, SyntheticRun(run_id="r", tasks=10, samples=0))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pages = [sys.executable, "-m", "flow_viz.cli", str(database), "--port", str(port), "--no-token"]
    export = [str(Path(sys.executable).with_name("flow")), "monitor", "export", "prometheus", "-d", str(database)]
    metrics = [*export, "--listen", "127.0.0.1", "--port", str(port), "--no-token"]
    with subprocess.Popen(
        pages if request.param == "pages" else metrics, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            while "http://" not in server.stdout.readline():
                assert server.poll() is None
            yield port, "/" if request.param == "pages" else "/metrics"
        finally:
            server.terminate()


@pytest.mark.timeout(60)
def test_another_user_gets_no_metrics_without_the_token(tmp_path: Path, attacker: Attacker) -> None:
    database = make_database(tmp_path, SyntheticRun(run_id="r", tasks=10, samples=0))
    command = [Path(sys.executable).with_name("flow"), "monitor", "export", "prometheus", "-d", database]
    with subprocess.Popen(
        [*map(str, command), "--listen", "127.0.0.1", "--port", "0"], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            port, token = address.partition("/metrics")[0].rpartition(":")[2], address.rpartition("=")[2]
            for path in ("/metrics", "/", "/metrics?token=", f"/metrics?token={token[:-1]}", "/metrics?token=%FF"):
                assert attacker.run(ASK, port, "Host: localhost", path) == "401\n"
            assert attacker.run(ASK, port, "Host: localhost|Authorization: Basic x", "/metrics") == "401\n"
            assert attacker.run(ASK, port, "Host: localhost", f"/metrics?token={token}") == "200\n"
        finally:
            server.terminate()


HOLD = """
import socket, sys, time
port, held = int(sys.argv[1]), []
print("begun", flush=True)
made, said = 0, False
while True:
    for _ in range(10 if len(held) < 500 else 0):
        end = socket.socket()
        end.settimeout(0.5)
        try:
            end.connect(("127.0.0.1", port))
            end.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\nX-a: ")
        except OSError:
            continue
        held.append(end)
        made += 1
        if made >= 150 and not said:
            print("held", flush=True)
            said = True
    for end in list(held):
        try:
            end.sendall(b"x")
        except OSError:
            held.remove(end)
"""


@pytest.mark.timeout(100)
def test_requests_that_another_user_never_ends_do_not_hold_up_the_metrics(tmp_path: Path, attacker: Attacker) -> None:
    database = make_database(tmp_path, SyntheticRun(run_id="r", tasks=10, samples=0))
    command = [Path(sys.executable).with_name("flow"), "monitor", "export", "prometheus", "-d", database, "--no-token"]
    with subprocess.Popen(
        [*map(str, command), "--listen", "127.0.0.1", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:  # fmt: skip
        assert server.stdout is not None
        port = server.stdout.readline().split()[-1].partition("/metrics")[0].rpartition(":")[2]
        holder = attacker.start(HOLD, port)
        try:
            assert holder.stdout is not None
            assert [holder.stdout.readline() for _ in range(2)] == ["begun\n", "held\n"]
            for _ in range(5):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
                    assert b"flow_" in answer.read()
            assert psutil.Process(server.pid).num_threads() < 100
            assert holder.poll() is None
        finally:
            holder.kill()
            holder.communicate(timeout=30)
            server.terminate()
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()


SQL = [
    "' OR 1=1 --",
    "1; DROP TABLE task_rows",
    "task_id) UNION SELECT run_id FROM workflow --",
    "-1",
    "9" * 40,
    "%00",
    "NaN",
]


def test_no_parameter_of_the_pages_is_taken_for_sql(tmp_path: Path) -> None:
    database = make_database(
        tmp_path, SyntheticRun(run_id="r", tasks=10, samples=0), SyntheticRun(run_id="other", tasks=3, samples=0)
    )
    before = database.read_bytes()
    with open_database(str(database)) as opened, create_app(opened).test_client() as client:
        for place in (
            "/",
            "/workflow/r/tasks",
            "/api/workflows",
            "/api/workflows/r/tasks",
            "/workflow/r/timeline.json",
        ):
            for name in ("q", "sort", "dir", "app", "state", "offset", "limit", "order", "search", "from", "to"):
                for value in SQL:
                    answer = client.get(place, query_string={name: value})
                    assert answer.status_code in (200, 400), (place, name, value)
                    assert "syntax error" not in answer.text
                    assert "other" not in answer.text or place in ("/", "/api/workflows")
        for value in SQL:
            assert client.get("/workflow/r/task/" + value).status_code == 404
            assert client.get(f"/workflow/{value}/tasks").status_code == 404
    assert database.read_bytes() == before


NAMES = [
    "evil.com",
    "localhost.evil.com",
    "127.0.0.1.evil.com",
    "evil.com:80",
    "127.0.0.1@evil.com",
    "[::1].evil.com",
    "",
]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_names_that_others_let_point_here_get_no_answer(served: tuple[int, str], attacker: Attacker) -> None:
    port, path = served
    heads = [f"Host: {name}" for name in NAMES]
    heads += ["", "Host: evil.com|Host: localhost", "Host: evil.com|X-Forwarded-Host: localhost"]
    said = {head: attacker.run(ASK, port, head, path).strip() for head in heads}
    assert {head: status for head, status in said.items() if status not in ("403", "400", "closed")} == {}
    assert attacker.run(ASK, port, "Host: localhost", path) == "200\n"
    for traversal in ("/static/../../../etc/passwd", "/vendor/..%2f..%2fetc/passwd", "/workflow/~2F~2E~2E/"):
        assert attacker.run(ASK, port, "Host: localhost", traversal).strip() in ("400", "404", "308")


SCRIPT = """
import sys, flow
from flow import Config, python_app
from flow.executors import HighThroughputExecutor, ThreadPoolExecutor
from flow.monitoring import MonitoringHub
from flow.providers import LocalProvider

@python_app(executors=["far"])
def double(x):
    return 2 * x

if __name__ == "__main__":
    top = sys.argv[1]
    far = HighThroughputExecutor("far", max_workers=1, provider=LocalProvider())
    executors = [far, ThreadPoolExecutor(label="t")]
    hub = MonitoringHub(logging_endpoint=f"sqlite:///{top}/monitoring.db")
    with flow.load(Config(executors, run_dir=f"{top}/runinfo", monitoring=hub, usage_tracking=True)):
        print(double(1).result())
"""


def test_no_process_of_a_run_contacts_anybody(tmp_path: Path) -> None:
    log, hooks = tmp_path / "contacts", tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(AUDIT.format(log=str(log)))
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)], capture_output=True, text=True, timeout=100,
        check=False, env={**os.environ, "PYTHONPATH": str(hooks)},
    )  # fmt: skip
    assert done.stdout == "2\n", done.stderr
    contacts = log.read_text().splitlines()
    assert [line for line in contacts if line.startswith("machine")]  # so the hook is there
    assert [line for line in contacts if line.startswith("internet")] == []

"""Tasks that each run in a container of podman, beside others that do not; whatever is killed, none is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from container_services import PATIENCE_S, containers

import flow
from flow import Config, Container, File, HighThroughputExecutor, LowLatencyExecutor, bash_app, python_app
from flow.providers import LocalProvider
from flow_core.errors import AppTimeout, BashExitFailure, ContainerError, TaskLost

pytestmark = [pytest.mark.services, pytest.mark.timeout(500)]


@python_app
def where(value: object = None, inputs: list[File] | None = None) -> tuple[bool, object, str]:
    import os

    return os.path.exists("/run/.containerenv"), value, os.getcwd()


@python_app
def place() -> tuple[bool, int, int]:
    import os

    return os.path.exists("/run/.containerenv"), os.getpid(), os.getppid()


@python_app
def fill(mib: int) -> int:
    return len(bytearray(mib << 20))


@python_app(cache=True)
def cached(path: str) -> int:
    with open(path, "a") as log:
        log.write("x")
    return 1


@bash_app
def sh(command: str, inputs: Any = (), outputs: Any = (), stdout: Any = None, stderr: Any = None) -> str:
    return command


@pytest.fixture
def load(
    tmp_path: Path, label: str, monkeypatch: pytest.MonkeyPatch, gone: Callable[[], None]
) -> Iterator[Callable[..., Any]]:
    """Give a function that loads a Config of one executor; it is ended before ``gone`` looks."""
    monkeypatch.chdir(tmp_path)

    def loaded(kind: type[Any] = HighThroughputExecutor, *, retries: int = 0, **options: Any) -> Any:
        if kind is flow.ThreadPoolExecutor:
            executor = kind(label=label, max_threads=2)
        else:
            chosen = {"label": label, "max_workers": 2, "provider": LocalProvider(max_blocks=1)}
            chosen |= {"heartbeat_period": 0.5, "heartbeat_threshold": 15, **options}
            executor = kind(**chosen)
        flow.load(
            Config(
                executors=[executor],
                run_dir=str(tmp_path / "runinfo"),
                retries=retries,
                infrastructure_retries=0,
                strategy_period=0.5,
            )
        )
        return executor

    yield loaded
    flow.clear()


def running(label: str) -> str:
    """Wait for the container of the one task that runs, and return its name."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := containers(label)):
        assert time.monotonic() < deadline, "no container has come"
        time.sleep(0.1)
    return found[0]


def begun(path: Path) -> None:
    """Wait until a task has made a file."""
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} has not come"
        time.sleep(0.05)


@pytest.mark.parametrize("kind", [HighThroughputExecutor, LowLatencyExecutor, flow.ThreadPoolExecutor])
@pytest.mark.parametrize("keep", [False, True])
def test_apps_run_in_the_image_that_they_name_and_others_do_not(
    kind: type[Any], keep: bool, load: Callable[..., Any], image: str, tmp_path: Path
) -> None:
    load(kind)
    container = Container(image, keep=keep)
    assert where.options(container=container)([1, "two"]).result(PATIENCE_S) == (True, [1, "two"], str(tmp_path))
    assert where(3).result(PATIENCE_S) == (False, 3, str(tmp_path))
    said = tmp_path / "said"
    command = "test -e /run/.containerenv && pwd && echo $WORD; echo bad >&2"
    app = sh.options(container=container, environment={"WORD": "a word's"}, stdout=str(said), stderr=str(said) + "2")
    assert app(command).result(PATIENCE_S) == 0
    assert said.read_text() == f"{tmp_path}\na word's\n"
    assert (tmp_path / "said2").read_text() == "bad\n"


def test_files_go_in_and_out_wherever_they_are(
    load: Callable[..., Any], image: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    load()
    far = tmp_path_factory.mktemp("far")
    (far / "in.txt").write_text("12345")
    first = sh.options(container=image)(
        f"cat {far}/in.txt > {far}/new/out.txt; cp {far}/in.txt here.txt",
        inputs=[File(str(far / "in.txt"))],
        outputs=[File(str(far / "new" / "out.txt")), File("here.txt")],
    )
    second = where.options(container=image)(inputs=first.outputs)
    assert second.result(PATIENCE_S)[0]
    assert (far / "new" / "out.txt").read_text() == (tmp_path / "here.txt").read_text() == "12345"


def test_exit_code_and_the_end_of_standard_error_are_those_of_the_command(load: Callable[..., Any], image: str) -> None:
    load()
    for container in (Container(image), Container(image, keep=True)):
        error = sh.options(container=container)("echo what is wrong >&2; exit 42").exception(PATIENCE_S)
        assert isinstance(error, BashExitFailure)
        assert (error.exitcode, error.stderr_tail) == (42, "what is wrong")


@pytest.mark.parametrize("keep", [False, True])
def test_a_walltime_ends_the_container(
    keep: bool, load: Callable[..., Any], image: str, label: str, gone: Callable[[], None]
) -> None:
    load()
    for app in (sh.options(container=Container(image, keep=keep), walltime=1),):
        assert isinstance(app("trap '' TERM; sleep 600").exception(PATIENCE_S), AppTimeout)
    gone()


def test_a_walltime_ends_the_container_of_a_function(
    load: Callable[..., Any], image: str, gone: Callable[[], None]
) -> None:
    load()

    @python_app
    def sleep() -> None:
        import time

        time.sleep(600)

    assert isinstance(sleep.options(container=image, walltime=1.5)().exception(PATIENCE_S), AppTimeout)
    gone()


@pytest.mark.parametrize("keep", [False, True])
def test_a_kill_of_a_task_ends_the_container(
    keep: bool, load: Callable[..., Any], image: str, tmp_path: Path, gone: Callable[[], None]
) -> None:
    load()
    future = sh.options(container=Container(image, keep=keep))(": > begun; trap '' TERM; sleep 600")
    begun(tmp_path / "begun")
    assert future.cancel(kill=True)
    gone()


def test_a_killed_worker_leaves_no_container(
    load: Callable[..., Any], image: str, label: str, tmp_path: Path, gone: Callable[[], None]
) -> None:
    load()
    worker = place().result(PATIENCE_S)[1]
    busy = [sh.options(container=image)(f": > begun{n}; sleep 600") for n in range(2)]
    for number in range(2):
        begun(tmp_path / f"begun{number}")
    parent = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1]
    children = subprocess.run(["pgrep", "-P", parent], capture_output=True, text=True, timeout=20, check=True)
    workers = [pid for pid in map(int, children.stdout.split()) if _name_of(pid).startswith("flow-w")]
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    assert all(isinstance(future.exception(PATIENCE_S), TaskLost) for future in busy)
    gone()


def _name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_a_killed_manager_leaves_no_container(
    load: Callable[..., Any], image: str, tmp_path: Path, gone: Callable[[], None]
) -> None:
    executor = load()
    kept = where.options(container=Container(image, keep=True))
    assert kept().result(PATIENCE_S)[0]
    future = sh.options(container=image)(": > begun; sleep 600")
    begun(tmp_path / "begun")
    (manager,) = [node.pid for node in executor.connected_managers()]
    os.kill(manager, signal.SIGKILL)
    with pytest.raises(TaskLost):
        future.result(PATIENCE_S)
    gone()


def test_a_killed_script_leaves_no_container(image: str, label: str, tmp_path: Path, gone: Callable[[], None]) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        from pathlib import Path
        import flow
        from flow.providers import LocalProvider

        @flow.bash_app
        def sleep(name):
            return f": > {{name}}; sleep 600"

        pool = flow.HighThroughputExecutor(label={label!r}, max_workers=2, provider=LocalProvider(max_blocks=1),
            heartbeat_period=0.5, heartbeat_threshold=10)
        threads = flow.ThreadPoolExecutor(label={label + "-threads"!r})
        flow.load(flow.Config(executors=[pool, threads]))
        sleep.options(container={image!r}, executors=[{label!r}])("one")
        sleep.options(container={image!r}, executors=[{label + "-threads"!r}])("two").result()
        """)
    )
    process = subprocess.Popen([sys.executable, script], cwd=tmp_path)
    try:
        begun(tmp_path / "one")
        begun(tmp_path / "two")
        assert len(containers(label)) == 2
    finally:
        process.kill()
        process.wait(PATIENCE_S)
    gone()


def test_more_memory_than_the_task_asked_for_is_an_error_that_names_137_and_the_limit(
    load: Callable[..., Any], image: str
) -> None:
    load()
    for keep in (False, True):
        asks = {"container": Container(image, keep=keep), "resource_specification": {"memory": 100}}
        assert fill.options(**asks)(10).result(PATIENCE_S) == 10 << 20
        with pytest.raises(ContainerError, match=r"exit code 137 .*here 100 MiB"):
            fill.options(**asks)(600).result(PATIENCE_S)
        with pytest.raises(BashExitFailure, match=r"137(.|\n)*here 100 MiB"):
            sh.options(**asks)("exec python3 -c 'bytearray(600 << 20)'").result(PATIENCE_S)


@pytest.mark.parametrize("keep", [False, True])
def test_a_function_whose_container_needs_more_memory_gets_more_in_the_next_try(
    keep: bool, load: Callable[..., Any], image: str
) -> None:
    load(retries=1)

    @python_app(grow_on_retry={"memory": 8})
    def fill_more(mib: int) -> int:
        return len(bytearray(mib << 20))

    app = fill_more.options(container=Container(image, keep=keep), resource_specification={"memory": 100})
    assert app(400).result(PATIENCE_S) == 400 << 20


@python_app
def rest() -> None:
    import time

    time.sleep(100)


def _watched_monitor(label: str) -> int:
    """Return the process of the one container's monitor as soon as a guard watches it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        monitors = ["pgrep", "-f", f"^[^ ]*conmon .*-n flow-{label}-"]
        told = subprocess.run(monitors, capture_output=True, text=True, timeout=20)
        guards = subprocess.run(["pgrep", "-x", "flow-guard"], capture_output=True, text=True, timeout=20)
        for monitor in told.stdout.split():
            for guard in guards.stdout.split():
                for entry in Path(f"/proc/{guard}/fdinfo").glob("*"):
                    try:
                        if f"Pid:\t{monitor}\n" in entry.read_text():
                            return int(monitor)
                    except OSError:
                        continue
        time.sleep(0.2)
    raise AssertionError("no guard watches the monitor of a container")


@pytest.mark.parametrize("app", [lambda: sh, lambda: rest], ids=["bash", "python"])
def test_a_killed_monitor_fails_the_task_by_its_name(
    load: Callable[..., Any], image: str, label: str, app: Callable[[], Any]
) -> None:
    load()
    called = app().options(container=image)
    future = called("sleep 100") if app() is sh else called()
    os.kill(_watched_monitor(label), signal.SIGKILL)
    with pytest.raises(ContainerError, match=r"conmon, the monitor of the container of .* was killed"):
        future.result(PATIENCE_S)
    assert where.options(container=image)().result(PATIENCE_S)[0]


def test_an_image_that_nobody_has_is_an_error_that_names_it(load: Callable[..., Any], image: str) -> None:
    load()
    with pytest.raises(
        ContainerError, match=r"'localhost/flow-no-such-image:1' is not on node .*podman cannot fetch it"
    ):
        sh.options(container=Container("localhost/flow-no-such-image:1", "podman"))("true").result(PATIENCE_S)
    with pytest.raises(ContainerError, match="podman could not start a container"):
        sh.options(container=Container(image, "podman", options=["--no-such-option"]))("true").result(PATIENCE_S)
    assert where.options(container=image)().result(PATIENCE_S)[0]


def test_two_images_serve_one_pool(load: Callable[..., Any], image: str, tmp_path: Path) -> None:
    load(max_workers=1)
    other = f"{image}-marked"
    with _derived(image, other, "two"):
        read = 'echo "image ${MARK:-one}"'
        for number, name in enumerate((image, other) * 2):
            container = Container(name, "podman", keep=True)
            assert sh.options(container=container, stdout=f"{number}.txt")(read).result(PATIENCE_S) == 0
    assert [(tmp_path / f"{number}.txt").read_text().split()[1] for number in range(4)] == ["one", "two"] * 2


def test_a_cached_call_runs_again_where_its_image_is_another_by_now(
    load: Callable[..., Any], image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flow_core.memo import image_identity

    monkeypatch.setattr(image_identity, "_known", {})
    load()
    log, name = tmp_path / "log", f"{image}-again"
    app = cached.options(container=Container(name, "podman"))
    for mark in ("one", "two"):
        with _derived(image, name, mark):
            image_identity._known.clear()  # as in another run
            for _ in range(2):
                assert app(str(log)).result(PATIENCE_S) == 1
    assert log.read_text() == "xx"


class _derived:  # noqa: N801  (used as a function)
    """A ``with`` block in which there is a further image, with a mark in its environment."""

    def __init__(self, image: str, name: str, mark: str) -> None:
        self._image, self._name, self._mark = image, name, mark

    def __enter__(self) -> None:
        maker = f"{self._image.rpartition(':')[2]}-{os.getpid()}-maker"
        self._podman("create", f"--name={maker}", self._image, "true")
        try:
            self._podman("commit", "--quiet", f"--change=ENV MARK={self._mark}", maker, self._name)
        finally:
            self._podman("rm", "--force", maker)

    def __exit__(self, *_raised: object) -> None:
        self._podman("rmi", "--force", self._name)

    def _podman(self, *words: str) -> None:
        subprocess.run(["podman", *words], capture_output=True, timeout=60, check=True)


def test_kept_containers_are_few_and_end_with_their_workers(
    load: Callable[..., Any], image: str, label: str, gone: Callable[[], None]
) -> None:
    load(max_workers=1)
    for number in range(7):
        container = Container(image, "podman", options=[f"--env=NUMBER={number}"], keep=True)
        assert where.options(container=container)().result(PATIENCE_S)[0]
    names = containers(label)
    assert 1 <= len(names) <= 5  # four, and one that may be ending
    flow.clear()
    gone()


def test_the_docker_client_does_it_on_podmans_socket(
    load: Callable[..., Any], image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: Callable[[], None]
) -> None:
    if shutil.which("docker") is None:
        pytest.skip("no docker client")
    socket = tmp_path / "docker.sock"
    service = subprocess.Popen(["podman", "system", "service", "--time=0", f"unix://{socket}"])
    try:
        begun(socket)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
        load()
        for keep in (False, True):
            container = Container(image, "docker", keep=keep)
            assert where.options(container=container)(1).result(PATIENCE_S)[:2] == (True, 1)
            assert sh.options(container=container)("test -e /run/.containerenv").result(PATIENCE_S) == 0
        late = sh.options(container=Container(image, "docker"), walltime=1)
        assert isinstance(late("sleep 600").exception(PATIENCE_S), AppTimeout)
        flow.clear()
        gone()
    finally:
        service.terminate()
        service.wait(PATIENCE_S)

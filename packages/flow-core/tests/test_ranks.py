"""Functions on ranks: the step around them, with launchers that are none of MPI."""

from __future__ import annotations

import base64
import builtins
import pickle
import shlex
import sys
import zlib
from pathlib import Path

import pytest
from kernel_apps import Load, hold

import flow_core
from flow_core.apps.app import MpiApp
from flow_core.errors import AppException, ConfigurationError, InvalidAppTypeError, TaskRefused
from flow_core.interfaces.call import NodeContext, TaskSpec
from flow_core.interfaces.task_fields import HONOURED_BY_ALL
from flow_core.remote.errors import pack
from flow_core.remote.ranks import DIRECTORY, PIECE, PREFIX, RanksNotBegun, RanksStep, _Errors
from flow_core.remote.run import execute
from flow_core.testing import MemoryExecutor


def launched_by(code: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have a Python program stand for the launcher; what it is to start is in sys.argv."""
    monkeypatch.setenv(PREFIX, shlex.join([sys.executable, "-c", code]))
    monkeypatch.setenv(DIRECTORY, str(folder))


def on_ranks(func: object, *args: object, gather: bool = False) -> object:
    return execute(func, args, {}, TaskSpec(), (RanksStep("app", gather),), NodeContext(main_thread=True))  # type: ignore[arg-type]


MARK = "0f" * 16


def frames(rank: int, error: BaseException) -> list[bytes]:
    data = pickle.dumps(("n2", pack(error)), protocol=5)
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
    return [
        b"\x1eFLOW-RANK %s %d %d %d %d %s\x1f\n"
        % (MARK.encode(), rank, at, len(pieces), zlib.crc32(piece), base64.b64encode(piece))
        for at, piece in enumerate(pieces)
    ]


def test_without_ranks_the_app_says_where_to_call_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PREFIX, raising=False)
    with pytest.raises(AppException, match="runs on ranks, and there are none here: call it in a HighThroughput"):
        on_ranks(len, "abc")


def test_the_launcher_gets_the_program_and_the_result_is_what_it_wrote(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Stands for rank 0: reads the call, and writes what it makes of it.
    code = """
import pickle, sys
gather, task = pickle.load(open(sys.argv[-2], "rb"))
from flow_core.remote.parcel import unpack_packed
from flow_core.remote.parcel_run import run_parcel
open(sys.argv[-1], "wb").write(unpack_packed(run_parcel(task))[0])
"""
    monkeypatch.setenv("PYTHONPATH", str(Path(flow_core.__file__).parents[1]))
    launched_by(code, monkeypatch, tmp_path)
    assert on_ranks(sorted, [3, 1, 2]) == [1, 2, 3]


def test_a_launcher_that_fails_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launched_by("import sys; print('out'); sys.exit('no such host')", monkeypatch, tmp_path)
    with pytest.raises(AppException, match=r"(?s)exited with code 1.*no such host") as raised:
        on_ranks(len, "abc")
    assert "no such host" in raised.value.stderr_tail  # type: ignore[attr-defined]


def test_a_launcher_that_ends_well_without_a_result_has_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launched_by("pass", monkeypatch, tmp_path)
    with pytest.raises(AppException, match="exited with code 0, and no rank 0 has returned a result"):
        on_ranks(len, "abc")


def test_a_launcher_that_outlives_rank_0_is_ended_and_the_result_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The child stands for rank 0; the launcher waits for what holds its pipes.
    code = """
import os, pickle, signal, sys
child = os.fork()
if not child:
    with open(sys.argv[-1], "wb") as file:
        file.write(pickle.dumps("of rank 0"))
    os.open(sys.argv[-1] + ".over", os.O_WRONLY)
    os._exit(0)
os.waitpid(child, 0)
signal.pause()
"""
    monkeypatch.setattr("flow_core.remote.ranks._LINGER_S", 0.1)
    launched_by(code, monkeypatch, tmp_path)
    assert on_ranks(len, "abc") == "of rank 0"


def test_ranks_that_do_not_begin_in_time_are_ended_and_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launched_by("import signal; signal.pause()", monkeypatch, tmp_path)
    monkeypatch.setenv("FLOW_MPI_START_TIMEOUT", "0.2")
    with pytest.raises(RanksNotBegun, match=r"within 0.2 s \(FLOW_MPI_START_TIMEOUT\).*OMPI_MCA_btl_tcp_if_include"):
        on_ranks(len, "abc")


def test_ranks_that_have_begun_have_all_the_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Ends a while after the limit, as the clock of the launcher tells.
    code = """
import os, pickle, sys, time
os.close(os.open(sys.argv[-1] + ".begun", os.O_WRONLY))
ends = time.monotonic() + 3.5
while time.monotonic() < ends:
    time.sleep(0.1)
with open(sys.argv[-1], "wb") as file:
    file.write(pickle.dumps("of rank 0"))
"""
    launched_by(code, monkeypatch, tmp_path)
    monkeypatch.setenv("FLOW_MPI_START_TIMEOUT", "3")
    assert on_ranks(len, "abc") == "of rank 0"


@pytest.mark.parametrize("limit", ["soon", "0", "-3", "nan"])
def test_a_limit_of_the_start_that_is_none_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str
) -> None:
    launched_by("pass", monkeypatch, tmp_path)
    monkeypatch.setenv("FLOW_MPI_START_TIMEOUT", limit)
    with pytest.raises(AppException, match=f"FLOW_MPI_START_TIMEOUT='{limit}': it is the seconds"):
        on_ranks(len, "abc")


def test_an_error_of_a_rank_ends_the_launcher_and_names_rank_and_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "frames").write_bytes(b"".join(frames(3, KeyError("gone"))))
    told = f"open({str(tmp_path / 'frames')!r}, 'rb').read().replace({MARK.encode()!r}, os.environb[b'FLOW_MPI_MARK'])"
    launched_by(f"import os, time; os.write(2, {told}); time.sleep(50)", monkeypatch, tmp_path)
    with pytest.raises(KeyError) as raised:
        on_ranks(len, "abc")
    assert "raised by rank 3 on node n2" in raised.value.__notes__


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("import builtins; builtins.unpickled_words = True",))


@pytest.mark.parametrize("mark", [MARK, "0", ""])
def test_words_of_strangers_that_a_rank_prints_are_not_taken_for_its_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], mark: str
) -> None:
    data = pickle.dumps(_Bomb())
    head = f"\x1eFLOW-RANK {mark} 0 0 1 {zlib.crc32(data)} ".replace("  ", " ").encode()
    (tmp_path / "words").write_bytes(head + base64.b64encode(data) + b"\x1f\n")
    code = f"import os, sys; os.write(2, open({str(tmp_path / 'words')!r}, 'rb').read()); sys.exit(3)"
    launched_by(code, monkeypatch, tmp_path)
    with pytest.raises(AppException, match="exited with code 3"):
        on_ranks(len, "abc")
    assert not hasattr(builtins, "unpickled_words")
    assert "FLOW-RANK" in capfd.readouterr().err  # it is printed as it is


def test_an_error_is_put_together_whatever_comes_between_its_pieces(capfd: pytest.CaptureFixture[str]) -> None:
    errors = _Errors(MARK)
    sent = frames(1, ValueError("x" * 2000))
    whole = b"".join(b"line of another rank\n" + piece for piece in sent)
    # One piece is spoilt the first time: the rank says all again.
    spoilt = whole.replace(sent[0][40:60], b"#" * 20)
    for byte in spoilt + whole:
        errors.take(bytes([byte]))
    errors.take(b"")
    assert isinstance(errors.error, ValueError)
    text = capfd.readouterr().err
    assert text.count("line of another rank") == 2 * len(sent)
    assert text.count("FLOW-RANK") == 1


def test_what_ranks_print_passes_also_where_it_looks_like_the_begin_of_a_piece(
    capfd: pytest.CaptureFixture[str],
) -> None:
    errors = _Errors(MARK)
    errors.take(b"a\x1eb")
    errors.take(b"c" * 5000)
    errors.take(b"\x1eend")
    errors.take(b"")
    assert capfd.readouterr().err == "a\x1eb" + "c" * 5000 + "\x1eend"
    assert errors.error is None


def test_an_app_of_ranks_states_what_it_asks_for() -> None:
    @flow_core.mpi_app(nodes=2, ranks_per_node=3, cores_per_rank=2, gather=True)
    def app() -> int:
        return 1

    assert isinstance(app, MpiApp)
    asked = app._options.spec.resources
    assert (asked.nodes, asked.ranks_per_node, asked.ranks, asked.cores_per_rank) == (2, 3, 6, 2)
    assert app.definition.gather is True


def test_an_app_of_ranks_that_states_none_has_one() -> None:
    @flow_core.mpi_app
    def app() -> int:
        return 1

    assert app._options.spec.resources.ranks == 1
    assert app.definition.gather is False


def test_an_app_of_ranks_that_states_none_has_one_with_other_settings_too(load: Load) -> None:
    @flow_core.mpi_app
    def app() -> int:
        return 1

    assert app.options(priority=1)._options.spec.resources.ranks == 1
    assert app.options(resource_specification={"num_nodes": 2})._options.spec.resources.ranks == 2
    executor = MemoryExecutor("able")
    executor.honours = frozenset(("walltime", "memory"))
    load(executor)
    for call in ({"walltime": 5}, {"resource_specification": {"memory": 5}}):
        future = app(**call)
        assert executor.calls[hold(executor)].spec.resources.ranks == 1
        executor.run_all()
        assert "there are none here" in str(future.exception(10))


def test_a_function_on_ranks_is_refused_where_it_asks_to_be_told_of_the_end_of_its_block(load: Load) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'.*len': warn_before_end_s means nothing for a function that runs on"
    ):
        flow_core.mpi_app(ranks=2, warn_before_end_s=5)(len)

    @flow_core.mpi_app(ranks=2)
    def app() -> int:
        return 1

    executor = MemoryExecutor("able")
    executor.honours = HONOURED_BY_ALL.union(("ranks", "warn_before_end_s"))
    load(executor)
    for call in (app.options(warn_before_end_s=5), app.options(resource_specification={"warn_before_end_s": 5})):
        with pytest.raises(
            TaskRefused, match=r"app '.*app' asks for warn_before_end_s=5, and its function runs on ranks"
        ):
            call()


def test_a_function_on_ranks_is_not_told_where_the_config_has_all_apps_told(load: Load) -> None:
    @flow_core.mpi_app(ranks=2)
    def app() -> int:
        return 1

    @flow_core.bash_app
    def command() -> str:
        return "true"

    executor = MemoryExecutor("able")
    executor.honours = HONOURED_BY_ALL.union(("ranks", "warn_before_end_s"))
    load(executor, warn_before_end_s=5)
    told = []
    for call in (app, command.options(resource_specification={"ranks": 2})):
        future = call()
        told.append(executor.calls[hold(executor)].spec.warn_before_end_s)
        executor.run_all()
        future.exception(10)
    assert told == [None, 5.0]


def test_an_app_of_ranks_is_refused_in_a_container(load: Load) -> None:
    @flow_core.mpi_app
    def one() -> int:
        return 1

    @flow_core.mpi_app(ranks=2)
    def two() -> int:
        return 1

    load(MemoryExecutor("memory"))
    for app in (one, two):
        with pytest.raises(ConfigurationError, match=r"Container\('image'\).*no ranks.*'ranks' asks.*the executor"):
            app.options(container="image")
        with pytest.raises(ConfigurationError, match=r"Container\('image'\).*no ranks.*'ranks' asks.*the executor"):
            app(resource_specification={"container": "image"})
    with pytest.raises(TypeError, match=r"mpi_app\(\) has no option 'container'"):
        flow_core.mpi_app(ranks=2, container="image")(len)  # type: ignore[call-overload]


def test_ranks_in_a_container_are_refused_where_a_task_is_run_before_anything_is_pickled() -> None:
    spec = TaskSpec(container=flow_core.Container("image"))
    with pytest.raises(AppException, match=r"runs on ranks cannot run in Container\('image'\)"):
        execute(len, ("abc",), {}, spec, (RanksStep("app"),), NodeContext(main_thread=True))


def test_results_of_rank_0_and_of_all_ranks_are_remembered_apart() -> None:
    def function() -> int:
        return 1

    tags = {flow_core.mpi_app(gather=gather)(function).definition.identity.cache_tag for gather in (False, True)}
    assert len(tags | {flow_core.python_app(function).definition.identity.cache_tag}) == 3


@pytest.mark.parametrize("options", [{"gather": 1}, {"ranks": 0}, {"nodes": 2, "ranks": 1}, {"exclusive": "yes"}])
def test_an_impossible_option_of_an_app_of_ranks_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        flow_core.mpi_app(**options)(len)  # type: ignore[call-overload]


@pytest.mark.parametrize(("option", "meant"), [("cores", "cores_per_rank"), ("gpus", "gpus_per_rank")])
def test_an_app_of_ranks_has_cores_and_accelerators_of_each_rank(option: str, meant: str) -> None:
    with pytest.raises(TypeError, match=rf"has no option '{option}': did you mean '{meant}'\?"):
        flow_core.mpi_app(ranks=2, **{option: 2})(len)  # type: ignore[call-overload]


def test_a_number_in_place_of_the_function_is_told_how_ranks_are_asked_for() -> None:
    with pytest.raises(InvalidAppTypeError, match=r"not of 2; options are given by name, such as @mpi_app\(ranks=2\)"):
        flow_core.mpi_app(2)  # type: ignore[call-overload]


def test_an_unknown_option_of_an_app_of_ranks_names_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"mpi_app\(\) has no option 'rank'.*ranks"):
        flow_core.mpi_app(rank=2)(len)  # type: ignore[call-overload]

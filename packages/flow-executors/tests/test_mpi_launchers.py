"""Launchers of MPI: how each is told where the ranks of a task are, and what the environment of a task says."""

from __future__ import annotations

import pytest

from flow_core.errors import AppException, SerializationError
from flow_executors.common.task_ranks import RankPlace, RankPlacement, RankRequest
from flow_executors.mpi.environment import described, of_daemon, read, variables_of
from flow_executors.mpi.last_words import RankDeath, death_told, launcher_killed
from flow_executors.mpi.launchers import FUNCTION, command_of, kind_of_mpiexec, option_text

SRUN = "srun --overlap --exact --mem=0 --nodes=2 --ntasks=4 --nodelist=n1,n2 --cpus-per-task=3 --ntasks-per-node=2"
PRTE = """PRTE has lost communication with a remote daemon.

  HNP daemon   : [prterun-n3-31058@0,0] on node n3
  Remote daemon: [prterun-n3-31058@0,1] on node n2
"""
EVEN = RankPlacement((RankPlace(1, "n1", 2, 2), RankPlace(2, "n2", 2, 2)))
UNEVEN = RankPlacement((RankPlace(1, "nid00012", 2, 2), RankPlace(2, "nid00007", 1, 1)))


@pytest.mark.parametrize(
    ("launcher", "text", "hostfile"),
    [
        ("openmpi", "mpiexec -n 4 -host n1:2,n2:2", "n1 slots=2\nn2 slots=2\n"),
        ("mpich", "mpiexec -n 4 -hosts n1:2,n2:2", "n1:2\nn2:2\n"),
        ("intelmpi", "mpiexec -n 4 -machinefile /d/hosts", "n1:2\nn2:2\n"),
        (
            "srun",
            SRUN,
            "n1\nn1\nn2\nn2\n",
        ),
        ("jsrun", "jsrun --nrs=4 --rs_per_host=2 --tasks_per_rs=1 --cpu_per_rs=3 --gpu_per_rs=1", "n1\nn1\nn2\nn2\n"),
    ],
)
def test_each_launcher_is_told_its_nodes_in_its_own_words(launcher: str, text: str, hostfile: str) -> None:
    command = command_of(launcher, EVEN, "/d/hosts", cores_per_rank=3, gpus_per_rank=1)
    prefix = command.text[command.text.find("srun ") :] if launcher == "srun" else command.text
    assert (command.launcher, prefix, command.hostfile) == (launcher, text, hostfile)


def test_the_managers_own_step_does_not_lay_out_that_of_the_ranks() -> None:
    words = command_of("srun", EVEN, "/d/hosts").words
    assert words[0] == "env"
    assert {"--unset=SLURM_LABELIO", "--unset=SLURM_DISTRIBUTION", "--unset=SLURM_NTASKS_PER_NODE"} <= {*words}


def test_srun_reads_uneven_ranks_from_a_file() -> None:
    command = command_of("srun", UNEVEN, "/d/hosts")
    assert "--distribution=arbitrary" in command.words
    assert dict(command.variables) == {"SLURM_HOSTFILE": "/d/hosts"}
    assert command.hostfile == "nid00012\nnid00012\nnid00007\n"


def test_aprun_is_given_numbers_of_nodes() -> None:
    places = RankPlacement((RankPlace(1, "nid00012", 2, 2), RankPlace(2, "nid00007", 2, 2)))
    assert command_of("aprun", places, "").text == "aprun -n 4 -N 2 -d 1 -L 12,7"


def test_aprun_refuses_nodes_without_numbers() -> None:
    with pytest.raises(AppException, match="names nodes by numbers"):
        command_of("aprun", EVEN, "")


@pytest.mark.parametrize("launcher", ["aprun", "jsrun"])
def test_a_launcher_of_even_ranks_refuses_others(launcher: str) -> None:
    with pytest.raises(AppException, match="same number of ranks on each node"):
        command_of(launcher, UNEVEN, "")


def test_a_function_of_the_users_own_makes_the_prefix() -> None:
    command = command_of(lambda hosts, ranks: f"mine -w {'+'.join(hosts)} {sum(ranks)}", EVEN, "")
    assert (command.launcher, command.words) == ("function", ("mine", "-w", "n1+n2", "4"))


@pytest.mark.parametrize("made", [None, [], "", [1], 3])
def test_a_function_that_returns_no_command_is_named(made: object) -> None:
    with pytest.raises(AppException, match="given as mpi_launcher returned"):
        command_of(lambda hosts, ranks: made, EVEN, "")  # type: ignore[return-value,arg-type]


def test_a_function_travels_on_the_command_line_unless_it_is_too_long() -> None:
    assert option_text(lambda hosts, ranks: "mine").startswith(FUNCTION)
    data = bytes(range(256)) * 400
    with pytest.raises(SerializationError, match="characters when pickled"):
        option_text(lambda hosts, ranks: str(data))


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("mpiexec (OpenRTE) 4.1.4\n", "openmpi"),
        ("mpiexec (Open MPI) 5.0.11\n", "openmpi"),
        ("HYDRA build details:\n    Version: 5.0.2\n", "mpich"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.9 (HYDRA)\n", "intelmpi"),
        ("mpiexec 1.0\n", ""),
    ],
)
def test_an_mpiexec_is_known_by_its_version(version: str, kind: str) -> None:
    assert kind_of_mpiexec(version) == kind


def test_a_worker_reads_what_the_manager_described() -> None:
    request = RankRequest(2, 2, 4, 1.5, 0.5)
    assert read(described(EVEN, request, "mpich")) == (EVEN, request, "mpich")


def test_a_task_sees_its_ranks_and_every_mpiexec_the_agent() -> None:
    request = RankRequest(2, 2, 4, cores_per_rank=2)
    variables = variables_of(EVEN, request, command_of("mpich", EVEN, "/d/hosts"), "/d")
    shown = {name: variables[name] for name in variables if name.startswith("FLOW_MPI_") or name == "OMP_NUM_THREADS"}
    assert shown == {
        "FLOW_MPI_PREFIX": "mpiexec -n 4 -hosts n1:2,n2:2",
        "FLOW_MPI_LAUNCHER": "mpich",
        "FLOW_MPI_RANKS": "4",
        "FLOW_MPI_NODES": "n1,n2",
        "FLOW_MPI_NODE_COUNT": "2",
        "FLOW_MPI_RANKS_PER_NODE": "2",
        "FLOW_MPI_CORES_PER_RANK": "2",
        "FLOW_MPI_HOSTFILE": "/d/hosts",
        "FLOW_MPI_DIRECTORY": "/d",
        "OMP_NUM_THREADS": "2",
    }
    agents = [value for name, value in variables.items() if name.endswith(("agent", "_EXEC"))]
    assert agents == ["/d/flow-on"] * 4


def test_uneven_ranks_are_told_node_by_node() -> None:
    variables = variables_of(UNEVEN, RankRequest(None, 1, 3), command_of("mpich", UNEVEN, "/d/hosts"), "/d")
    assert variables["FLOW_MPI_RANKS_PER_NODE"] == "2,1"
    assert "OMP_NUM_THREADS" not in variables


def test_a_daemon_has_the_tasks_variables_but_those_of_its_own_node() -> None:
    sent = {
        "MINE": "1",
        "PATH": "/a",
        "SLURM_NODEID": "0",
        "TMPDIR": "/t",
        "FLOW_WORKER_PID": "7",
        "FLOW_SECRET_X": "s",
    }
    here = {"PATH": "/b", "SLURM_NODEID": "1", "CUDA_VISIBLE_DEVICES": "0,1", "FLOW_WORKER_PID": "8", "OTHER": "2"}
    made = of_daemon(sent, here, {"CUDA_VISIBLE_DEVICES": "1"})
    assert made == {"MINE": "1", "PATH": "/a", "SLURM_NODEID": "1", "CUDA_VISIBLE_DEVICES": "1"}


@pytest.mark.parametrize(
    ("text", "node", "how"),
    [
        (
            "mpiexec noticed that process rank 1 with PID 0 on node n2 exited on signal 9 (Killed).",
            "n2",
            "rank 1 was killed by signal 9 (SIGKILL)",
        ),
        (
            "prterun noticed that process rank 3 with PID 14367 on node vm exited on\nsignal 9 (Killed).",
            "vm",
            "rank 3 was killed by signal 9 (SIGKILL)",
        ),
        (
            "=   PID 11955 RUNNING AT n4\n=   EXIT CODE: 9\n=   CLEANING UP REMAINING PROCESSES",
            "n4",
            "a rank was killed by signal 9 (SIGKILL)",
        ),
        (
            PRTE,
            "n2",
            "its daemon of MPI was lost",
        ),
    ],
)
def test_the_last_words_of_a_launcher_tell_who_was_killed(text: str, node: str, how: str) -> None:
    assert death_told(f"noise\n{text}\nmore") == (node, how)


@pytest.mark.parametrize(
    "text",
    ["", "rank 1 on node n2 exited on signal 9", "process rank 1 with PID 4 on node n2 exited on signal 11 (SIGSEGV)"],
)
def test_a_crash_of_the_program_itself_is_no_killing(text: str) -> None:
    assert death_told(text) is None


ABORTED = "Primary job  terminated normally, but 1 process returned\na non-zero exit code. Per user-direction"
EXITED = "mpiexec detected that one or more processes exited with non-zero status, thus causing\nthe job"


@pytest.mark.parametrize("text", [ABORTED, EXITED])
def test_the_exit_code_of_open_mpi_tells_a_killing_where_its_words_name_no_rank(text: str) -> None:
    death = death_told(f"noise\n{text}", 137)
    assert death is not None
    assert (death.node, death.how) == ("", "a rank was killed by signal 9 (SIGKILL): its mpiexec exited with code 137")


@pytest.mark.parametrize(("text", "code"), [(ABORTED, 139), (ABORTED, 1), (ABORTED, None), ("of another program", 137)])
def test_another_exit_code_or_another_program_is_no_killing(text: str, code: int | None) -> None:
    assert death_told(text, code) is None


def test_a_launcher_is_killed_by_sigkill_alone() -> None:
    told = {code: launcher_killed(code) for code in (-9, -11, 0, 1, 137, None)}
    assert told.pop(-9) == RankDeath("", "the launcher of its ranks was killed by signal 9 (SIGKILL)")
    assert set(told.values()) == {None}


def test_a_shell_tells_a_killed_launcher_by_137() -> None:
    told = {code: launcher_killed(code, command_line=True) for code in (-9, 137, -11, 0, 1, 9, None)}
    assert [code for code, death in told.items() if death is not None] == [-9, 137]


@pytest.mark.parametrize(("code", "lost"), [(9, True), (127, False), (255, False), (None, False)])
def test_a_killed_agent_is_known_by_what_open_mpi_says_and_its_exit_code(code: int | None, lost: bool) -> None:
    told = death_told("-----\nORTE was unable to reliably start one or more daemons.\nThis usually is caused by:", code)
    assert (told is not None and "flow-on" in told.how) is lost

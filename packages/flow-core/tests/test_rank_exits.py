"""Exit codes of commands with ranks are explained by what mpiexec says, not as those of a shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow_core.errors import BashExitFailure
from flow_core.interfaces.call import NodeContext, TaskSpec
from flow_core.remote.bash import BashStep
from flow_core.remote.rank_exits_core import how_ranks_ended
from flow_core.remote.ranks import PREFIX
from flow_core.remote.run import execute

MISSING = """mpiexec was unable to find the specified executable file, and therefore
did not launch the job.  This error was first reported for process

Node:       n1
Executable: nosuch
"""
MISSING_OF_5 = """prterun was unable to find the specified executable file, and therefore did
not launch the job.

   Node:       n1
   Executable: nosuch
"""
REFUSED = "mpiexec was unable to launch the specified application as it lacked permissions"
FAILED = "Primary job  terminated normally, but 1 process returned\na non-zero exit code."
SIGNALLED = (
    f"{FAILED}\nmpiexec noticed that process rank 0 with PID 0 on node vm exited on signal 11 (Segmentation fault)."
)
CHOSEN = f"{FAILED}\n  Process name: [[15668,1],1]\n  Exit code:    139\n"


@pytest.mark.parametrize(
    ("code", "tail", "how"),
    [
        (132, MISSING, "with exit code 132: mpiexec could not start the program 'nosuch' (check PATH"),
        (66, MISSING_OF_5, "with exit code 66: mpiexec could not start the program 'nosuch' (check PATH"),
        (126, REFUSED, "with exit code 126: mpiexec could not start the program (check"),
        (255, "[proxy:0] HYDU_create_process: execvp error on file nosuch (No such file)", "the program 'nosuch'"),
        (139, SIGNALLED, "with exit code 139: a rank was ended by signal 11 (SIGSEGV)"),
        (139, FAILED, "with exit code 139: a rank was ended by signal 11 (SIGSEGV), as it seems"),
        (139, CHOSEN, "with exit code 139, which is of its launcher or of a rank"),
        (132, "", "with exit code 132, which is of its launcher or of a rank"),
    ],
)
def test_an_exit_code_of_ranks_is_explained_by_what_mpiexec_says(code: int, tail: str, how: str) -> None:
    assert how in how_ranks_ended(code, tail)


@pytest.mark.parametrize("code", [1, 127, -9])
def test_an_exit_code_that_is_not_of_mpiexec_is_left_to_others(code: int) -> None:
    assert how_ranks_ended(code, "a program's own words") == ""


@pytest.mark.parametrize(
    ("ranks", "how"),
    [(True, "which is of its launcher or of a rank"), (False, "ended by signal 4 (SIGILL), as it seems")],
)
def test_only_a_command_with_ranks_is_explained_so(
    ranks: bool, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(PREFIX, raising=False)
    if ranks:
        monkeypatch.setenv(PREFIX, "mpiexec -n 2")
    where = NodeContext(main_thread=True, directory=str(tmp_path))
    with pytest.raises(BashExitFailure) as raised:
        execute(lambda: "exit 132", (), {}, TaskSpec(), (BashStep("app"),), where)
    assert how in str(raised.value)

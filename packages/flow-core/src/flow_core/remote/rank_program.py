"""What each rank of an app of ranks runs: rank 0 reads the call, all take it by MPI, and rank 0 writes the result."""

from __future__ import annotations

import base64
import os
import pickle
import sys
import time
import zlib
from typing import TYPE_CHECKING, Any

from flow_core.errors import AppException
from flow_core.remote.errors import pack, presentable
from flow_core.remote.ranks import BEGUN, MARK, OVER, PIECE

if TYPE_CHECKING:
    from collections.abc import Callable

_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID", "ALPS_APP_PE")
_AGAIN_S = 0.3
_PATIENCE_S = 30.0  # seconds in which the launcher is ended by who reads the error; then by this


def main() -> None:
    """Run the command line, ``CALL RESULT``: paths of files of the node of rank 0."""
    call, result = sys.argv[1:3]
    sys.argv[:] = [""]
    mark = os.environ.pop(MARK, "")  # before the function: whoever prints all variables does not print this one
    abort: Callable[[], object] = lambda: os._exit(1)  # noqa: E731  (until MPI is there)
    rank = _rank_by_variables()
    error: BaseException | None
    try:
        world = _world()
        rank = world.Get_rank()
        abort = lambda: os._exit(1) if _finalized() else world.Abort(1)  # noqa: E731
        error = _run(world, call, result)
    except BaseException as raised:
        error = raised
    if error is not None:  # other ranks may wait for this one
        _tell(mark, rank, error)
        abort()


def _rank_by_variables() -> int:
    for name in _RANK_VARIABLES:
        text = os.environ.get(name, "")
        if text.isdecimal():
            return int(text)
    return 0


def _world() -> Any:
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise AppException(
            f"mpi4py cannot be imported by {sys.executable} on node {os.uname().nodename} ({error}): apps of ranks "
            "need it in the environment of the workers"
        ) from error
    world = MPI.COMM_WORLD
    expected = int(os.environ.get("FLOW_MPI_RANKS") or world.Get_size())
    if world.Get_size() != expected:
        raise AppException(
            f"the task has {expected} ranks, and MPI sees {world.Get_size()} of them: mpi4py uses "
            f"{MPI.Get_library_version().splitlines()[0]}, which is not the MPI of the launcher "
            f"{os.environ.get('FLOW_MPI_PREFIX', '').partition(' ')[0]!r}: have both of one MPI"
        )
    return world


def _finalized() -> bool:
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is not None and bool(mpi.Is_finalized())


def _run(world: Any, call: str, result: str) -> BaseException | None:
    """Run the function; return what it raised, SystemExit, too."""
    from flow_core.remote.parcel import unpack_packed
    from flow_core.remote.parcel_run import run_parcel

    packed = None
    if world.Get_rank() == 0:
        with open(call, "rb") as file:
            packed = file.read()
    gather, task = pickle.loads(world.bcast(packed, root=0))
    world.Barrier()  # what hangs between any two of them does so here, where it is noticed
    if packed is not None and (begun := _open(result + BEGUN)) >= 0:
        os.close(begun)
    value, error = unpack_packed(run_parcel(task))
    if error is not None:
        return error
    if _finalized():
        return AppException(
            "the function has called MPI.Finalize(), and its result goes to rank 0 by MPI: leave that call out, MPI "
            "ends with the task"
        )
    # All wait for each other: no result counts while a rank may still fail.
    values = world.gather(value if gather or world.Get_rank() == 0 else None, root=0)
    if values is None:
        return None
    returned = pickle.dumps([pickle.loads(one) for one in values], protocol=5) if gather else value
    with open(f"{result}.part", "wb") as file:
        file.write(returned)
    os.replace(f"{result}.part", result)
    # Open until this process ends, by which the worker sees the end. After the function: what that has forked, and left
    # behind, does not have it.
    _open(result + OVER)
    return None


def _open(fifo: str) -> int:
    """Open a FIFO of the worker's for writing."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # the worker waits no more
        return -1


def _tell(mark: str, rank: int, error: BaseException) -> None:
    """Write an error to standard error, again and again until this process is ended, or for half a minute."""
    data = pickle.dumps((os.uname().nodename, pack(presentable(error))), protocol=5)
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
    sys.stderr.flush()
    ends = time.monotonic() + _PATIENCE_S
    while time.monotonic() < ends:
        for number, piece in enumerate(pieces):
            text = base64.b64encode(piece).decode()
            line = f"\x1eFLOW-RANK {mark} {rank} {number} {len(pieces)} {zlib.crc32(piece)} {text}\x1f\n"
            try:
                os.write(2, line.encode())
            except OSError:
                return None
        time.sleep(_AGAIN_S)
    return None

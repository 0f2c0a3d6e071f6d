"""The start of a rank, from its command line to its loop, and its end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from flow_core.errors import FlowError
from flow_core.prctl import become_subreaper
from flow_core.printable import printable
from flow_core.remote.sampling import Sampling
from flow_executors.common.core_dumps import leave_no_core
from flow_executors.common.resources import Capacity
from flow_executors.errors import ExecutorError
from flow_executors.extreme_scale.channel import RankChannel
from flow_executors.extreme_scale.errors_of_mpi import missing, speaks_for_all
from flow_executors.extreme_scale.manager import ExtremeScaleManager
from flow_executors.extreme_scale.rank import RankGivenUp, RankLoop, RankParts
from flow_executors.extreme_scale.rank_files import RankFiles
from flow_executors.extreme_scale.rank_messages import RankMessage
from flow_executors.extreme_scale.rank_pool import RankPool
from flow_executors.extreme_scale.world_core import MOST_RANKS, RankProcess, Seat, World, arrange
from flow_executors.manager.code_cache import BlobFiles
from flow_executors.manager.event_loop import SignalPipe
from flow_executors.manager.file_agent import FileAgent
from flow_executors.manager.fork_client import ForkServerClient
from flow_executors.manager.interchange_link import InterchangeConnection
from flow_executors.manager.interchange_liveness import InterchangeLiveness
from flow_executors.manager.log_cap import LogCap
from flow_executors.manager.manager_core import ManagerCore
from flow_executors.manager.node import accelerator_names, look_at_lifetime, look_at_node, spec_from_text
from flow_executors.manager.node_directory import NodeDirectory
from flow_executors.manager.options import ManagerOptions, from_arguments
from flow_executors.manager.start import (
    FORK_SERVER_S,
    LINGER_S,
    block_secret,
    end_with,
    offer_of,
    open_log,
    pool_environment,
    worker_setup,
    worker_variables,
)
from flow_executors.manager.worker_pool import WorkerPool, raise_file_limit
from flow_executors.wire.messages import ExitCode
from flow_executors.worker.bootstrap import set_name
from flow_providers.interfaces.job_extras import FORWARDS_VARIABLE

# Seconds that ranks have to end their workers at the end, and where one of them is dead, so that MPI ends all.
_ENDED_S = FORK_SERVER_S + 5.0
_HASTE_S = 0.5
# Seconds that the others wait for the rank that says what is wrong with all.
_WORD_S = 5.0

log = logging.getLogger("flow.manager")


@dataclass(frozen=True, slots=True)
class Shared:
    """What rank 0 tells all others at the start."""

    manager_id: str
    workers: int


def main(fork_client: ForkServerClient) -> NoReturn:
    """Run the rank that the command line describes, and end the process."""
    options = from_arguments()
    mpi = _mpi(options)
    end_with(options, lambda: _run(options, fork_client, mpi))


def _mpi(options: ManagerOptions) -> ModuleType:
    """Return mpi4py's MPI, initialised; ends the process where there is none."""
    try:
        settings = import_module("mpi4py")
        settings.rc.thread_level = "funneled"  # only the main thread speaks MPI
        return import_module("mpi4py.MPI")
    except (ImportError, RuntimeError) as error:
        if not speaks_for_all():
            # MPI ends all with the first that fails: the one that says why is to be that.
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
            signal.sigtimedwait((signal.SIGTERM,), _WORD_S)
        else:
            text = missing(sys.executable, f"node {socket.gethostname()}", str(error))
            print(printable(f"flow manager of block {options.block}: {text}"), file=sys.stderr, flush=True)  # noqa: T201 - the job's own stderr
        os._exit(1)


def _run(options: ManagerOptions, fork_client: ForkServerClient, mpi: ModuleType) -> int:
    comm = mpi.COMM_WORLD
    if comm.size < 2:
        arrange([RankProcess(socket.gethostname(), os.getpid())])  # raises
    try:
        status = _serve(options, fork_client, mpi)
    except FlowError as error:
        print(printable(f"flow rank {comm.rank} of block {options.block}: {error}"), file=sys.stderr, flush=True)  # noqa: T201 - the job's own stderr
        status = -1
    except BaseException:
        log.exception("the rank failed")
        import traceback

        traceback.print_exc()
        status = -1
    if status < 0:
        # Without the others, which wait for this rank, there is no orderly end.
        logging.shutdown()
        sys.stderr.flush()
        comm.Abort(1)
    # Whoever ends before MPI is finalised is taken for one that crashed.
    mpi.Finalize()
    return status


def _serve(options: ManagerOptions, fork_client: ForkServerClient, mpi: ModuleType) -> int:
    comm = mpi.COMM_WORLD
    become_subreaper()
    leave_no_core()
    node = look_at_node()
    me = RankProcess(socket.gethostname(), os.getpid(), node.cpu_count, node.memory_total)
    processes = comm.gather(me, root=0)
    world: World | None = None
    shared: Shared | None = None
    if processes is not None:
        if len(processes) > MOST_RANKS:
            raise ExecutorError(
                f"the MPI job of the block has {len(processes)} ranks: at most {MOST_RANKS} can be told apart. Take "
                "more blocks of fewer nodes (nodes_per_block of the provider, max_blocks)"
            )
        world = arrange(processes)
        shared = Shared(f"{options.block}.{me.node}.{me.pid}", len(world.ranks))
    shared = comm.bcast(shared, root=0)
    seat: Seat = comm.scatter(world.seats if world is not None else None, root=0)
    channel = RankChannel(comm, mpi.BYTE, mpi.Status(), (mpi.ANY_SOURCE, mpi.ANY_TAG))
    if world is not None:
        return _serve_first(options, fork_client, channel, world, shared.manager_id)
    return _serve_worker(options, fork_client, channel, seat, shared)


def _serve_first(
    options: ManagerOptions, fork_client: ForkServerClient, channel: RankChannel, world: World, manager_id: str
) -> int:
    """Be the manager of all other ranks."""
    set_name("flow-manager")
    if not fork_client.close(FORK_SERVER_S):  # this rank has no worker
        log.warning("a fork server without workers had to be killed")
    secret = block_secret()
    directory = NodeDirectory(options.working_dir or "")
    log_dir = open_log(options, manager_id, directory)
    workers = len(world.ranks)
    log.info("%d workers on %d nodes", workers, len(world.nodes))
    block = look_at_lifetime(options.walltime)
    capacity = Capacity(workers, 1.0, 0, (), 0)
    blobs = BlobFiles()
    own = FileAgent(directory, options.run_id)
    own.log_dir = log_dir
    files = RankFiles(own)
    pool = RankPool(channel, world, blobs, files, options.heartbeat_threshold)
    files.tell = pool.tell_file
    files.tell_all = lambda message: pool.tell_all(RankMessage.FILE, message)
    files.told_number = pool.registered
    line = InterchangeConnection(options.addresses, options.port, secret, os.environ.get(FORWARDS_VARIABLE, "").split())
    now = time.monotonic()
    manager = ExtremeScaleManager(
        line=line,
        worker_pool=pool,
        core=ManagerCore(capacity, options.prefetch_capacity, now + block.left_s if block.walltime_s else None),
        contact=InterchangeLiveness(
            options.heartbeat_period, options.heartbeat_threshold, now, options.sleep_threshold or 0.0
        ),
        blobs=blobs,
        offer=replace(offer_of(options, look_at_node(), capacity, manager_id, block), nodes=world.nodes, ranks=None),
        run_id=options.run_id,
        files=files,
        drain_at=now + options.drain_period if options.drain_period else None,
        signals=SignalPipe(block),
    ).over(pool)
    leaving = manager.run()
    # The results first: of a job that MPI ends, this process is killed soon.
    line.close(LINGER_S if leaving.code is ExitCode.DONE else 0.5)
    broken = pool.liveness.fell is not None or bool(pool.lost)
    ended = pool.close(_HASTE_S if broken else _ENDED_S)
    blobs.close()
    own.close()
    directory.close()
    if leaving.status:
        print(printable(f"flow manager {manager_id} left: {leaving.reason}"), file=sys.stderr, flush=True)  # noqa: T201 - the job's own stderr
    if not ended and not broken:
        log.warning("not all ranks have ended: MPI ends them")
    return leaving.status if ended else -1


def _serve_worker(
    options: ManagerOptions, fork_client: ForkServerClient, channel: RankChannel, seat: Seat, shared: Shared
) -> int:
    """Be a rank with a worker."""
    set_name(f"flow-rank{seat.worker}")
    directory = NodeDirectory(options.working_dir or "")
    log_dir = open_log(options, shared.manager_id, directory, f"rank_of_worker_{seat.worker}.log")
    raise_file_limit(1)
    blobs = BlobFiles()
    files = FileAgent(directory, options.run_id)
    files.log_dir = log_dir
    node = socket.gethostname()
    fork_client.configure(
        executor=options.executor,
        node=node,
        index_fd=blobs.index_fd,
        log_dir=log_dir,
        environment=pool_environment(options, shared.workers, shared.manager_id),
        working_dir=options.working_dir,
        max_result=options.max_result_bytes,
        usage=bool(options.sampler),
        files=files.name,
        scratch=directory.places,
    )
    of_node = worker_setup(options, seat.together, accelerator_names(options.accelerators.split()))

    def setup(worker: int) -> tuple[dict[str, str], Sequence[int]]:
        # CPUs and accelerators are shared out within the node, numbers of workers within the block.
        environment, cpus = of_node(seat.place)
        return environment | worker_variables(RANK=str(worker)), cpus

    pool = WorkerPool(fork_client, setup)
    sampling = Sampling(spec_from_text(options.sampler), time.monotonic()) if options.sampler else None
    logs = LogCap([str(Path(log_dir) / f"worker_{seat.worker}.log")], options.max_worker_log_bytes)
    if log_dir and options.max_worker_log_bytes:
        logs.start()
    loop = RankLoop(
        RankParts(
            channel, seat, node, pool, blobs, files, sampling, options.heartbeat_period, options.heartbeat_threshold
        )
    )
    status = 0
    try:
        loop.run()
    except RankGivenUp as error:
        log.error("%s: the job is ended", error)
        status = -1
    logs.stop()
    # A job that MPI ends is killed soon: what workers have started is to be gone by then.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not pool.close(FORK_SERVER_S):
        log.warning("the fork server had to be killed")
    if sampling is not None:
        sampling.close()
    blobs.close()
    files.close()
    directory.close()
    if status == 0:
        channel.send(0, RankMessage.DONE)
        channel.flush(LINGER_S)
    return status

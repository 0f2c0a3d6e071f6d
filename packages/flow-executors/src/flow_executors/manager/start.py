"""The start of a manager process, from its command line to its loop, and its end."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import socket
import sys
import time
import traceback
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from flow_core.errors import FlowError, StagingError
from flow_core.folders import make_directory
from flow_core.log_lines import LogLines
from flow_core.own_files import open_own_to_write
from flow_core.prctl import become_subreaper
from flow_core.printable import printable
from flow_core.remote.processes import GUARD_FAMILY
from flow_core.remote.sampling import Sampling
from flow_executors import __version__
from flow_executors.common.core_dumps import leave_no_core
from flow_executors.common.host import host_id
from flow_executors.common.resources import Capacity
from flow_executors.common.versions import CODE_VARIABLE, own_code, version_of
from flow_executors.manager.code_cache import BlobFiles
from flow_executors.manager.event_loop import Manager, SignalPipe
from flow_executors.manager.file_agent import FileAgent
from flow_executors.manager.fork_client import ForkServerClient
from flow_executors.manager.interchange_link import InterchangeConnection
from flow_executors.manager.interchange_liveness import InterchangeLiveness
from flow_executors.manager.log_cap import LogCap
from flow_executors.manager.manager_core import ManagerCore
from flow_executors.manager.node import (
    BlockLifetime,
    NodeResources,
    accelerator_environment,
    accelerator_names,
    check_affinity,
    count_workers,
    cpus_of,
    devices,
    look_at_lifetime,
    look_at_node,
    spec_from_text,
)
from flow_executors.manager.node_directory import NodeDirectory
from flow_executors.manager.options import ManagerOptions, from_arguments
from flow_executors.manager.worker_pool import WorkerPool, WorkerSetup, raise_file_limit
from flow_executors.mpi.node_shell import NodeShell
from flow_executors.wire.auth import READERS_VARIABLE, SECRET_NAME, BlockSecret, decoded, read_secret, used_up
from flow_executors.wire.messages import ExitCode, Registration
from flow_executors.wire.ranks import RANKS_VERSION
from flow_executors.worker.bootstrap import set_name
from flow_providers.interfaces.job_extras import FORWARDS_VARIABLE, carried_variable, secret_variable

LINGER_S = 2.0
"""Seconds that the last results and EXIT have to leave."""
FORK_SERVER_S = 5.0
"""Seconds that workers and the fork server have to end by themselves."""
_MB = 1 << 20

log = logging.getLogger("flow.manager")


def main(fork_client: ForkServerClient, kind: type[Manager] = Manager) -> NoReturn:
    """Run the manager that the command line describes, of the kind given, and end the process."""
    options = from_arguments()
    end_with(options, lambda: _run(options, fork_client, kind))


def end_with(options: ManagerOptions, run: Callable[[], int]) -> NoReturn:
    """End the process with the status that ``run`` returns; what it raises is said on standard error."""
    status = 1
    try:
        status = run()
    except FlowError as error:
        print(printable(f"flow manager of block {options.block}: {error}"), file=sys.stderr)  # noqa: T201 - the job's own stderr
    except Exception:
        log.exception("the manager failed")
        traceback.print_exc()
    finally:
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)


def _run(options: ManagerOptions, fork_client: ForkServerClient, kind: type[Manager]) -> int:
    set_name("flow-manager")
    become_subreaper()  # of a fork server that dies
    leave_no_core()  # workers can: they come of the fork server, which was there before
    secret = block_secret()
    manager_id = f"{options.block}.{socket.gethostname()}.{os.getpid()}"
    directory = NodeDirectory(options.working_dir or "")
    log_dir = open_log(options, manager_id, directory)
    entries = accelerator_names(options.accelerators.split())
    node = look_at_node()
    workers = count_workers(
        node,
        cores_per_worker=options.cores_per_worker,
        mem_per_worker_gb=options.mem_per_worker,
        max_workers=options.max_workers,
        accelerators=len(entries) if entries else None,
    )
    log.info(
        "%d workers: this job has %g cores and %.1f GB of memory here%s",
        workers,
        node.cores,
        node.memory / (_MB << 10),
        f", granted by {node.granted_by}" if node.granted_by else "",
    )
    # Before the first worker is forked, which inherits the limit.
    raise_file_limit(workers)
    block = look_at_lifetime(options.walltime)
    capacity = Capacity(
        workers,
        options.cores_per_worker,
        node.memory // _MB,
        devices(entries),
        int((options.mem_per_worker or 0.0) * 1024),
    )
    blobs = BlobFiles()
    files = FileAgent(directory, options.run_id)
    files.log_dir = log_dir
    fork_client.configure(
        executor=options.executor,
        node=socket.gethostname(),
        index_fd=blobs.index_fd,
        log_dir=log_dir,
        environment=pool_environment(options, workers, manager_id),
        working_dir=options.working_dir,
        max_result=options.max_result_bytes,
        usage=bool(options.sampler),
        direct_channels=kind.direct_channels and not options.sampler,
        files=files.name,
        scratch=directory.places,
    )
    worker_pool = WorkerPool(fork_client, worker_setup(options, workers, entries))
    forwards = os.environ.get(FORWARDS_VARIABLE, "").split()
    line = InterchangeConnection(options.addresses, options.port, secret, forwards)
    shell = NodeShell(directory.path, socket.gethostname(), options.mpi_launcher)
    now = time.monotonic()
    sampling = Sampling(spec_from_text(options.sampler), now) if options.sampler else None
    manager = kind(
        line=line,
        worker_pool=worker_pool,
        core=ManagerCore(
            capacity,
            options.prefetch_capacity,
            now + block.left_s if block.walltime_s else None,
        ),
        contact=InterchangeLiveness(
            options.heartbeat_period, options.heartbeat_threshold, now, options.sleep_threshold or 0.0
        ),
        blobs=blobs,
        offer=offer_of(options, node, capacity, manager_id, block),
        run_id=options.run_id,
        files=files,
        shell=shell,
        sampling=sampling,
        drain_at=now + options.drain_period if options.drain_period else None,
        signals=SignalPipe(block),
    )
    logs = LogCap([str(Path(log_dir) / f"worker_{rank}.log") for rank in range(workers)], options.max_worker_log_bytes)
    if log_dir and options.max_worker_log_bytes:
        logs.start()
    leaving = manager.run()
    logs.stop()
    shell.close()
    line.close(LINGER_S if leaving.code is ExitCode.DONE else 0.5)
    if not worker_pool.close(FORK_SERVER_S):
        log.warning("the fork server had to be killed")
    if sampling is not None:
        sampling.close()
    blobs.close()
    files.close()
    directory.close()
    if leaving.status:
        print(printable(f"flow manager {manager_id} left: {leaving.reason}"), file=sys.stderr)  # noqa: T201 - the job's own stderr
    return leaving.status


def block_secret() -> BlockSecret:
    """Return the keys of the block. Raises FlowError: nobody has delivered them."""
    variable = secret_variable(SECRET_NAME)
    path = os.environ.get(variable)
    carried = os.environ.pop(carried_variable(SECRET_NAME), "")
    if not path:
        raise FlowError(
            f"no key: the environment variable {variable} names no file. A manager is started by its executor's "
            "provider, which delivers the key"
        )
    # The file lies on the node that runs the job's script: other nodes of a job without a shared disk have the text.
    if carried and not Path(path).exists():
        return BlockSecret.from_bytes(decoded(carried))
    secret = BlockSecret.from_bytes(read_secret(Path(path)))
    # Read, so no longer needed: a file that is gone cannot be copied.
    used_up(Path(path), int(os.environ.get(READERS_VARIABLE) or 0))
    return secret


def open_log(options: ManagerOptions, manager_id: str, node: NodeDirectory, name: str = "manager.log") -> str:
    """Open a log in a directory of this manager's own, on the node if need be; else log to standard error.

    Returns the directory; empty for none.
    """
    logging.raiseExceptions = False  # a full disk must not fill the job's stderr
    root = logging.getLogger("flow")
    root.setLevel(logging.DEBUG if options.debug else logging.INFO)
    directory = elsewhere = ""
    handler: logging.Handler = logging.StreamHandler()
    if options.logdir:
        path = Path(options.logdir) / f"block-{options.block}" / manager_id
        try:
            handler = _log_in(path, name)
            directory = str(path)
        except OSError as error:
            # A node without the run's directory: logs lie in its own until they are sent to the script.
            try:
                path = Path(node.path()) / "logs"
                handler = _log_in(path, name)
                directory, elsewhere = str(path), str(error)
            except (OSError, StagingError) as problem:
                print(f"no logs of this manager: {options.logdir}: {error}; {problem}", file=sys.stderr)  # noqa: T201 - no log to write to
    handler.setFormatter(LogLines("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root.addHandler(handler)
    log.info("manager %s of run %s, executor %s", manager_id, options.run_id, options.executor)
    if elsewhere:
        log.info("logs lie here, on the node, since they cannot where they were asked for: %s", elsewhere)
    return directory


def _log_in(path: Path, name: str) -> logging.Handler:
    make_directory(path, 0o700)
    return _OwnLog(path / name)


class _OwnLog(logging.FileHandler):
    """Writes to a plain file of this user's: on a node another user may have made the directory above."""

    def _open(self) -> TextIOWrapper:
        fd = open_own_to_write(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(fd, "a", encoding=self.encoding, errors=self.errors)


def pool_environment(options: ManagerOptions, workers: int, manager_id: str) -> dict[str, str]:
    """Return the variables of every worker."""
    own = worker_variables(COUNT=str(workers), POOL_ID=manager_id, BLOCK_ID=options.block)
    return own | {GUARD_FAMILY: secrets.token_hex(16)}


def worker_variables(**values: str) -> dict[str, str]:
    """Return variables of a worker by their last words; under both beginnings that scripts know."""
    return {f"{begin}_WORKER_{name}": value for begin in ("FLOW", "PARSL") for name, value in values.items()}


def worker_setup(options: ManagerOptions, workers: int, entries: tuple[str, ...]) -> WorkerSetup:
    """Return what makes variables and CPUs of each of the workers of this node. Raises ConfigurationError."""
    check_affinity(options.cpu_affinity)
    cpus = sorted(os.sched_getaffinity(0))

    def setup(rank: int) -> tuple[dict[str, str], list[int]]:
        environment = worker_variables(RANK=str(rank))
        if entries:
            environment |= accelerator_environment(entries[rank % len(entries)])
        mine = cpus_of(rank, workers, options.cpu_affinity, cpus)
        # Else each worker's libraries would start as many threads as the node has cores.
        if mine and "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = str(len(mine))
        return environment, mine

    return setup


def offer_of(
    options: ManagerOptions, node: NodeResources, capacity: Capacity, manager_id: str, block: BlockLifetime
) -> Registration:
    """Return what a manager offers, at its start."""
    return Registration(
        manager_id=manager_id,
        block=options.block,
        node=socket.gethostname(),
        pid=os.getpid(),
        workers=capacity.slots,
        cores=capacity.slots * capacity.cores_per_worker,
        memory_mb=capacity.memory_mb,
        gpus=float(len(capacity.devices)),
        cpu_count=node.cpu_count,
        memory_bytes=node.memory_total,
        python=platform.python_version(),
        software=__version__,
        host_id=host_id(),
        ends_at_ns=time.time_ns() + int(block.left_s * 1e9) if block.walltime_s else 0,
        secret=secrets.token_hex(16),
        flow_core=version_of("flow_core"),
        cloudpickle=version_of("cloudpickle"),
        code=own_code() if os.environ.pop(CODE_VARIABLE, "") else None,
        left_aside=os.environ.pop("FLOW_LEFT_ASIDE", None),
        ranks=RANKS_VERSION,
    )

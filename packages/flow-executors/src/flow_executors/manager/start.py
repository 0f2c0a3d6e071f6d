"""From a command line to a running manager, and to its end."""

from __future__ import annotations

import logging
import os
import platform
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

from flow_core.errors import FlowError
from flow_core.prctl import become_subreaper
from flow_core.remote.sampling import Sampling
from flow_executors import __version__
from flow_executors.host import host_id
from flow_executors.manager import lifetime, pinning, resources
from flow_executors.manager.blobs import Blobs
from flow_executors.manager.contact import Contact
from flow_executors.manager.core import ManagerCore
from flow_executors.manager.crew import Crew, Outfit, raise_file_limit
from flow_executors.manager.demand import Capacity
from flow_executors.manager.line import Line
from flow_executors.manager.logs import LogCap
from flow_executors.manager.nursery import Nursery
from flow_executors.manager.options import ManagerOptions, from_arguments
from flow_executors.manager.sampling import spec_from_text
from flow_executors.manager.shell import Manager
from flow_executors.manager.signals import SignalPipe
from flow_executors.wire.frames import ExitCode, Registration
from flow_executors.wire.keys import SECRET_NAME, BlockSecret, read_secret
from flow_executors.worker.birth import set_name
from flow_providers.interfaces.job_extras import secret_variable

_LINGER_S = 2.0
_NURSERY_S = 5.0
_MB = 1 << 20

log = logging.getLogger("flow.manager")


def main(nursery: Nursery, kind: type[Manager] = Manager) -> NoReturn:
    """Run the manager that the command line describes, of the kind given, and end the process."""
    options = from_arguments()
    status = 1
    try:
        status = _run(options, nursery, kind)
    except FlowError as error:
        print(f"flow manager of block {options.block}: {error}", file=sys.stderr)  # noqa: T201 - the job's own stderr
    except Exception:
        log.exception("the manager failed")
        traceback.print_exc()
    finally:
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)


def _run(options: ManagerOptions, nursery: Nursery, kind: type[Manager]) -> int:
    set_name("flow-manager")
    become_subreaper()  # of a nursery that dies
    secret = _secret()
    manager_id = f"{options.block}.{socket.gethostname()}.{os.getpid()}"
    log_dir = _open_log(options, manager_id)
    entries = pinning.accelerator_names(options.accelerators.split())
    node = resources.look()
    workers = resources.count_workers(
        node,
        cores_per_worker=options.cores_per_worker,
        mem_per_worker_gb=options.mem_per_worker or None,
        max_workers=options.max_workers,
        accelerators=len(entries) if entries else None,
    )
    raise_file_limit(workers)
    block = lifetime.look(options.walltime)
    capacity = Capacity(
        workers,
        options.cores_per_worker,
        node.memory // _MB,
        pinning.devices(entries),
        int(options.mem_per_worker * 1024),
    )
    blobs = Blobs()
    nursery.configure(
        executor=options.executor,
        node=socket.gethostname(),
        index_fd=blobs.index_fd,
        log_dir=log_dir,
        environment=_pool_environment(options, workers, manager_id),
        working_dir=options.working_dir or None,
        max_result=options.max_result_bytes,
        usage=bool(options.sampler),
        lanes=kind.lanes and not options.sampler,
    )
    crew = Crew(nursery, _outfit(options, workers, entries))
    line = Line(options.addresses, options.port, secret)
    now = time.monotonic()
    sampling = Sampling(spec_from_text(options.sampler), now) if options.sampler else None
    manager = kind(
        line=line,
        crew=crew,
        core=ManagerCore(
            capacity,
            None if options.prefetch_capacity < 0 else options.prefetch_capacity,
            now + block.left_s if block.walltime_s else None,
        ),
        contact=Contact(options.heartbeat_period, options.heartbeat_threshold, now),
        blobs=blobs,
        offer=_offer(options, node, capacity, manager_id, block),
        run_id=options.run_id,
        sampling=sampling,
        drain_at=now + options.drain_period if options.drain_period > 0 else None,
        signals=SignalPipe(block),
    )
    logs = LogCap([str(Path(log_dir) / f"worker_{rank}.log") for rank in range(workers)], options.max_worker_log_bytes)
    if log_dir and options.max_worker_log_bytes:
        logs.start()
    leaving = manager.run()
    logs.stop()
    line.close(_LINGER_S if leaving.code is ExitCode.DONE else 0.5)
    if not crew.close(_NURSERY_S):
        log.warning("the nursery had to be killed")
    if sampling is not None:
        sampling.close()
    blobs.close()
    if leaving.status:
        print(f"flow manager {manager_id} left: {leaving.reason}", file=sys.stderr)  # noqa: T201 - the job's own stderr
    return leaving.status


def _secret() -> BlockSecret:
    variable = secret_variable(SECRET_NAME)
    path = os.environ.get(variable)
    if not path:
        raise FlowError(
            f"no key: the environment variable {variable} names no file. A manager is started by its executor's "
            "provider, which delivers the key"
        )
    secret = BlockSecret.from_bytes(read_secret(Path(path)))
    return secret


def _open_log(options: ManagerOptions, manager_id: str) -> str:
    """Open manager.log in a directory of this manager's own; without one, log to standard error."""
    logging.raiseExceptions = False  # a full disk must not fill the job's stderr
    root = logging.getLogger("flow")
    root.setLevel(logging.DEBUG if options.debug else logging.INFO)
    directory = ""
    handler: logging.Handler = logging.StreamHandler()
    if options.logdir:
        try:
            path = Path(options.logdir) / f"block-{options.block}" / manager_id
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            handler = logging.FileHandler(path / "manager.log")
            directory = str(path)
        except OSError as error:
            print(f"no logs of this manager: {options.logdir}: {error}", file=sys.stderr)  # noqa: T201 - no log to write to
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root.addHandler(handler)
    log.info("manager %s of run %s, executor %s", manager_id, options.run_id, options.executor)
    return directory


def _pool_environment(options: ManagerOptions, workers: int, manager_id: str) -> dict[str, str]:
    return {
        "FLOW_WORKER_COUNT": str(workers),
        "FLOW_WORKER_POOL_ID": manager_id,
        "FLOW_WORKER_BLOCK_ID": options.block,
    }


def _outfit(options: ManagerOptions, workers: int, entries: tuple[str, ...]) -> Outfit:
    pinning.check_affinity(options.cpu_affinity)
    cpus = sorted(os.sched_getaffinity(0))

    def outfit(rank: int) -> tuple[dict[str, str], list[int]]:
        environment = {"FLOW_WORKER_RANK": str(rank)}
        if entries:
            environment |= pinning.accelerator_environment(entries[rank % len(entries)])
        mine = pinning.cpus_of(rank, workers, options.cpu_affinity, cpus)
        if mine and "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = str(len(mine))
        return environment, mine

    return outfit


def _offer(
    options: ManagerOptions, node: resources.Node, capacity: Capacity, manager_id: str, block: lifetime.Lifetime
) -> Registration:
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
    )

"""Cori (NERSC): Slurm, two nodes a block, all hyperthreads of a node for one task block, the script on a login node."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_executors.addresses import address_by_interface
from flow_providers import SlurmProvider
from flow_providers.launchers import SrunLauncher

# -- edit these
QUEUE = "regular"  # partition, which is the quality of service too
SCHEDULER_OPTIONS = "#SBATCH --constraint=knl,quad,cache"  # the kind of node
WORKER_INIT = ""  # commands before a worker, such as "module load python; conda activate YOUR_ENV"
# -- down to here


def address() -> str:
    """Return the address of the login node's interface that compute nodes reach."""
    return address_by_interface("bond0.144")


config = Config(
    executors=[
        HighThroughputExecutor(
            label="cori_htex",
            address=address,
            cores_per_worker=2,
            provider=SlurmProvider(
                QUEUE,
                nodes_per_block=2,
                init_blocks=1,
                scheduler_options=SCHEDULER_OPTIONS,
                worker_init=WORKER_INIT,
                launcher=SrunLauncher(overrides="-c 272"),  # all hyperthreads
                walltime="00:10:00",
                cmd_timeout=120,  # the scheduler can be slow
            ),
        )
    ],
)

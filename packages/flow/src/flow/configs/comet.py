"""Comet (SDSC): Slurm, two nodes a block, the script on a login node."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_executors.addresses import address_by_query
from flow_providers import SlurmProvider
from flow_providers.launchers import SrunLauncher

# -- edit these
PARTITION = "debug"  # partition, or queue
LOGDIR = "/home/YOUR_USER/flow_logs"  # a directory on Comet that nodes can write to
SCHEDULER_OPTIONS = ""  # lines for the script, such as "#SBATCH -A YOUR_ALLOCATION"
WORKER_INIT = ""  # commands before a worker, such as "module load anaconda; conda activate YOUR_ENV"
# -- down to here

config = Config(
    executors=[
        HighThroughputExecutor(
            label="comet_htex",
            address=address_by_query,
            worker_logdir_root=LOGDIR,
            max_workers=2,
            provider=SlurmProvider(
                PARTITION,
                launcher=SrunLauncher(),
                scheduler_options=SCHEDULER_OPTIONS,
                worker_init=WORKER_INIT,
                walltime="00:10:00",
                init_blocks=1,
                max_blocks=1,
                nodes_per_block=2,
            ),
        )
    ],
)

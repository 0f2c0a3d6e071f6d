"""Midway (RCC, University of Chicago): Slurm, two nodes a block, the script on a login node."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_executors.addresses import address_by_hostname
from flow_providers import SlurmProvider
from flow_providers.launchers import SrunLauncher

# -- edit these
PARTITION = "YOUR_PARTITION"  # such as broadwl
SCHEDULER_OPTIONS = ""  # lines for the script, such as "#SBATCH --account=YOUR_ACCOUNT"
WORKER_INIT = ""  # commands before a worker, such as "module load Anaconda3; source activate YOUR_ENV"
# -- down to here

config = Config(
    executors=[
        HighThroughputExecutor(
            label="midway_htex",
            address=address_by_hostname,
            max_workers=2,
            provider=SlurmProvider(
                PARTITION,
                launcher=SrunLauncher(),
                nodes_per_block=2,
                init_blocks=1,
                min_blocks=1,
                max_blocks=1,
                scheduler_options=SCHEDULER_OPTIONS,
                worker_init=WORKER_INIT,
                walltime="00:30:00",
            ),
        )
    ],
)

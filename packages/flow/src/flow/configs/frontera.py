"""Frontera (TACC): Slurm, two nodes a block for ten minutes, the script on a login node."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_executors.addresses import address_by_hostname
from flow_providers import SlurmProvider
from flow_providers.channels import LocalChannel
from flow_providers.launchers import SrunLauncher

# -- edit these
PARTITION = "normal"  # partition
ALLOCATION = "YOUR_ALLOCATION"  # what is charged
WORKER_INIT = ""  # commands before a worker, such as "module load python3; source YOUR_ENV/bin/activate"
# -- down to here

config = Config(
    executors=[
        HighThroughputExecutor(
            label="frontera_htex",
            address=address_by_hostname,
            max_workers=1,  # workers on a node
            provider=SlurmProvider(
                PARTITION,
                channel=LocalChannel(),
                cmd_timeout=60,  # the scheduler can be slow
                nodes_per_block=2,
                init_blocks=1,
                min_blocks=1,
                max_blocks=1,
                scheduler_options=f"#SBATCH -A {ALLOCATION}",
                worker_init=WORKER_INIT,
                launcher=SrunLauncher(),
                walltime="00:10:00",  # best the longest the queue allows
            ),
        )
    ],
)

"""Theta (ALCF): Cobalt and aprun, two nodes a block, the script on a login node."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_executors.addresses import address_by_hostname
from flow_providers import CobaltProvider
from flow_providers.launchers import AprunLauncher

# -- edit these
QUEUE = "YOUR_QUEUE"  # such as debug-cache-quad
ACCOUNT = "YOUR_ACCOUNT"  # project to charge
SCHEDULER_OPTIONS = ""  # lines for the script, such as "#COBALT --attrs filesystems=home"
WORKER_INIT = ""  # commands before a worker, such as "module load miniconda-3; source activate YOUR_ENV"
# -- down to here

config = Config(
    executors=[
        HighThroughputExecutor(
            label="theta_htex",
            address=address_by_hostname,
            max_workers=4,
            provider=CobaltProvider(
                queue=QUEUE,
                account=ACCOUNT,
                launcher=AprunLauncher(overrides="-d 64"),
                walltime="00:30:00",
                nodes_per_block=2,
                init_blocks=1,
                min_blocks=1,
                max_blocks=1,
                scheduler_options=SCHEDULER_OPTIONS,
                worker_init=WORKER_INIT,
                cmd_timeout=120,  # the scheduler can be slow
            ),
        )
    ],
)

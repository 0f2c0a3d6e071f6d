"""Cooley (ALCF): Cobalt and mpirun, four nodes a block, the script on a login node."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_executors.addresses import address_by_hostname
from flow_providers import CobaltProvider
from flow_providers.launchers import MpiRunLauncher

# -- edit these
QUEUE = "debug"  # queue
ACCOUNT = "YOUR_ACCOUNT"  # project to charge
SCHEDULER_OPTIONS = ""  # lines for the script
WORKER_INIT = ""  # commands before a worker, such as "source activate YOUR_ENV"
# -- down to here

config = Config(
    executors=[
        HighThroughputExecutor(
            label="cooley_htex",
            address=address_by_hostname,
            cores_per_worker=1,
            provider=CobaltProvider(
                queue=QUEUE,
                account=ACCOUNT,
                launcher=MpiRunLauncher(),
                scheduler_options=SCHEDULER_OPTIONS,
                worker_init=WORKER_INIT,
                init_blocks=1,
                min_blocks=1,
                max_blocks=1,
                nodes_per_block=4,
                cmd_timeout=60,
                walltime="00:10:00",
            ),
        )
    ],
)

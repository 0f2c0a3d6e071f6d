"""Blue Waters (NCSA): Torque and aprun, two nodes a block, the script on a login node."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_executors.addresses import address_by_hostname
from flow_providers import TorqueProvider
from flow_providers.launchers import AprunLauncher

# -- edit these
QUEUE = "normal"  # queue
SCHEDULER_OPTIONS = ""  # lines for the script
WORKER_INIT = ""  # commands before a worker, such as "module load bwpy"
# -- down to here

config = Config(
    executors=[
        HighThroughputExecutor(
            label="bluewaters_htex",
            address=address_by_hostname,
            cores_per_worker=1,
            provider=TorqueProvider(
                queue=QUEUE,
                launcher=AprunLauncher(overrides="-b -- bwpy-environ --"),
                scheduler_options=SCHEDULER_OPTIONS,
                worker_init=WORKER_INIT,
                init_blocks=1,
                min_blocks=1,
                max_blocks=1,
                nodes_per_block=2,
                walltime="00:10:00",
            ),
        )
    ],
)

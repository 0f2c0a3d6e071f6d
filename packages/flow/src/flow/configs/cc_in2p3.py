"""CC-IN2P3: Grid Engine, two blocks of one node, the script on a login node."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_executors.addresses import address_by_query
from flow_providers import GridEngineProvider
from flow_providers.channels import LocalChannel

# -- edit these
SCHEDULER_OPTIONS = ""  # lines for the script, such as "#$ -P YOUR_PROJECT"
PARALLEL_ENVIRONMENT = "multicores"  # by which Grid Engine gives several cores of a node
WORKER_INIT = ""  # commands before a worker
# -- down to here

config = Config(
    executors=[
        HighThroughputExecutor(
            label="cc_in2p3_htex",
            address=address_by_query,
            max_workers=2,
            provider=GridEngineProvider(
                channel=LocalChannel(),
                nodes_per_block=1,
                cores_per_node=2,
                parallel_environment=PARALLEL_ENVIRONMENT,
                init_blocks=2,
                max_blocks=2,
                walltime="00:20:00",
                scheduler_options=SCHEDULER_OPTIONS,
                worker_init=WORKER_INIT,
            ),
        )
    ],
)

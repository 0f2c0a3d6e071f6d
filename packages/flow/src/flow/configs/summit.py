"""Summit (ORNL): LSF and jsrun, two nodes a block, the script on a login node."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_executors.addresses import address_by_interface
from flow_providers import LSFProvider
from flow_providers.launchers import JsrunLauncher

# -- edit these
PROJECT = "YOUR_PROJECT_ALLOCATION"  # what is charged
WORKING_DIR = "/gpfs/alpine/world-shared/YOUR_PROJECT"  # a directory that compute nodes can write to
WORKER_INIT = ""  # commands before a worker, such as "module load python; conda activate YOUR_ENV"
# -- down to here


def address() -> str:
    """Return the address of the login node's interface that compute nodes reach."""
    return address_by_interface("ib0")


config = Config(
    executors=[
        HighThroughputExecutor(
            label="summit_htex",
            working_dir=WORKING_DIR,
            address=address,
            worker_port_range=(50000, 55000),
            provider=LSFProvider(
                launcher=JsrunLauncher(),
                walltime="00:10:00",
                nodes_per_block=2,
                init_blocks=1,
                max_blocks=1,
                worker_init=WORKER_INIT,
                project=PROJECT,
                cmd_timeout=60,
            ),
        )
    ],
)

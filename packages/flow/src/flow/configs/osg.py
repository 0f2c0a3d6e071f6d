"""Open Science Grid: HTCondor, four blocks of one node, which are tried with every address of the script's machine."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_executors.addresses import addresses_with_query
from flow_providers import CondorProvider

# -- edit these
REQUIREMENTS = 'OSGVO_OS_STRING == "RHEL 9" && Arch == "X86_64" && HAS_MODULES == True'  # nodes with modules
PROJECT = ""  # project to charge, where one must be named
WORKER_INIT = ""  # commands before a worker, such as "module load python/3.11"
# -- down to here

config = Config(
    executors=[
        HighThroughputExecutor(
            label="osg_htex",
            address=addresses_with_query,
            max_workers=1,
            provider=CondorProvider(
                nodes_per_block=1,
                init_blocks=4,
                max_blocks=4,
                requirements=REQUIREMENTS,
                project=PROJECT,
                worker_init=WORKER_INIT,
                walltime="00:20:00",
            ),
        )
    ],
)

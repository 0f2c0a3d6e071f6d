"""Stampede2 (TACC): Slurm, two nodes a block, files by Globus, the script on a login node."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_executors.addresses import address_by_hostname
from flow_providers import SlurmProvider
from flow_providers.launchers import SrunLauncher
from flow_staging import GlobusStaging

# -- edit these
PARTITION = "YOUR_PARTITION"  # such as skx-normal
ENDPOINT = "ceea5ca0-89a9-11e7-a97f-22000a92523b"  # Globus endpoint of the file system
SCHEDULER_OPTIONS = ""  # lines for the script, such as "#SBATCH -A YOUR_ALLOCATION"
WORKER_INIT = ""  # commands before a worker, such as "module load python3; source YOUR_ENV/bin/activate"
# -- down to here

config = Config(
    executors=[
        HighThroughputExecutor(
            label="stampede2_htex",
            address=address_by_hostname,
            max_workers=2,
            storage_access=[GlobusStaging(endpoint_uuid=ENDPOINT, endpoint_path="/", local_path="/")],
            provider=SlurmProvider(
                PARTITION,
                nodes_per_block=2,
                init_blocks=1,
                min_blocks=1,
                max_blocks=1,
                scheduler_options=SCHEDULER_OPTIONS,
                worker_init=WORKER_INIT,
                launcher=SrunLauncher(),
                walltime="00:30:00",
            ),
        )
    ],
)

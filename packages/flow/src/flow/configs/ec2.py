"""Amazon EC2: machines of one node, made with a network of their own; needs the extra ``aws``."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_executors.addresses import addresses_with_query
from flow_providers import AWSProvider

# -- edit these
IMAGE = "YOUR_AMI_ID"  # machine image with Python
REGION = "us-east-2"  # where
KEY_NAME = "YOUR_KEY_NAME"  # key pair that may log in
WORKER_INIT = ""  # commands before a worker
# -- down to here

config = Config(
    executors=[
        HighThroughputExecutor(
            label="ec2_single_node",
            address=addresses_with_query,  # the one that answers machines of the cloud
            provider=AWSProvider(
                IMAGE,
                KEY_NAME,
                region=REGION,
                profile="default",
                state_file="awsproviderstate.json",
                nodes_per_block=1,
                init_blocks=1,
                min_blocks=0,
                max_blocks=1,
                worker_init=WORKER_INIT,
                walltime="01:00:00",
            ),
        )
    ],
)

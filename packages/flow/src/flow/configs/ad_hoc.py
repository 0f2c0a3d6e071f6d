"""Hosts that ssh reaches without a password, and no scheduler: one block a host."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_providers import AdHocProvider

# -- edit these
HOSTS = ["YOUR_HOST_1", "YOUR_HOST_2"]  # names or addresses, all in known_hosts
USERNAME = "YOUR_USERNAME"  # on all of them
WORKER_INIT = ""  # commands before a worker, such as "source YOUR_ENV/bin/activate"; nothing need be installed there
# -- down to here

config = Config(
    executors=[
        HighThroughputExecutor(
            label="ad_hoc_htex",
            provider=AdHocProvider(
                channels=[f"{USERNAME}@{host}" for host in HOSTS],
                worker_init=WORKER_INIT,
            ),
        )
    ],
    strategy="none",
)

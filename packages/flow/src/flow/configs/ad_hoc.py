"""Hosts that ssh reaches without a password, and no scheduler: one block a host."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_executors.addresses import address_by_query
from flow_providers import AdHocProvider
from flow_providers.channels import SSHChannel

# -- edit these
HOSTS = ["YOUR_HOST_1", "YOUR_HOST_2"]  # names or addresses, all in known_hosts
USERNAME = "YOUR_USERNAME"  # on all of them
SCRIPT_DIR = "/home/YOUR_USERNAME/flow_scripts"  # a directory on all of them, for scripts and logs
WORKER_INIT = ""  # commands before a worker, such as "source YOUR_ENV/bin/activate"
# -- down to here

config = Config(
    executors=[
        HighThroughputExecutor(
            label="ad_hoc_htex",
            max_workers=2,
            address=address_by_query,
            worker_logdir_root=SCRIPT_DIR,
            provider=AdHocProvider(
                channels=[SSHChannel(host, username=USERNAME, script_dir=SCRIPT_DIR) for host in HOSTS],
                worker_init=WORKER_INIT,
            ),
        )
    ],
    strategy="none",
)

"""Apps run on worker processes of this machine, one for each core, behind a real interchange."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_providers import LocalProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            label="htex_local",
            cores_per_worker=1,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
    ],
    strategy="none",
)

"""Apps run on eight threads of this process."""

from flow_core.config import Config
from flow_core.executors.threads import ThreadPoolExecutor

config = Config(executors=[ThreadPoolExecutor(label="threads", max_threads=8)])

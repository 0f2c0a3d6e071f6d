"""A Kubernetes cluster that ``~/.kube/config`` reaches: a pod a block; needs the extra ``kubernetes``."""

from flow_core.config import Config
from flow_executors import HighThroughputExecutor
from flow_providers import KubernetesProvider

# -- edit these
IMAGE = "YOUR_IMAGE"  # container image with bash and Python
NAMESPACE = "default"  # namespace of the pods
SECRET = "YOUR_KUBE_SECRET"  # secret to pull the image with; None: it is public
POD_NAME = "your-pod-name"  # beginning of the pods' names, by the naming rules of Kubernetes
LOGDIR = "/tmp/flow_logs"  # a directory in the pods
WORKER_INIT = ""  # commands at the start of a pod, such as "pip install YOUR_PACKAGE"
# -- down to here

config = Config(
    executors=[
        HighThroughputExecutor(
            label="kube_htex",
            cores_per_worker=1,
            max_workers=1,
            worker_logdir_root=LOGDIR,
            provider=KubernetesProvider(
                IMAGE,
                namespace=NAMESPACE,
                worker_init=WORKER_INIT,
                secret=SECRET,
                pod_name=POD_NAME,
                nodes_per_block=1,
                init_blocks=1,
                max_blocks=10,
            ),
        )
    ],
)

"""For tests: an ExtremeScaleExecutor on this machine with short heartbeats, by an Open MPI that may run as root."""

from __future__ import annotations

from flow_executors.extreme import ExtremeScaleExecutor
from flow_providers.local.provider import LocalProvider

AS_ROOT = (
    "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    " OMPI_MCA_oob_tcp_if_include=lo OMPI_MCA_btl_tcp_if_include=lo"
)
"""Shell code after which Open MPI runs as root, too, as it does in containers for tests, and talks by the loopback:
other tests make and remove bridges at the same time, and who has been told such an address waits for it for minutes."""


def make_extreme_executor(**options: object) -> ExtremeScaleExecutor:
    """Return an executor of two workers, a manager's rank beside them; options replace those of the tests."""
    chosen: dict[str, object] = {
        "label": "extreme",
        "ranks_per_node": 3,
        "provider": LocalProvider(max_blocks=1, worker_init=AS_ROOT),
        "heartbeat_period": 0.5,
        "heartbeat_threshold": 5,
    }
    return ExtremeScaleExecutor(**{**chosen, **options})  # type: ignore[arg-type]  # checked by the constructor

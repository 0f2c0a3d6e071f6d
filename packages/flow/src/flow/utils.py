"""Finding the checkpoints of earlier runs, under the path that scripts use."""

from flow_core.checkpoint.find import (
    get_all_checkpoints as get_all_checkpoints,
    get_last_checkpoint as get_last_checkpoint,
)

"""Options of a Config that change nothing beside its other options: pure, by their values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flow_core.guard import attribute

_USUAL_IDLETIME_S = 120.0  # the option's default


# A Config, whose module imports this one.
def ineffective_options(config: Any) -> Iterator[str]:
    """Yield a sentence for each option that was given and changes nothing in this Config."""
    yield from _of_memoization(config)
    yield from _of_executors(config)
    if config.log_format != "text" and not config.initialize_logging:
        yield f"log_format={config.log_format!r} has no effect with initialize_logging=False: no flow.log is written"
    if config.log_level != "INFO" and not config.initialize_logging:
        yield f"log_level={config.log_level!r} has no effect with initialize_logging=False: no flow.log is written"
    if config.usage_address is not None and not config.usage_tracking:
        yield f"usage_address={config.usage_address!r} has no effect without usage_tracking=True: nothing is sent"


def _of_memoization(config: Any) -> Iterator[str]:
    given = {
        "checkpoint_files": config.checkpoint_files,
        "checkpoint_mode": config.checkpoint_mode,
        "checkpoint_period": config.checkpoint_period,
        "memoizer": config.memoizer,
    }
    if not config.app_cache:
        for name, value in given.items():
            if value:
                yield f"{name}={value!r} has no effect with app_cache=False: nothing is remembered"
        return
    if config.memoizer is not None:
        for name in ("checkpoint_files", "checkpoint_period"):
            if given[name]:
                yield f"{name}={given[name]!r} has no effect with memoizer=: give it to the memoizer"
        if config.checkpoint_mode in ("task_exit", "periodic"):
            yield (
                f"checkpoint_mode={config.checkpoint_mode!r} has an effect at the end of the run only, with memoizer=: "
                "the memoizer itself says when else it writes"
            )
    elif config.checkpoint_period is not None and config.checkpoint_mode != "periodic":
        yield f"checkpoint_period={config.checkpoint_period!r} has no effect without checkpoint_mode='periodic'"


def _of_executors(config: Any) -> Iterator[str]:
    if config.strategy in (None, "none") and config.max_idletime != _USUAL_IDLETIME_S:
        yield f"max_idletime={config.max_idletime!r} has no effect with strategy='none': no block is given back"
    if config.executor_chooser is not None and len(config.executors) == 1:
        yield "executor_chooser is never asked: there is one executor"
    if config.staging is not None and all(attribute(one, "storage_access") is not None for one in config.executors):
        yield "staging has no effect: each executor has a storage_access of its own"

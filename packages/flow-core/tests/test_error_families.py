"""The families that errors belong to, which scripts catch."""

from __future__ import annotations

import pytest

from flow_core import errors

FAMILIES = {
    "AppException": ["AppBadFormatting", "AppFailure", "AppTimeout", "BadStdStreamFile", "BashAppNoReturn"],
    "DataFlowException": ["BadCheckpoint", "ConfigurationError", "DependencyError", "DuplicateTaskError"],
    "ExecutorError": ["DeserializationError", "ScalingFailed", "SerializationError", "TaskLost"],
    "TaskLost": ["ManagerLost", "WorkerLost"],
    "FlowError": ["AppException", "DataFlowException", "ExecutorError", "InvalidAppTypeError", "NotFutureError"],
}


@pytest.mark.parametrize(("family", "name"), [(family, name) for family, names in FAMILIES.items() for name in names])
def test_an_error_is_of_the_family_that_scripts_catch(family: str, name: str) -> None:
    assert issubclass(getattr(errors, name), getattr(errors, family))


def test_all_errors_have_one_root() -> None:
    made = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    made = [kind for kind in made if issubclass(kind, BaseException) and kind.__module__ == errors.__name__]
    assert all(issubclass(kind, errors.FlowError) for kind in made)
    assert len(made) > 30

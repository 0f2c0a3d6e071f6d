"""Options that stand once: as fields of a dataclass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from flow_core.errors import ConfigurationError
from flow_core.option_records import (
    about,
    above,
    at_least,
    documented,
    one_of,
    options_of,
    table,
    without_effect,
)
from flow_executors import HighThroughputExecutor, LowLatencyExecutor
from flow_providers.option_checks import check_options


@documented
@dataclass(kw_only=True)
class Record:
    """A record.

    Raises:
        ConfigurationError: it is wrong.
    """

    speed: float = field(default=1.0, metadata=about("Metres a second.", above(0)))
    count: int | None = field(default=None, metadata=about("Number of them; None: any.", at_least(1, ", or None")))
    kind: str = field(default="a", metadata=about("``a`` or ``b``.", one_of("a", "b")))
    names: Sequence[str] = field(default=(), metadata=about("Their names."))
    size: int = field(default=3 << 20, metadata=about("Bytes."))
    older: int = field(default=5, metadata=about("Without effect.", without_effect=True))
    hidden: int = 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"speed": 0.0}, "R: speed must be above 0, not 0.0"),
        ({"speed": "fast"}, "R: option speed='fast' has a wrong type: it must be a number. Metres a second."),
        ({"speed": True}, "R: option speed=True must be a number, not True or False"),
        ({"count": False}, "R: option count=False must be a whole number or None, not True or False"),
        ({"count": 0}, "R: count must be at least 1, or None, not 0"),
        ({"kind": "c"}, "R: kind must be 'a' or 'b', not 'c'"),
        ({"names": "abc"}, "R: option names='abc' must be a list, not text"),
        ({"speed": float("nan")}, "R: option speed=nan must be a number"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_must_be(options: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        check_options(Record(**options), "R", ConfigurationError)  # type: ignore[arg-type]  # the point
    assert str(raised.value).startswith(error)


def test_values_within_their_bounds_are_taken() -> None:
    check_options(Record(speed=0.5, count=1, kind="b", names=["x"]), "R", ConfigurationError)
    check_options(Record(), "R", ConfigurationError)


def test_options_without_effect_are_told_if_they_are_given() -> None:
    assert without_effect(Record()) == []
    assert without_effect(Record(older=6)) == ["older"]


def test_a_wrong_name_is_answered_with_the_one_that_is_near() -> None:
    with pytest.raises(TypeError, match=r"Record\(\) has no option 'sped': did you mean 'speed'\?"):
        Record(sped=1)  # type: ignore[call-arg]  # the point
    with pytest.raises(TypeError, match=r"its options are: count, hidden, kind, names, older, size, speed$"):
        Record(quux=1)  # type: ignore[call-arg]  # the point


def test_docstring_and_table_are_made_of_the_fields() -> None:
    assert Record.__doc__ is not None
    arguments, _, raises = Record.__doc__.partition("Raises:")
    assert "\nArgs:\n    speed: Metres a second.\n" in arguments
    assert "it is wrong" in raises
    assert "| `size` | `3 << 20` | Bytes. |" in table(Record)
    assert "hidden" not in table(Record)


@pytest.mark.parametrize("kind", [HighThroughputExecutor, LowLatencyExecutor])
def test_each_option_of_an_executor_is_documented_and_an_attribute(kind: type[object]) -> None:
    made = kind()
    for option in options_of(kind):
        assert f"\n    {option.name}: " in str(kind.__doc__)
        assert hasattr(made, option.name)
        assert f"{option.name}=" in repr(made)


def test_the_number_of_workers_has_two_names() -> None:
    executor = HighThroughputExecutor(max_workers_per_node=3)
    assert executor.max_workers == executor.max_workers_per_node == 3
    executor.max_workers_per_node = 2
    assert executor.max_workers == 2
    with pytest.raises(TypeError, match="did you mean 'max_workers_per_node'"):
        HighThroughputExecutor(max_workers_pr_node=3)  # type: ignore[call-arg]  # the point

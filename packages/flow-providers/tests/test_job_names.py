"""Names of jobs: a tag by which they are found, and as much of their own name as the scheduler has room for."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from flow_providers.cluster.pbs import PBSFamilyProvider
from flow_providers.jobs.tag import is_tagged, new_tag, tagged_name


def test_blocks_can_be_told_apart_in_a_queue_with_short_names() -> None:
    names = [tagged_name(new_tag(), f"flow.htex.block-{block}", PBSFamilyProvider.name_limit) for block in range(120)]
    assert all(len(name) <= 15 for name in names)
    assert [name.rpartition("-")[2] for name in names] == [str(block) for block in range(120)]
    assert names[0].endswith(".block-0")


@pytest.mark.parametrize("limit", [15, 60])
@given(name=st.text(max_size=40), others=st.integers(0, 5))
def test_a_job_is_found_by_its_tag_and_by_no_other(limit: int, name: str, others: int) -> None:
    tag = new_tag()
    shown = tagged_name(tag, name, limit)
    assert 0 < len(shown) <= limit
    assert is_tagged(shown, tag)
    assert is_tagged(shown, tag[:1])
    assert not any(is_tagged(shown, new_tag()) for _ in range(others))
    assert shown.isascii()


def test_names_of_other_jobs_are_not_taken_for_tagged_ones() -> None:
    tag = "fo23dgnxct2ff"
    assert not is_tagged("fo23dgn", tag)  # no dot: it is the name that somebody gave
    assert not is_tagged("fo2.block-1", tag)
    assert is_tagged("fo23dgnxct2ff.f", tag)  # of releases before

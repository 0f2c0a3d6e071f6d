from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from flow_providers.errors import LedgerError, SchedulerUnavailable, SubmitException, SubmitUnknown
from flow_providers.interfaces.job_state import JobState
from flow_providers.interfaces.locality import Locality
from flow_providers.jobs.accounted import AccountedProvider
from flow_providers.jobs.cli import main
from flow_providers.jobs.entry import EntryState, fold
from flow_providers.jobs.ledger import JobLedger, default_ledger
from flow_providers.jobs.sweep import locate, sweep
from flow_providers.jobs.tag import new_tag, safe_name
from flow_testing.fake_provider import FakeProvider


@pytest.fixture
def ledger(tmp_path) -> JobLedger:
    return JobLedger(tmp_path / "runinfo" / "jobs.ledger")


def intend(ledger: JobLedger, tag: str, run: str = "run-1") -> None:
    ledger.intend(tag, run_id=run, owner="htex", job_name="block-0", provider={"class": "m:C", "options": {}})


def test_a_ledger_that_does_not_exist_has_no_entries(ledger) -> None:
    assert ledger.entries() == []


def test_the_variable_names_the_default_ledger(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FLOW_JOBS_LEDGER", str(tmp_path / "x"))
    assert default_ledger() == tmp_path / "x"


def test_an_intent_is_open_until_its_job_has_ended(ledger) -> None:
    intend(ledger, "fa")
    assert ledger.open_entries()[0].state is EntryState.INTENDED
    ledger.submitted("fa", "17")
    (entry,) = ledger.open_entries("run-1", "htex")
    assert (entry.job_id, entry.state) == ("17", EntryState.SUBMITTED)
    ledger.ended("fa", "COMPLETED")
    assert ledger.open_entries() == []
    assert ledger.entries()[0].detail == "COMPLETED"


def test_runs_and_owners_are_told_apart(ledger) -> None:
    intend(ledger, "fa", "run-1")
    intend(ledger, "fb", "run-2")
    assert [entry.tag for entry in ledger.open_entries("run-2")] == ["fb"]
    assert ledger.open_entries("run-2", "other") == []


def test_the_ledger_is_private(ledger) -> None:
    intend(ledger, "fa")
    assert ledger.path.stat().st_mode & 0o777 == 0o600


def test_a_ledger_that_cannot_be_written_says_so(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="FLOW_JOBS_LEDGER"):
        intend(JobLedger(tmp_path / "file" / "ledger"), "fa")


@given(st.floats(0, 1))
def test_a_ledger_torn_at_any_byte_keeps_all_older_records_and_can_be_continued(tmp_path_factory, part) -> None:
    ledger = JobLedger(tmp_path_factory.mktemp("ledger") / "jobs.ledger")
    for tag in ("fa", "fb"):
        intend(ledger, tag)
        ledger.submitted(tag, f"id-{tag}")
    whole = ledger.path.read_bytes()
    cut = round(part * len(whole))
    ledger.path.write_bytes(whole[:cut])
    complete = [json.loads(line) for line in whole[:cut].split(b"\n")[:-1]]
    kept = {entry.tag: entry for entry in ledger.entries()}
    assert set(kept) >= set(fold(complete))
    intend(ledger, "fnew")
    ledger.submitted("fnew", "id-fnew")
    after = {entry.tag: entry for entry in ledger.entries()}
    assert after["fnew"].job_id == "id-fnew"
    assert set(after) == set(kept) | {"fnew"}


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "kind": st.sampled_from([*[s.value for s in EntryState], "future", 7]),
                "tag": st.sampled_from(["a", "b", 3]),
            },
            optional={"id": st.sampled_from(["1", "2", 5]), "time": st.just("x"), "provider": st.just(1)},
        )
    )
)
def test_folding_survives_any_records_and_never_reopens_a_job(records) -> None:
    closed: set[str] = set()
    for i in range(len(records) + 1):
        entries = fold(records[:i])
        assert not {tag for tag in closed if entries[tag].state.open}
        closed = {tag for tag, entry in entries.items() if not entry.state.open}


@pytest.fixture
def fake() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def accounted(fake, ledger) -> AccountedProvider:
    return AccountedProvider(fake, ledger, run_id="run-1", owner="htex")


def test_every_job_of_an_accounted_provider_is_in_the_ledger_with_its_tag(accounted, fake, ledger) -> None:
    job = accounted.submit("cmd", 1)
    (entry,) = ledger.open_entries()
    assert entry.job_id == job
    assert fake.jobs[job].extras.tag == entry.tag
    assert entry.provider["class"] == "flow_testing.fake_provider:FakeProvider"


def test_the_intent_is_written_before_the_scheduler_is_called(accounted, fake, ledger, monkeypatch) -> None:
    seen = []
    submit = fake.submit
    monkeypatch.setattr(fake, "submit", lambda *a, **k: seen.extend(ledger.open_entries()) or submit(*a, **k))
    accounted.submit("cmd", 1)
    assert [entry.state for entry in seen] == [EntryState.INTENDED]


def test_a_refused_job_is_closed_in_the_ledger(accounted, fake, ledger) -> None:
    fake.fail_submits(SubmitException("no such partition"))
    with pytest.raises(SubmitException):
        accounted.submit("cmd", 1)
    assert ledger.open_entries() == []
    assert ledger.entries()[0].detail == "no such partition"


def test_a_job_that_was_submitted_without_an_answer_is_found_by_its_tag(accounted, fake, ledger, monkeypatch) -> None:
    submit = fake.submit

    def lose_the_answer(*args: object, **kwargs: object) -> str:
        submit(*args, **kwargs)
        raise SubmitUnknown("timeout")

    monkeypatch.setattr(fake, "submit", lose_the_answer)
    assert accounted.submit("cmd", 1) == "1"
    assert ledger.open_entries()[0].job_id == "1"


def test_a_submission_nobody_knows_about_stays_open(accounted, fake, ledger) -> None:
    fake.fail_submits(SubmitUnknown("timeout"))
    with pytest.raises(SubmitUnknown):
        accounted.submit("cmd", 1)
    assert ledger.open_entries()[0].state is EntryState.INTENDED


def test_ended_and_cancelled_jobs_are_closed_once(accounted, fake, ledger) -> None:
    done, cancelled = accounted.submit("a", 1), accounted.submit("b", 1)
    fake.move(done, JobState.COMPLETED)
    accounted.status([done, cancelled])
    accounted.status([done, cancelled])
    accounted.cancel([cancelled])
    assert ledger.open_entries() == []
    assert len(ledger.path.read_text().splitlines()) == 6


def test_a_job_elsewhere_stays_open_until_what_it_left_there_is_removed(ledger) -> None:
    class Elsewhere(FakeProvider):
        locality = Locality.ELSEWHERE

        def __init__(self) -> None:
            super().__init__()
            self.cleared: list[str] = []

        def clear(self, job_ids) -> None:
            self.cleared += job_ids

    provider = Elsewhere()
    accounted = AccountedProvider(provider, ledger, run_id="run-1", owner="htex")
    cleared, left = accounted.submit("a", 1), accounted.submit("b", 1)
    assert accounted.cancel([cleared, left]) == [True, True]
    accounted.clear([cleared])
    assert [entry.job_id for entry in ledger.open_entries()] == [left]
    # the script ended before it could clear the other
    assert sweep(provider, ledger, ledger.open_entries()) == []
    assert provider.cleared == [cleared, left]
    assert ledger.open_entries() == []


def test_a_sweep_cancels_what_was_left_behind_and_only_that(accounted, fake, ledger) -> None:
    mine = accounted.submit("a", 1)
    foreign = fake.submit("b", 1)
    assert sweep(fake, ledger, ledger.open_entries()) == []
    assert fake.jobs[mine].status.state is JobState.CANCELLED
    assert fake.jobs[foreign].status.state is JobState.PENDING
    assert ledger.open_entries() == []


def test_a_sweep_never_ends_a_job_that_has_the_id_but_not_the_tag(accounted, fake, ledger) -> None:
    job = accounted.submit("a", 1)
    fake.jobs[job] = type(fake.jobs[job])("other", 1, "other", fake.jobs[job].extras.__class__(tag="other"))
    sweep(fake, ledger, ledger.open_entries())
    assert fake.jobs[job].status.state is JobState.PENDING
    assert ledger.open_entries() == []


def test_a_sweep_keeps_a_young_intent_open_since_its_job_may_still_appear(accounted, fake, ledger) -> None:
    fake.fail_submits(SubmitUnknown("timeout"))
    with pytest.raises(SubmitUnknown):
        accounted.submit("cmd", 1)
    (entry,) = sweep(fake, ledger, ledger.open_entries())
    assert entry.state is EntryState.INTENDED


def test_a_sweep_leaves_open_what_cannot_be_cancelled(accounted, fake, ledger) -> None:
    job = accounted.submit("a", 1)
    fake.refuse_cancel(job)
    assert [entry.job_id for entry in sweep(fake, ledger, ledger.open_entries())] == [job]
    assert len(ledger.open_entries()) == 1


def test_a_sweep_asks_later_when_the_scheduler_is_away(accounted, fake, ledger) -> None:
    accounted.submit("a", 1)
    fake.go_away()
    with pytest.raises(SchedulerUnavailable):
        sweep(fake, ledger, ledger.open_entries())
    assert len(ledger.open_entries()) == 1


def test_many_jobs_are_located_with_one_question(accounted, fake, ledger, monkeypatch) -> None:
    jobs = [accounted.submit("a", 1) for _ in range(50)]
    asked = []
    find = fake.find
    monkeypatch.setattr(fake, "find", lambda prefix: asked.append(prefix) or find(prefix))
    assert [job.job_id for job in locate(fake, ledger.open_entries())] == jobs
    assert len(asked) == 1


def test_the_command_lists_and_refuses_clearly(ledger, capsys) -> None:
    intend(ledger, "fabc")
    assert main(["jobs", "ls", "--ledger", str(ledger.path)]) == 0
    assert "fabc" in capsys.readouterr().out
    assert main(["jobs", "cancel", "--ledger", str(ledger.path)]) == 1
    assert "say which jobs" in capsys.readouterr().err
    assert main(["jobs", "cancel", "nix", "--ledger", str(ledger.path)]) == 1
    assert "has the tag or id nix" in capsys.readouterr().err


def test_tags_are_f_and_twelve_base32_characters() -> None:
    tags = {new_tag() for _ in range(100)}
    assert len(tags) == 100
    assert all(
        len(tag) == 13 and tag.startswith("f") and set(tag) <= set("abcdefghijklmnopqrstuvwxyz234567") for tag in tags
    )


@given(st.text())
def test_safe_names_are_safe(name) -> None:
    assert safe_name(name).replace("-", "").replace("_", "").replace(".", "").isalnum()
    assert len(safe_name(name)) <= 60


def test_a_job_that_stays_there_when_it_has_ended_is_open_until_it_is_removed(fake, ledger, monkeypatch) -> None:
    monkeypatch.setattr(FakeProvider, "keeps_ended", True)
    accounted = AccountedProvider(fake, ledger, run_id="run-1", owner="htex")
    failed, fine = accounted.submit("a", 1), accounted.submit("b", 1)
    fake.move(failed, JobState.FAILED)
    fake.move(fine, JobState.COMPLETED)
    accounted.status([failed, fine])
    accounted.clear([fine])
    # were the process killed now, a sweep would remove the other one
    assert [entry.job_id for entry in ledger.open_entries()] == [failed]
    accounted.close()
    assert ledger.open_entries() == []

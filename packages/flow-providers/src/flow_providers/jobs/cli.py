"""The command ``flow-providers``: lists, ends and adopts the jobs in a ledger, whatever happened to their driver."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from flow_providers.errors import ProviderError
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.jobs.entry import LedgerEntry
from flow_providers.jobs.ledger import JobLedger, default_ledger
from flow_providers.jobs.sweep import locate, sweep
from flow_providers.spec import provider_from


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    run: Callable[[JobLedger, argparse.Namespace], int] = options.run_verb
    try:
        return run(JobLedger(options.ledger), options)
    except ProviderError as error:
        print("\n".join(map(_shown, f"flow-providers: {error}".splitlines())), file=sys.stderr)
        return 1


def _shown(line: str) -> str:
    """Return a line with escapes for what a terminal would obey, not show: schedulers and files have written in it."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)


def _ls(ledger: JobLedger, options: argparse.Namespace) -> int:
    entries = [entry for entry in ledger.entries() if options.all or entry.state.open]
    entries = [entry for entry in entries if options.run in (None, entry.run_id)]
    if not entries:
        print(_shown(f"no {'' if options.all else 'open '}jobs in {ledger.path}"))
        return 0
    states = _states(entries) if options.ask else {}
    print(f"{'TAG':14} {'JOB':30} {'STATE':12} {'SUBMITTED':20} {'RUN':20} {'OWNER':14} PROVIDER")
    for entry in entries:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.submitted_at))
        state = states.get(entry.tag, entry.detail or entry.state.value)
        kind = str(entry.provider.get("class", "")).rpartition(":")[2]
        job = entry.job_id or "-"
        print(_shown(f"{entry.tag:14} {job:30} {state:12} {when:20} {entry.run_id:20} {entry.owner:14} {kind}"))
    return 0


def _cancel(ledger: JobLedger, options: argparse.Namespace) -> int:
    left = 0
    for provider, entries in _by_provider(_chosen(ledger, options)):
        not_cancelled = sweep(provider, ledger, entries)
        for entry in entries:
            what = "NOT cancelled" if entry in not_cancelled else "cancelled"
            print(_shown(f"{entry.tag} {entry.job_id or '-'} {what}"))
        left += len(not_cancelled)
        provider.close()
    return 1 if left else 0


def _adopt(ledger: JobLedger, options: argparse.Namespace) -> int:
    for provider, entries in _by_provider(_chosen(ledger, options)):
        for job in locate(provider, entries):
            if job.job_id is None:
                ledger.ended(job.entry.tag, "gone")
                print(_shown(f"{job.entry.tag} - gone"))
            else:
                ledger.adopted(job.entry.tag, f"adopted by {getpass.getuser()}", job.job_id)
                print(_shown(f"{job.entry.tag} {job.job_id} adopted: end it by the scheduler's own command"))
        provider.close()
    return 0


def _chosen(ledger: JobLedger, options: argparse.Namespace) -> list[LedgerEntry]:
    entries = ledger.open_entries(options.run)
    if options.jobs:
        known = {name for entry in entries for name in (entry.tag, entry.job_id)}
        unknown = [job for job in options.jobs if job not in known]
        if unknown:
            raise ProviderError(f"no open job in {ledger.path} has the tag or id {', '.join(unknown)}")
        return [entry for entry in entries if entry.tag in options.jobs or entry.job_id in options.jobs]
    if options.run is None and not options.all:
        # No default: "all jobs in the ledger" may belong to runs that are going on.
        raise ProviderError("say which jobs: tags or ids, --run RUN, or --all")
    return entries


def _by_provider(entries: Iterable[LedgerEntry]) -> Iterable[tuple[ExecutionProvider, list[LedgerEntry]]]:
    groups: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        # Equal specs make equal providers: one query for all their jobs.
        groups.setdefault(json.dumps(entry.provider, sort_keys=True), []).append(entry)
    for group in groups.values():
        yield provider_from(group[0].provider), group


def _states(entries: Iterable[LedgerEntry]) -> dict[str, str]:
    states = {}
    for provider, group in _by_provider(entry for entry in entries if entry.state.open):
        located = locate(provider, group)
        present = [job for job in located if job.job_id is not None]
        answers = provider.status([job.job_id or "" for job in present])
        states.update({job.entry.tag: "gone" for job in located})
        states.update({job.entry.tag: status.state.name for job, status in zip(present, answers, strict=True)})
        provider.close()
    return states


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flow-providers", description="Sees to batch jobs that Flow submitted.")
    parts = parser.add_subparsers(dest="part", required=True, metavar="jobs")
    verbs = parts.add_parser("jobs", help="the jobs in the ledger").add_subparsers(dest="verb", required=True)
    _verb(verbs, "ls", _ls, "list the open jobs").add_argument("--ask", action="store_true", help="ask the schedulers")
    for name, run, text in (
        ("cancel", _cancel, "end jobs that were left behind"),
        ("adopt", _adopt, "keep jobs that were left behind: nothing of Flow ends them any more"),
    ):
        _verb(verbs, name, run, text).add_argument("jobs", nargs="*", metavar="TAG|ID")
    return parser


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[JobLedger, argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text)
    verb.add_argument(
        "--ledger", default=str(default_ledger()), help="default: $FLOW_JOBS_LEDGER or runinfo/jobs.ledger"
    )
    verb.add_argument("--run", help="only jobs of this run")
    verb.add_argument("--all", action="store_true", help="all jobs (ls: also those that have ended)")
    verb.set_defaults(run_verb=run)
    return verb

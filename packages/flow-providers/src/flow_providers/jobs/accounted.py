"""The accounted provider: wraps another one, so that every job is in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock

from flow_providers.errors import LedgerError, ProviderError, SchedulerUnavailable, SubmitUnknown
from flow_providers.interfaces.job_extras import NO_EXTRAS, JobExtras
from flow_providers.interfaces.job_status import JobStatus
from flow_providers.interfaces.locality import Locality
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.jobs.ledger import JobLedger
from flow_providers.jobs.tag import new_tag
from flow_providers.spec import spec_of

logger = logging.getLogger("flow.providers.accounted")


class AccountedProvider(ExecutionProvider):
    """Wraps a provider so that each job is in the ledger, tagged, before it is submitted, and until it is gone.

    Whether a job was submitted when its scheduler did not answer is found out by its tag.

    Args:
        provider: Does the work.
        ledger: Knows the jobs.
        run_id: The run they belong to.
        owner: The submitter in the run, such as an executor's label.
    """

    def __init__(self, provider: ExecutionProvider, ledger: JobLedger, *, run_id: str, owner: str) -> None:
        self.provider = provider
        self.ledger = ledger
        self.run_id = run_id
        self.owner = owner
        self.label = provider.label
        self.nodes_per_block = provider.nodes_per_block
        self.cores_per_node = provider.cores_per_node
        self.mem_per_node = provider.mem_per_node
        self.walltime_s = provider.walltime_s
        self.init_blocks = provider.init_blocks
        self.min_blocks = provider.min_blocks
        self.max_blocks = provider.max_blocks
        self.parallelism = provider.parallelism
        self.appears_within_s = provider.appears_within_s
        self.delivers_files = provider.delivers_files
        self._lock = Lock()
        self._tags: dict[str, str] = {}  # of the jobs that are open in the ledger, by id
        self._kept: set[str] = set()  # jobs that have ended and are still there

    def submit(
        self, command: str, tasks_per_node: int, job_name: str = "flow.auto", *, extras: JobExtras = NO_EXTRAS
    ) -> str:
        """Write the job into the ledger, submit it, and return its id.

        Raises:
            LedgerError: the job cannot be written down; nothing was submitted.
            SubmitException, SubmitUnknown: as the provider; after SubmitUnknown the ledger keeps the job open.
        """
        tag = extras.tag or new_tag()
        # Before the submission: a driver killed between the two leaves an entry whose tag finds the job. The other way
        # round, nobody would know of the job.
        self.ledger.intend(
            tag, run_id=self.run_id, owner=self.owner, job_name=job_name, provider=spec_of(self.provider)
        )
        try:
            job_id = self.provider.submit(command, tasks_per_node, job_name, extras=replace(extras, tag=tag))
        except SubmitUnknown as error:
            job_id = self._found(tag, error)
        except ProviderError as error:
            self._refused(tag, str(error))
            raise
        except Exception as error:  # a fault of the provider says nothing of the job
            job_id = self._left_by(tag, error)
        with self._lock:
            self._tags[job_id] = tag
        # The job is there now, so a ledger that cannot be written is a warning only: the open intent still finds it by
        # its tag.
        self._note(lambda: self.ledger.submitted(tag, job_id))
        return job_id

    def status(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Return the provider's states, and close the ledger's entries of jobs that ended."""
        answers = self.provider.status(job_ids)
        for job_id, status in zip(job_ids, answers, strict=True):
            if status.terminal and not self.provider.keeps_ended:
                self._ended(job_id, status.state.name)
            elif status.terminal:
                # What is left of it there goes when it is cleared, or with the provider; a sweep does that where this
                # process ends before.
                with self._lock:
                    self._kept.add(job_id)
        return answers

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """Cancel through the provider, and close the ledger's entries of jobs that are gone or going.

        Those of jobs elsewhere stay open until ``clear``, or until their end is seen: should this process end before
        it, the sweep does both.
        """
        answers = self.provider.cancel(job_ids)
        leaves_files = self.provider.locality is Locality.ELSEWHERE
        for job_id, gone in zip(job_ids, answers, strict=True):
            if gone and not leaves_files:
                self._ended(job_id, "CANCELLED")
        return answers

    def find(self, tag_prefix: str) -> list[str]:
        """Return the ids of the user's jobs whose tag starts with ``tag_prefix``, as the provider finds them."""
        return self.provider.find(tag_prefix)

    def tail(self, job_id: str, max_bytes: int = 4096) -> tuple[str, str]:
        """Return the ends of the outputs of a job, as the provider reads them."""
        return self.provider.tail(job_id, max_bytes)

    def clear(self, job_ids: Sequence[str]) -> None:
        """Let the provider remove what ended jobs have left on another machine, and close their entries."""
        self.provider.clear(job_ids)
        for job_id in job_ids:
            self._ended(job_id, "CANCELLED")

    def offer_script_dir(self, path: str) -> None:
        """Offer the provider a directory for submit scripts."""
        self.provider.offer_script_dir(path)

    @property
    def locality(self) -> Locality:
        """What the provider's jobs share with this machine."""
        return self.provider.locality

    @property
    def current_capacity(self) -> int:
        """Jobs submitted through the provider and not seen to have ended."""
        return self.provider.current_capacity

    def close(self) -> None:
        """Close the provider. Idempotent; jobs that go on and their entries in the ledger stay."""
        self.provider.close()
        with self._lock:
            kept, self._kept = sorted(self._kept), set()
        for job_id in kept:
            self._ended(job_id, "CLEARED")

    def _found(self, tag: str, error: SubmitUnknown) -> str:
        """Return the id of a job that may have been submitted. SubmitUnknown: still not known; the ledger has it."""
        try:
            found = self.provider.find(tag)
        except SchedulerUnavailable:
            # Still unknown: the entry stays open, and the sweep looks for the tag later.
            raise error from None
        if not found:
            raise error
        logger.warning("job %s was submitted though its scheduler did not say so: %s", found[0], error)
        return found[0]

    def _left_by(self, tag: str, error: Exception) -> str:
        """Return the id of the job that a faulty provider submitted all the same; raise the error if there is none.

        Where that is not known, the entry in the ledger stays open, and a later sweep looks for its tag.
        """
        try:
            found = self.provider.find(tag)
        except Exception:
            raise error from None
        if found:
            logger.warning("job %s was submitted though its provider raised %r", found[0], error)
            return found[0]
        self._refused(tag, repr(error))
        raise error

    def _refused(self, tag: str, why: str) -> None:
        self._note(lambda: self.ledger.refused(tag, why))

    def _ended(self, job_id: str, how: str) -> None:
        with self._lock:
            # Popped, so that later questions about an ended job do not write a line each.
            tag = self._tags.pop(job_id, None)
        if tag is not None:
            self._note(lambda: self.ledger.ended(tag, how))

    @staticmethod
    def _note(write: Callable[[], None]) -> None:
        """Write a record that only saves a later sweep a search by tag: a full disk costs no job."""
        try:
            write()
        except LedgerError as error:
            logger.warning("%s", error)

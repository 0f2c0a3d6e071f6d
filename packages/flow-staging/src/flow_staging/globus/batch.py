"""Globus batch: one transfer of all files of one task between two endpoints, as a state machine."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from flow_core.interfaces.staging import Progress, Transfer
from flow_staging.globus.login import ADVICE, sdk_module
from flow_staging.transfer.failures import (
    PermanentTransferError,
    TooSlow,
    TransferCancelled,
    TransientTransferError,
    staging_error,
)
from flow_staging.transfer.retry import LeastSpeed, Pace

_LOG = logging.getLogger("flow.staging.globus")
# Marks, in the nice_status of Globus, of errors that do not pass: Globus itself would try until the deadline.
_FATAL = (
    "FILE_NOT_FOUND",
    "NOT_FOUND",
    "NO_SUCH_FILE",
    "PERMISSION_DENIED",
    "QUOTA_EXCEEDED",
    "NO_SPACE",
    "DISK_FULL",
    "IS_A_DIRECTORY",
    "NOT_A_DIRECTORY",
    "INVALID_PATH",
    "ENDPOINT_DELETED",
    "CREDENTIALS_EXPIRED",
    "AUTH",
    "UNSUPPORTED",
)
# 0 bytes/s: Globus may check large files for long without moving any.
_ANY_SPEED = LeastSpeed("GlobusStaging", 0.0, 300.0)
_GIVE_UP_AFTER = 8  # steps in a row without an answer; by default that is one to four minutes
_RENAMES = 20
"""Files renamed by requests in one step, at most: between steps the thread looks at the other batches."""


class TransferApi(Protocol):
    """Protocol of the calls of ``globus_sdk.TransferClient`` that are used here."""

    def submit_transfer(self, data: object) -> Mapping[str, object]:
        """Start a transfer; the answer has its ``task_id``."""
        ...

    def submit_delete(self, data: object) -> Mapping[str, object]:
        """Start a removal of files; the answer has its ``task_id``."""
        ...

    def get_submission_id(self) -> Mapping[str, object]:
        """Get an id that makes submission repeatable."""
        ...

    def get_task(self, task_id: str) -> Mapping[str, object]:
        """Look at a transfer or removal."""
        ...

    def cancel_task(self, task_id: str) -> object:
        """Cancel a transfer or removal; what has arrived stays."""
        ...

    def task_event_list(self, task_id: str) -> Sequence[Mapping[str, object]]:
        """Get what happened to one, newest first."""
        ...

    def operation_rename(self, endpoint_id: str, oldpath: str, newpath: str) -> object:
        """Rename a file on an endpoint; raises TransferAPIError."""
        ...


@dataclass(frozen=True, slots=True)
class Item:
    """One file on its way.

    Attributes:
        transfer: The file as the task knows it.
        source: Path on the source endpoint.
        final: Path on the destination endpoint.
        temporary: Path beside it, where it is made.
        local_final: For a file coming in, where the task finds it.
        local_temporary: For a file coming in, where it is made, as the submit side may see it.
    """

    transfer: Transfer
    source: str
    final: str
    temporary: str
    local_final: Path | None = None
    local_temporary: Path | None = None


class Phase(Enum):
    """Phases of a batch, in their order; CLEAR only where an older file must go before a rename."""

    SUBMIT = "submit"
    WAIT = "wait"
    RENAME = "rename"
    CLEAR = "clear"


class Batch:
    """A state machine driven by the poller's thread: each ``step`` asks Globus once or so.

    Attributes:
        hurries: The next step need not wait: there is more to be done at once.
        unwanted: The files are no longer needed: the poller stops it.
        progress: How far its transfer was when Globus was last asked, None where that did not say.
    """

    def __init__(
        self, source: str, destination: str, items: Sequence[Item], timeout_s: float, speed: LeastSpeed = _ANY_SPEED
    ) -> None:
        self._speed = speed
        self._pace: Pace | None = None
        self._moved = 0
        self.future: Future[None] = Future()
        self.future.set_running_or_notify_cancel()
        self.source = source
        self.destination = destination
        self.timeout_s = timeout_s
        self.phase = Phase.SUBMIT
        self.hurries = False
        self.unwanted = False
        self.progress: Progress | None = None
        self.task_id = ""
        self._left = list(items)
        self._items = tuple(items)
        self._submission = ""
        self._clearing = ""
        self._failures = 0
        self._seen: set[object] = set()

    def step(self, api: TransferApi, *, late: bool) -> bool:
        """Go on; True when the future has been set. Never raises.

        Args:
            api: The client.
            late: The deadline has passed.
        """
        self.hurries = False
        try:
            # First the deadline: a batch that is late may never get an answer.
            if late:
                self._give_up(api, f"not complete within {self.timeout_s:g} s; {self._status(api)}")
            with _translated():
                done = self._advance(api)
            self._failures = 0
            if done:
                self.future.set_result(None)
            return done
        except TransientTransferError as error:
            self._failures += 1
            if self._failures < _GIVE_UP_AFTER:
                _LOG.info("Globus cannot be asked: %s (asked %d times)", error, self._failures)
                return False
            self.fail(error, api)
        except Exception as error:
            self.fail(error, api)
        return True

    def fail(self, error: Exception, api: TransferApi | None = None) -> None:
        """End with an error, take back what is under way and remove what was half-made."""
        # Removed only after the cancel: Globus would go on to write the temporary files.
        if api is not None and self.task_id:
            self._cancel(api)
            self._remove_temporaries(api)
        for item in self._items:
            if str(error).find(item.source) >= 0:
                self.future.set_exception(staging_error(item.transfer, error))
                return
        self.future.set_exception(staging_error(self._items[0].transfer, error))

    def stop(self, api: TransferApi | None) -> None:
        """End because the method is closed, or the files are no longer needed."""
        self.fail(TransferCancelled("the transfer was stopped before it was complete"), api)

    @property
    def transfers(self) -> list[Transfer]:
        """The files as the task knows them."""
        return [item.transfer for item in self._items]

    # -- phases

    def _advance(self, api: TransferApi) -> bool:
        if self.phase is Phase.SUBMIT:
            self._submit(api)
            return False
        if self.phase is Phase.WAIT:
            return self._wait(api) and self._rename(api)
        if self.phase is Phase.CLEAR:
            status = api.get_task(self._clearing)["status"]
            if status == "ACTIVE":
                return False
            self.phase = Phase.RENAME
        return self._rename(api)

    def _submit(self, api: TransferApi) -> None:
        if not self._submission:  # kept: asking again with the same one does not start a second transfer
            self._submission = str(api.get_submission_id()["value"])
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.timeout_s)
        data = sdk_module().TransferData(
            source_endpoint=self.source,
            destination_endpoint=self.destination,
            label=f"Flow task {self._items[0].transfer.task_id}",
            submission_id=self._submission,
            # Globus reads each file again at its destination: nothing else sees whether it is whole there.
            verify_checksum=True,
            fail_on_quota_errors=True,
            # The service's own deadline too: it ends the transfer where the script has died.
            deadline=ends.strftime("%Y-%m-%d %H:%M:%S"),
            notify_on_succeeded=False,
            notify_on_failed=False,
            notify_on_inactive=False,
        )
        for item in self._items:
            recursive = item.transfer.file.kind == "directory"
            data.add_item(item.source, item.temporary, **({"recursive": True} if recursive else {}))
        self.task_id = str(api.submit_transfer(data)["task_id"])
        self.phase = Phase.WAIT

    def _wait(self, api: TransferApi) -> bool:
        """Look at the transfer; True when it has succeeded."""
        task = api.get_task(self.task_id)
        status, nice = str(task.get("status")), str(task.get("nice_status") or "")
        self.progress = _progress(task)
        # A paused or queued transfer is slow for a reason that is reported elsewhere.
        self._check_speed(status == "ACTIVE" and not task.get("is_paused"))
        if status == "SUCCEEDED":
            self.phase = Phase.RENAME
            return True
        if status == "FAILED":
            fatal = task.get("fatal_error")
            what = fatal.get("description") if isinstance(fatal, Mapping) else None
            raise PermanentTransferError(
                _words(f"Globus says that the transfer failed: {what or nice}", self._errors(api))
            )
        if status == "INACTIVE":
            raise PermanentTransferError(
                _words(f"Globus has suspended the transfer ({nice}): {ADVICE}", self._errors(api))
            )
        if task.get("is_paused"):
            self._tell(("paused",), f"Globus transfer {self.task_id} is paused by an endpoint's manager; waiting")
        elif nice and nice.upper() not in ("OK", "QUEUED"):
            errors = self._errors(api)
            if any(mark in nice.upper() for mark in _FATAL):
                raise PermanentTransferError(_words(f"Globus cannot go on: {nice}", errors))
            self._tell((nice, errors), f"Globus transfer {self.task_id} has trouble and goes on: {nice} {errors}")
        return False

    def _check_speed(self, runs: bool) -> None:
        """Give a transfer up that is too slow since its first bytes.

        Raises PermanentTransferError. One that is paused may rest.
        """
        far = self.progress
        if not runs or far is None or not far.moved:
            self._pace = None
            return
        if self._pace is None:
            self._pace, self._moved = Pace(self._speed), far.moved
        count, self._moved = max(0, far.moved - self._moved), far.moved
        try:
            self._pace.add(count)
        except TooSlow as error:
            raise PermanentTransferError(str(error)) from error

    def _rename(self, api: TransferApi) -> bool:
        """Give the files their names, one after the other; True when all have theirs."""
        asked = 0
        while self._left:
            item = self._left[0]
            if item.temporary != item.final and not _renamed_here(item):
                if asked == _RENAMES:
                    self.hurries = True
                    return False
                asked += 1
                if not self._rename_there(api, item):
                    return False
            self._clearing = ""
            self._left.pop(0)
        return True

    def _rename_there(self, api: TransferApi, item: Item) -> bool:
        """Rename a file by a request; False if an older one must be removed before."""
        try:
            api.operation_rename(self.destination, item.temporary, item.final)
        except sdk_module().TransferAPIError as error:
            if self._failures and error.http_status == 404:  # done by the last try, whose answer was lost
                return True
            if not _exists(error) or self._clearing:
                raise
            self._clear(api, item)
            return False
        return True

    def _clear(self, api: TransferApi, item: Item) -> None:
        """Remove an older file, on endpoints that do not rename over one."""
        data = sdk_module().DeleteData(endpoint=self.destination, ignore_missing=True)
        data.add_item(item.final)
        self._clearing = str(api.submit_delete(data)["task_id"])
        self.phase = Phase.CLEAR

    # -- ends

    def _give_up(self, api: TransferApi, why: str) -> None:
        raise PermanentTransferError(why)

    def _status(self, api: TransferApi) -> str:
        if not self.task_id:
            return "Globus could not be asked"
        try:
            task = api.get_task(self.task_id)
        except Exception:
            return "Globus cannot be asked"
        state = "paused" if task.get("is_paused") else task.get("nice_status") or task.get("status")
        return f"Globus says: {_words(str(state), self._errors(api))}"

    def _errors(self, api: TransferApi) -> str:
        """Return the newest error that Globus has noted, and log those not logged yet."""
        with contextlib.suppress(Exception):
            errors = [event for event in api.task_event_list(self.task_id) if event.get("is_error")]
            for event in reversed(errors):
                details = str(event.get("details") or event.get("description") or event.get("code") or "")
                self._tell((event.get("time"), details), f"Globus transfer {self.task_id}: {details}")
            if errors:
                newest = errors[0]
                return str(newest.get("details") or newest.get("description") or newest.get("code") or "")
        return ""

    def _tell(self, key: object, text: str) -> None:
        if key not in self._seen:
            self._seen.add(key)
            _LOG.warning(text)

    def _cancel(self, api: TransferApi) -> None:
        with contextlib.suppress(Exception):
            if self.phase is Phase.WAIT:
                api.cancel_task(self.task_id)

    def _remove_temporaries(self, api: TransferApi) -> None:
        with contextlib.suppress(Exception):
            data = sdk_module().DeleteData(endpoint=self.destination, ignore_missing=True, recursive=True)
            made = [item.temporary for item in self._left if item.temporary != item.final]
            for path in made:
                data.add_item(path)
            if made:
                api.submit_delete(data)


def temporary_name(path: str) -> str:
    """Return a name beside a path under which a file can be made."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.flow-{secrets.token_hex(4)}-{name[-200:]}"


def _renamed_here(item: Item) -> bool:
    """Rename on a file system that this side shares with the endpoint: at once, also over an older file."""
    if item.local_temporary is None or item.local_final is None or not item.local_temporary.exists():
        return False
    os.replace(item.local_temporary, item.local_final)
    return True


def _progress(task: Mapping[str, object]) -> Progress | None:
    moved, speed = task.get("bytes_transferred"), task.get("effective_bytes_per_second")
    return Progress(moved, None, float(speed) if isinstance(speed, int) else 0.0) if isinstance(moved, int) else None


def _exists(error: object) -> bool:
    text = f"{getattr(error, 'code', '')} {getattr(error, 'message', '')}".lower()
    return "exist" in text and "not exist" not in text


def _words(said: str, details: str) -> str:
    return f"{said} ({details})" if details and details not in said else said


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn errors of globus-sdk into transient and permanent transfer errors."""
    sdk = sdk_module()
    try:
        yield
    except sdk.AuthAPIError as error:
        if error.http_status >= 500:
            raise TransientTransferError(f"Globus Auth answered {error.http_status}") from error
        raise PermanentTransferError(f"the login to Globus has expired or was withdrawn: {ADVICE}") from error
    except sdk.TransferAPIError as error:
        said = f"Globus answered {error.http_status} {error.code}: {error.message}"
        if error.http_status == 401:
            raise PermanentTransferError(f"the login to Globus is not valid: {ADVICE} ({said})") from error
        if error.code == "ConsentRequired":
            raise PermanentTransferError(
                f"the collection wants your consent: flow-globus-auth --data-access UUID ({said})"
            ) from error
        if error.http_status >= 500 or error.http_status == 429:
            raise TransientTransferError(said) from error
        raise PermanentTransferError(said) from error
    except sdk.NetworkError as error:
        raise TransientTransferError(f"no answer from Globus: {error}") from error

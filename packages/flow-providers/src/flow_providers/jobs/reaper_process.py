"""The handle on a run's reaper process, in the driver: start, watch, release."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress

from flow_providers.errors import ProviderError
from flow_providers.folders import closed_to_writers
from flow_providers.interfaces.provider import ExecutionProvider
from flow_providers.jobs.ledger import JobLedger
from flow_providers.jobs.reaper import RELEASE
from flow_providers.spec import spec_of
from flow_providers.starting import starting


class ReaperProcess:
    """A process that cancels the jobs of one run and owner if this process ends without having closed it.

    Start it before the first job is submitted, and after ``offer_script_dir``. Close it when the jobs are cancelled, or
    shall live on.

    Args:
        provider: Of this library, or with a constructor that ``flow_providers.options.checked`` decorates; an
            ``AccountedProvider`` is looked through.
        ledger: Where the jobs are.
        run_id: The run.
        owner: The submitter of the jobs, such as an executor's label.
        log_path: File for its log; None: no log.

    Raises:
        ProviderError: the provider could not be made in another process, or no process could be started.
    """

    def __init__(
        self, provider: ExecutionProvider, ledger: JobLedger, *, run_id: str, owner: str, log_path: str | None = None
    ) -> None:
        # An AccountedProvider has no spec of its own, and the reaper writes to the ledger itself.
        provider = getattr(provider, "provider", provider)
        if not hasattr(provider, "_options"):
            raise ProviderError(
                f"{type(provider).__name__} cannot be made again in the reaper: decorate its __init__ with "
                "flow_providers.options.checked"
            )
        # Said at once: the reaper once tried for 15 minutes to import the class of a script, which it cannot.
        if type(provider).__module__ in ("__main__", "__mp_main__"):
            raise ProviderError(
                f"{type(provider).__name__} cannot be made again in the reaper, since it is defined in the script: put "
                "it into a module that the script imports"
            )
        self._process = self._start(ledger, run_id, owner, log_path)
        spec = json.dumps(spec_of(provider, secrets=True)).encode() + b"\n"
        assert self._process.stdin is not None
        # The reaper may have been killed already; alive() tells the caller.
        with suppress(BrokenPipeError):
            self._process.stdin.write(spec)

    @property
    def pid(self) -> int:
        """Process id of the reaper, for logs and tests."""
        return self._process.pid

    def alive(self) -> bool:
        """Return whether the reaper runs; it may have been killed."""
        return self._process.poll() is None

    def stopped(self) -> bool:
        """Return whether the reaper is stopped (SIGSTOP): it would not see the end of this process."""
        try:
            # WNOWAIT leaves the state as it is for Popen, and for the next call.
            return os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # it has ended
            return False

    def kill(self) -> None:
        """Kill the reaper at once, stopped or not. Idempotent; waits up to 5 s."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def close(self, timeout_s: float = 5.0) -> None:
        """End it, by force where it is stopped or takes longer; it cancels nothing. Idempotent."""
        # A stopped process does not read its pipe: waiting for it would take the whole timeout.
        if self.alive() and self.stopped():
            self.kill()
            return
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            with suppress(OSError):
                pipe.write(RELEASE)
            with suppress(OSError):
                pipe.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout_s)

    @staticmethod
    def _start(ledger: JobLedger, run_id: str, owner: str, log_path: str | None) -> subprocess.Popen[bytes]:
        # in a job that Flow itself started, it must outlive that job's processes
        environment = {name: value for name, value in os.environ.items() if name != "FLOW_JOB_ID"}
        # -P: a module in the working directory, of whoever may write there, must not take the place of one of ours.
        command = [sys.executable, "-P", "-m", "flow_providers.jobs.reaper"]
        command += ["--label", owner, "--run", run_id, "--ledger", str(ledger.path)]
        try:
            with open(log_path or os.devnull, "ab", opener=closed_to_writers) as log, starting():
                return subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    # A session of its own: signals to the terminal's foreground group (Ctrl-C, hang-up) end the driver
                    # and not its reaper.
                    start_new_session=True,
                    bufsize=0,
                )
        except OSError as error:
            raise ProviderError(f"cannot start the reaper of {owner}: {error}") from error

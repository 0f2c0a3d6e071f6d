"""The reaper of a run: cancels its jobs when the driver is gone without having done so.

``python -m flow_providers.jobs.reaper --label L --run R --ledger FILE`` reads from standard input, a pipe of the
driver: a line with the provider's spec (it may hold a password, and so is on no command line), then nothing until the
driver writes ``release`` (nothing to do: it ended well) or the pipe ends: the driver died. Then the open entries of
the run and label are cancelled, again and again while the scheduler is away, for at most ``--patience`` seconds.

Waiting, it imports nothing but the standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flow_providers.interfaces.provider import ExecutionProvider
    from flow_providers.jobs.ledger import JobLedger

RELEASE = b"release\n"
_PDEATHSIG = 1  # of prctl(2)
# Seconds between two looks at the parent: a forked child of the driver may hold the pipe open, so the end of the pipe
# alone does not tell of the driver's death.
_PARENT_CHECK_S = 5.0
_SETTLE_S = 2.0  # seconds; a submission under way when the driver died may become visible a moment later
# Seconds before each further try, the last one again and again: soon at first, as jobs go on; then rarely, as an
# outage of a scheduler takes long.
_RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Wait for the driver's end; return 0 when no job is left behind."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
    _go_on_after_driver()
    spec_line, released = _wait_for_driver()
    if released or not spec_line:
        return 0
    _say(f"the driver of run {options.run} is gone: cancelling the jobs of {options.label}")
    return _reap(json.loads(spec_line), options.ledger, options.run, options.label, options.patience)


def reap(provider: ExecutionProvider, ledger: JobLedger, run_id: str, owner: str) -> int:
    """Cancel the open entries of a run and owner that is dead, once; return how many are left.

    Raises:
        SchedulerUnavailable: do it again later.
    """
    from flow_providers.jobs.sweep import sweep

    entries = ledger.open_entries(run_id, owner)
    left = sweep(provider, ledger, entries, submitters_gone=True)
    _say(f"{len(entries) - len(left)} job(s) cancelled, {len(left)} left")
    return len(left)


def _reap(spec: Mapping[str, object], ledger_path: str, run_id: str, owner: str, patience_s: float) -> int:
    from flow_providers.errors import ProviderError
    from flow_providers.jobs.ledger import JobLedger
    from flow_providers.spec import provider_from

    time.sleep(_SETTLE_S)
    ledger = JobLedger(ledger_path)
    deadline = time.monotonic() + patience_s
    turn = 0
    while True:
        # Looked at before the provider is made: a provider class of the script cannot be made here, and without jobs
        # it need not be.
        if not ledger.open_entries(run_id, owner):
            return 0
        try:
            provider = provider_from(spec, trusted=True)  # type: ignore[arg-type]  # from JSON: plain by construction
            if reap(provider, ledger, run_id, owner) == 0:
                provider.close()
                return 0
        except ProviderError as error:
            _say(str(error))
        pause = _RETRY_S[min(turn, len(_RETRY_S) - 1)]
        turn += 1
        if time.monotonic() + pause > deadline:
            _say(f"gave up: see `flow-providers jobs ls --ledger {ledger_path}`")
            return 1
        time.sleep(pause)


def _wait_for_driver() -> tuple[bytes, bool]:
    """Return the spec's line once the driver is done or dead, and whether it released us."""
    parent = os.getppid()
    received = b""
    while True:
        readable, _, _ = select.select([0], [], [], _PARENT_CHECK_S)
        if readable:
            chunk = os.read(0, 65536)
            if not chunk:
                break
            received += chunk
        elif os.getppid() != parent:
            break
        if received.endswith(b"\n" + RELEASE) or received == RELEASE:
            # Released: the driver ended its jobs, or wants them to live on.
            return b"", True
    return received.split(b"\n", 1)[0] if b"\n" in received else b"", False


def _go_on_after_driver() -> None:
    """Have Linux continue this process when the driver ends: stopped, it would not see that, and stay for good."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PDEATHSIG, ctypes.c_ulong(signal.SIGCONT), 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}", file=sys.stderr, flush=True)  # noqa: T201  # its log


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flow-reaper", description="Cancels a run's jobs when its driver is gone.")
    parser.add_argument("--label", required=True, help="who submitted the jobs")
    parser.add_argument("--run", required=True, help="the run's id")
    parser.add_argument("--ledger", required=True, help="the ledger of jobs")
    parser.add_argument("--patience", type=float, default=900.0, help="seconds to try for")
    return parser


if __name__ == "__main__":
    sys.exit(main())

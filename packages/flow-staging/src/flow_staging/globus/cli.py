"""The command ``flow-globus-auth``: log in to Globus without running a script."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from flow_core.errors import FlowError
from flow_staging.globus.login import CLIENT_VARIABLE, GlobusLogin
from flow_staging.transfer.failures import PermanentTransferError


def main(arguments: Sequence[str] | None = None) -> int:
    """Log in if necessary; return the exit code."""
    parser = argparse.ArgumentParser(prog="flow-globus-auth", description="Log in to Globus for Flow's transfers.")
    parser.add_argument("--client-id", help=f"client id of your registered native app (default: ${CLIENT_VARIABLE})")
    parser.add_argument("--force", action="store_true", help="log in again, as another user for example")
    parser.add_argument(
        "--data-access",
        metavar="UUID",
        action="append",
        default=[],
        help="also allow access to this mapped collection, where Globus asks for consent; may be repeated",
    )
    options = parser.parse_args(arguments)
    login = GlobusLogin(options.client_id)
    print("Flow Globus command-line authoriser")
    print("If authorisation to Globus is necessary, you will be prompted now.")
    print("Otherwise nothing will be done.")
    try:
        if options.force or options.data_access or not login.works():
            login.ask(input, print, options.data_access)
    except (PermanentTransferError, FlowError, OSError, EOFError) as error:
        print(f"flow-globus-auth: {error or 'no code was given'}", file=sys.stderr)
        return 1
    print("Authorization complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())

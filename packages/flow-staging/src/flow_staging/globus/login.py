"""The user's login to Globus: a native-app grant, whose tokens are kept in a file of the user alone."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from flow_core.errors import ConfigurationError
from flow_core.folders import make_directory
from flow_core.own_files import NotOwnFile, open_own
from flow_staging.transfer.failures import PermanentTransferError

if TYPE_CHECKING:
    import globus_sdk

SCOPE = "urn:globus:auth:scope:transfer.api.globus.org:all"
SERVER = "transfer.api.globus.org"
CLIENT_VARIABLE = "FLOW_GLOBUS_CLIENT_ID"
FILE_VARIABLE = "FLOW_GLOBUS_TOKENS"
_LONGEST = 1 << 20  # bytes of the token file read at most; a real one has some hundred
ADVICE = "run flow-globus-auth to log in"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one login.

    Attributes:
        client_id: The native app which the user has allowed to act.
        access_token: Good for some days.
        refresh_token: Gives new access tokens until it is withdrawn.
        expires_at: When the access token ends, in seconds since 1970.
    """

    client_id: str
    access_token: str
    refresh_token: str
    expires_at: int


class TokenStore:
    """A file with mode 0600. Any thread, any process: it is replaced as a whole."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = token_file() if path is None else path

    def load(self) -> Tokens | None:
        """Return the tokens, or None if there is no usable file; takes away the rights of others to read it.

        Raises:
            PermanentTransferError: it belongs to another user, or others may write to it.
        """
        try:
            with open_own(self.path) as stream:
                if os.fstat(stream.fileno()).st_mode & 0o077:
                    os.fchmod(stream.fileno(), 0o600)
                return Tokens(**json.loads(stream.read(_LONGEST)))
        except NotOwnFile as error:
            raise PermanentTransferError(
                f"the login to Globus in {self.path} is not used: {error.reason}. Remove the file, or name another one "
                f"in {FILE_VARIABLE}, and {ADVICE}"
            ) from error
        except (OSError, ValueError, TypeError):
            return None

    def save(self, tokens: Tokens) -> None:
        """Replace the file; raises OSError."""
        make_directory(self.path.parent, 0o700)
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "w") as stream:
                json.dump(asdict(tokens), stream)
            # As a whole: another process must not read half of it.
            os.replace(temporary, self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def token_file() -> Path:
    """Return where tokens are kept: $FLOW_GLOBUS_TOKENS, or the user's configuration directory."""
    if named := os.environ.get(FILE_VARIABLE):
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / "flow" / "globus-tokens.json"


class GlobusLogin:
    """Login of the user: gives authorizers to clients, and asks the user where there are no tokens. Any thread."""

    def __init__(self, client_id: str | None = None, store: TokenStore | None = None) -> None:
        self.store = TokenStore() if store is None else store
        self._given = client_id or os.environ.get(CLIENT_VARIABLE)
        self._lock = threading.Lock()

    def authorizer(self) -> globus_sdk.RefreshTokenAuthorizer:
        """Return an authorizer, which signs requests and renews access tokens as they expire.

        Raises:
            PermanentTransferError: there is no login, or globus-sdk is missing; the message says what to do.
        """
        sdk = sdk_module()
        tokens = self.store.load()
        if tokens is None:
            raise PermanentTransferError(f"nobody is logged in to Globus ({self.store.path}): {ADVICE}")
        signing: globus_sdk.RefreshTokenAuthorizer = sdk.RefreshTokenAuthorizer(
            tokens.refresh_token,
            sdk.NativeAppAuthClient(tokens.client_id),
            access_token=tokens.access_token,
            expires_at=tokens.expires_at,
            on_refresh=lambda response: self._keep(tokens.client_id, response, tokens.refresh_token),
        )
        return signing

    def works(self) -> bool:
        """Return whether the kept login is good for another request; asks Globus only when a token has expired."""
        import globus_sdk

        try:
            self.authorizer().ensure_valid_token()
        except (PermanentTransferError, globus_sdk.GlobusError):
            return False
        return True

    def ask(self, prompt: Callable[[str], str], say: Callable[[str], object], collections: Sequence[str] = ()) -> None:
        """Take the user through the browser, and keep the tokens.

        Args:
            prompt: Shows a text and returns a line.
            say: Shows a text.
            collections: UUIDs of mapped collections that want a consent of their own.

        Raises:
            ConfigurationError: no client id is known.
            PermanentTransferError: the code was not accepted.
        """
        sdk = sdk_module()
        client_id = self._client_id()
        client = sdk.NativeAppAuthClient(client_id)
        client.oauth2_start_flow(requested_scopes=_scopes(collections), refresh_tokens=True)
        say(f"Open this address in a browser, log in, and allow the access:\n\n{client.oauth2_get_authorize_url()}\n")
        code = prompt("Paste the code that is shown then: ").strip()
        try:
            response = client.oauth2_exchange_code_for_tokens(code)
        except sdk.AuthAPIError as error:
            raise PermanentTransferError(f"Globus did not take the code: {error.message}") from error
        self._keep(client_id, response, "")

    def _client_id(self) -> str:
        tokens = self.store.load()
        found = self._given or (tokens.client_id if tokens else "")
        if not found:
            raise ConfigurationError(
                "Globus must know who asks: register a native app (thick client) at "
                "https://app.globus.org/settings/developers and give its client id as client_id=, "
                f"--client-id or in {CLIENT_VARIABLE}"
            )
        return found

    def _keep(self, client_id: str, response: globus_sdk.OAuthTokenResponse, old_refresh: str) -> None:
        with self._lock:
            got = response.by_resource_server[SERVER]
            self.store.save(
                Tokens(
                    client_id,
                    str(got["access_token"]),
                    # A renewal brings no new refresh token: the old one stays valid.
                    str(got.get("refresh_token") or old_refresh),
                    int(got["expires_at_seconds"]),
                )
            )


def _scopes(collections: Sequence[str]) -> str:
    extra = " ".join(f"*https://auth.globus.org/scopes/{each}/data_access" for each in collections)
    return f"{SCOPE}[{extra}]" if extra else SCOPE


def sdk_module() -> ModuleType:
    """Return globus-sdk; raises PermanentTransferError where it is not installed."""
    try:
        return import_module("globus_sdk")
    except ImportError as error:
        raise PermanentTransferError("globus-sdk is not installed here: pip install globus-sdk") from error

"""The session of a manager, by which it proves to be the one that it was: managers of one block share a key. Pure.

The session of a manager follows from its number and a secret of the executor's, so the next interchange knows those
that an earlier one has given, and no other process can make one.
"""

from __future__ import annotations

import hashlib
import hmac

from flow_executors.wire.messages import Registration


class Sessions:
    """Makes and checks sessions.

    Args:
        secret: Known to the interchanges of one executor alone.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, number: int, block: str) -> str:
        """Return the session of the manager of a block that has a number."""
        return hmac.new(self._secret, f"{number} {block}".encode(), hashlib.sha256).hexdigest()

    def proves(self, number: int, offer: Registration) -> bool:
        """Whether an offer comes from the manager to which a number was given."""
        shown = (offer.session or "").encode(errors="surrogatepass")
        # In constant time: the answer must not tell how much of a guess was right.
        return hmac.compare_digest(shown, self.of(number, offer.block).encode())

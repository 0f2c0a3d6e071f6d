"""What the fixture client_of gives."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from flask.testing import FlaskClient


class ClientOf(Protocol):
    """Makes a client of the pages on a database, which is closed when the test ends."""

    def __call__(self, path: Path, token: str | None = None) -> FlaskClient: ...

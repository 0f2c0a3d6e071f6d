"""What tests of the pages have in common."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from flow_monitor.queries.database import open_database
from flow_viz import create_app

sys.path.insert(0, str(Path(__file__).parent))  # for viz_clients
from viz_clients import ClientOf


@pytest.fixture
def client_of() -> Iterator[ClientOf]:
    """Give a function that makes a client of the pages on a database; all are closed at the end."""
    with ExitStack() as opened:

        def made(path: Path, token: str | None = None) -> FlaskClient:
            database = opened.enter_context(open_database(str(path)))
            return opened.enter_context(create_app(database, token).test_client())

        yield made

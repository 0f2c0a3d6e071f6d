"""The query of the address at hand with some of it changed: how sorting, paging and choosing link."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import request


def query_with(**changes: object) -> str:
    """Return the query with values replaced; None takes one away."""
    # multi: a filter by several states has one parameter for each of them.
    kept = [(name, value) for name, value in request.args.items(multi=True) if name not in changes]
    changed = [(name, str(value)) for name, value in changes.items() if value is not None]
    return urlencode([*kept, *changed])

"""The web application: made by ``create_app``, one blueprint a page, everything served from the package."""

from __future__ import annotations

import gzip
import importlib.resources
import re
import time
from functools import cache

import plotly
from flask import Flask, Response, abort, make_response, render_template, request
from werkzeug.exceptions import HTTPException

from flow_monitor.errors import (
    DatabaseBusy,
    DatabaseError,
    DatabaseMissing,
    NoSuchRecord,
    NotOurDatabase,
    SchemaMismatch,
)
from flow_monitor.queries.database import Database
from flow_viz import auth, formatting
from flow_viz.address import query_with
from flow_viz.api.routes import blueprint as api
from flow_viz.app_context import AppContext
from flow_viz.pages import blocks, graph, resources, summary, task, tasks, timeline, workflows
from flow_viz.plots.colors import state_color
from flow_viz.urls import RunIdConverter

_LARGEST_BODY = 64 << 10
"""Most bytes of a request's body: forms have a token or a search."""
_SECURITY = {
    # plotly sets styles on elements; no script but ours runs, nothing is fetched from elsewhere
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}


def create_app(database: Database, token: str | None = None) -> Flask:
    """Return the application on a database.

    Args:
        database: Opened for reading; need not be there yet.
        token: Every request has to carry it; None: only requests to names of this machine are answered.
    """
    app = Flask("flow_viz", root_path=str(importlib.resources.files("flow_viz")))
    app.config["MAX_CONTENT_LENGTH"] = _LARGEST_BODY
    app.extensions["flow_viz"] = AppContext(database)
    # Before the blueprints, whose rules name it.
    app.url_map.converters["run"] = RunIdConverter
    # Times are nanoseconds everywhere below; templates turn them into text by these filters and nowhere else.
    app.jinja_env.filters.update(
        moment=formatting.moment,
        ago=lambda time_ns: formatting.ago(time_ns, time.time_ns()),
        clock=formatting.clock,
        iso=formatting.iso,
        seconds=formatting.seconds,
        duration=formatting.duration,
        size=formatting.size,
        number=formatting.number,
        state=formatting.state,
        state_color=state_color,
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    shared = {"database": database.name, "plotly_version": plotly.__version__, "query_with": query_with}
    app.context_processor(lambda: shared)
    auth.protect(app, token)
    for module in (workflows, summary, graph, tasks, task, timeline, resources, blocks):
        app.register_blueprint(module.blueprint)
    app.register_blueprint(api)
    app.add_url_rule("/vendor/plotly-<version>.min.js", "static_plotly", _plotly)
    app.register_error_handler(DatabaseError, _database_error)
    app.register_error_handler(HTTPException, _http_error)
    app.after_request(_secure)
    return app


def _secure(answer: Response) -> Response:
    for name, value in _SECURITY.items():
        answer.headers.setdefault(name, value)
    # Pages show a run as it is now, and what only holders of the token may see: no cache keeps them.
    if request.endpoint not in ("static", "static_plotly"):
        answer.headers.setdefault("Cache-Control", "no-store")
    return answer


def _plotly(version: str) -> Response:
    """Serve plotly.js as it comes with the plotly package."""
    # The version is in the address, so that browsers may keep the file for a year and still get the new one after an
    # update.
    if version != plotly.__version__:
        abort(404)
    answer = make_response(_plotly_gzip())
    answer.headers["Content-Type"] = "text/javascript; charset=utf-8"
    answer.headers["Content-Encoding"] = "gzip"
    answer.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return answer


@cache
def _plotly_gzip() -> bytes:
    script = importlib.resources.files("plotly") / "package_data" / "plotly.min.js"
    # Compressed once in a process: 4.8 MB become 1.5, which takes 0.2 s of CPU time.
    return gzip.compress(script.read_bytes(), 6)


# Status, title, and whether the page tries again by itself: not where only a person can change the answer.
_DATABASE_ERRORS: dict[type[DatabaseError], tuple[int, str, bool]] = {
    NoSuchRecord: (404, "Not found", False),
    DatabaseMissing: (503, "No database yet", True),
    DatabaseBusy: (503, "The database is busy", True),
    NotOurDatabase: (503, "Not a monitoring database", True),
    SchemaMismatch: (503, "Another version's database", False),
}


def _database_error(error: DatabaseError) -> Response:
    status, title, retry = _DATABASE_ERRORS.get(type(error), (503, "The database cannot be read", True))
    return _message(status, title, formatting.sentence(str(error)), retry=retry)


def _http_error(error: HTTPException) -> Response:
    # Redirects are exceptions of werkzeug, too.
    if error.code is not None and error.code < 400 and error.response is not None:
        return make_response(error.get_response())
    text = re.sub(r"\s+", " ", error.description or "")
    return _message(error.code or 500, error.name, text, retry=False)


def _message(status: int, title: str, text: str, *, retry: bool) -> Response:
    # Programs get JSON also where they do wrong; a page of HTML would be no use to them.
    if request.path.startswith("/api/"):
        return make_response({"error": text, "title": title}, status)
    return make_response(render_template("message.html", title=title, text=text, retry=retry), status)

"""The token of the pages: asked for, told by a cookie, taken out of addresses; ``flow_monitor.access`` knows it.

Browsers send a cookie to whoever listens at the host later, on any port. So it is not the token, which may be that of
other servers of the user, but random, and worth nothing when this server has ended.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlencode

from flask import Blueprint, Flask, Request, Response, current_app, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from flow_monitor.access import knows, named_locally

COOKIE = "flow_viz_token"
# What the page that asks for the token needs; all else wants the token.
_OPEN = ("static", "auth.enter")
blueprint = Blueprint("auth", __name__)


def protect(app: Flask, token: str | None) -> None:
    """Demand the token on every page; without one, demand that pages are asked for under a name of this machine."""
    app.config["FLOW_VIZ_TOKEN"] = token
    app.config["FLOW_VIZ_COOKIE"] = secrets.token_urlsafe(24)
    app.register_blueprint(blueprint)

    @app.before_request
    def _check() -> BaseResponse | None:
        # Without a token the name is checked: a page of somebody else's could lead its own name to 127.0.0.1 (DNS
        # rebinding) and read ours through the browser.
        if token is None:
            return None if named_locally(request.headers.get("Host", "")) else _wrong_host()
        if request.endpoint in _OPEN or _has_token(request, token):
            return _without_token_in_address(request)
        return _refuse()


def _has_token(asked: Request, token: str) -> bool:
    if knows(token, asked.headers.get("Authorization", ""), (asked.args.get("token", ""),)):
        return True
    return knows(current_app.config["FLOW_VIZ_COOKIE"], "", (asked.cookies.get(_cookie(), ""),))


def _cookie() -> str:
    """Return the name of the cookie: of each port its own, since browsers send those of one host to all its ports."""
    port = request.host.rpartition(":")[2]
    return f"{COOKIE}_{port}" if port.isdecimal() else COOKIE


def _without_token_in_address(asked: Request) -> BaseResponse | None:
    """Put a cookie in the place of a token in the address: addresses are kept in histories."""
    if "token" not in asked.args or asked.path.startswith("/api/") or asked.endpoint in _OPEN:
        return None
    rest = [(name, value) for name, value in asked.args.items(multi=True) if name != "token"]
    # One slash: "//host/path" would send the browser to another server.
    answer = redirect(f"/{asked.path.lstrip('/')}" + (f"?{urlencode(rest)}" if rest else ""))
    _set_cookie(answer)
    return answer


def _set_cookie(answer: BaseResponse) -> None:
    # Strict: no other site's link or form is answered with it. httponly: no script reads it.
    value = current_app.config["FLOW_VIZ_COOKIE"]
    answer.set_cookie(_cookie(), value, httponly=True, samesite="Strict", secure=request.is_secure)


def _wrong_host() -> Response:
    text = "Open this server under 127.0.0.1 or localhost (an ssh tunnel is fine); or start it with a token."
    return make_response(_page("Not under this name", text), 403)


def _refuse() -> Response:
    if request.path.startswith("/api/"):
        answer = make_response({"error": "send the token as 'Authorization: Bearer TOKEN'"}, 401)
    else:
        answer = make_response(render_template("token.html", wrong=False), 401)
    answer.headers["WWW-Authenticate"] = 'Bearer realm="flow-visualize"'
    return answer


def _page(title: str, text: str) -> str:
    return render_template("message.html", title=title, text=text, retry=False)


@blueprint.post("/token")
def enter() -> BaseResponse:
    """Check the token typed into the form, and set the cookie; answer 401 with the form again where it is wrong."""
    # The form is open to all, so it also arrives at a server that has no token.
    token = str(current_app.config["FLOW_VIZ_TOKEN"] or "")
    if not token:
        return redirect("/")
    if knows(token, "", (request.form.get("token", "").strip(),)):
        answer = redirect("/")
        _set_cookie(answer)
        return answer
    return make_response(render_template("token.html", wrong=True), 401)

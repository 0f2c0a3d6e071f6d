"""Who may look: anybody at this machine through loopback, elsewhere those who know the token."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from urllib.parse import urlencode

from flask import Blueprint, Flask, Request, Response, current_app, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

COOKIE = "flow_viz_token"
_OPEN = ("static", "auth.enter")
blueprint = Blueprint("auth", __name__)


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach a listening address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """Return a token nobody can guess."""
    return secrets.token_urlsafe(24)


def protect(app: Flask, token: str | None) -> None:
    """Demand the token on every page; without one, demand that pages are asked for under a name of this machine."""
    app.config["FLOW_VIZ_TOKEN"] = token
    app.register_blueprint(blueprint)

    @app.before_request
    def _check() -> BaseResponse | None:
        if token is None:
            return None if _named_locally(request) else _wrong_host()
        if request.endpoint in _OPEN or _has_token(request, token):
            return _without_token_in_address(request, token)
        return _refuse()


def _has_token(asked: Request, token: str) -> bool:
    given = [asked.cookies.get(COOKIE, ""), asked.args.get("token", "")]
    kind, _, value = asked.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        given.append(value.strip())
    return any(hmac.compare_digest(one.encode(), token.encode()) for one in given if one)


def _without_token_in_address(asked: Request, token: str) -> BaseResponse | None:
    """Move a token from the address into a cookie: addresses are kept in histories."""
    if "token" not in asked.args or asked.path.startswith("/api/") or asked.endpoint in _OPEN:
        return None
    rest = [(name, value) for name, value in asked.args.items(multi=True) if name != "token"]
    answer = redirect(f"/{asked.path.lstrip('/')}" + (f"?{urlencode(rest)}" if rest else ""))
    _set_cookie(answer, token)
    return answer


def _set_cookie(answer: BaseResponse, token: str) -> None:
    answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict", secure=request.is_secure)


def _named_locally(asked: Request) -> bool:
    """Keep out pages of other sites whose names were made to point here."""
    host = asked.host.rpartition(":")[0] if asked.host.rpartition(":")[2].isdecimal() else asked.host
    return is_loopback(host)


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
    """Take the token typed into the form."""
    token = str(current_app.config["FLOW_VIZ_TOKEN"] or "")
    if not token:
        return redirect("/")
    if hmac.compare_digest(request.form.get("token", "").strip().encode(), token.encode()):
        answer = redirect("/")
        _set_cookie(answer, token)
        return answer
    return make_response(render_template("token.html", wrong=True), 401)

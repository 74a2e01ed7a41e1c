"""What browsers are told to refuse, who is logged in, and how fast passwords may be tried."""

from collections.abc import Callable
from datetime import timedelta
from functools import wraps

from flask import Flask, Response, g, redirect, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue

from experiments import access
from web.state import state

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

SESSION = timedelta(hours=12)


class _Sessions(SecureCookieSessionInterface):
    """Session cookies that are marked Secure whenever the browser came by https, also through a proxy."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"


def protect(app: Flask) -> None:
    """Set the security headers on every answer, and how sessions are kept."""
    app.session_interface = _Sessions()
    app.config.update(
        SESSION_COOKIE_NAME="upturn",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=SESSION,
        # The token is as old as the session, so that a page left open over lunch still works.
        WTF_CSRF_TIME_LIMIT=None,
    )
    app.after_request(_add_headers)


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "no-store"
    return response


def login_required(view: Callable[..., ResponseReturnValue]) -> Callable[..., ResponseReturnValue]:
    """Let only people in who are logged in and still have an account; others are sent to the login page."""

    @wraps(view)
    def guarded(**arguments: object) -> ResponseReturnValue:
        login = session.get("login")
        with state().store.read() as record:
            known = login is not None and login in access.accounts(record)
        if not known:
            session.pop("login", None)
            target = request.full_path.rstrip("?") if request.method == "GET" else None
            return redirect(url_for("accounts.login", next=target))
        g.login = login
        return view(**arguments)

    return guarded

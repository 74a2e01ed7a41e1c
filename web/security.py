"""What browsers are told to refuse, who is logged in, and how fast passwords may be tried."""

from collections.abc import Callable
from datetime import timedelta
from functools import wraps

from flask import Flask, Response, g, redirect, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue

from experiments import access
from experiments.access import AccountInfo, Role
from experiments.errors import Forbidden
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

View = Callable[..., ResponseReturnValue]


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


def account() -> AccountInfo | None:
    """Return the account of who asks, if he is logged in and may still come in."""
    if "account" not in g:
        login = session.get("login")
        found = None
        if isinstance(login, str):
            with state().store.read() as record:
                found = access.account(record, login)
        # A session begun before the password changed counts no more.
        open_ = found is not None and found.disabled_at is None and found.epoch == session.get("epoch", 0)
        g.account = found if open_ else None
    held: AccountInfo | None = g.account
    return held


def may(role: str) -> bool:
    """Tell whether who asks has at least this role."""
    who = account()
    return who is not None and who.role.includes(Role(role))


def log_in(who: AccountInfo) -> None:
    """Begin a session; the language chosen on the way to it stays, unless the account has one."""
    chosen = who.language or session.get("language")
    session.clear()
    session.permanent = True
    session["login"], session["epoch"] = who.login, who.epoch
    if chosen:
        session["language"] = chosen
    g.account = who


def needs(role: Role) -> Callable[[View], View]:
    """Let only people in who are logged in and have at least this role; others get the login page, or a refusal."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(**arguments: object) -> ResponseReturnValue:
            who = account()
            if who is None:
                session.pop("login", None)
                session.pop("epoch", None)
                target = request.full_path.rstrip("?") if request.method == "GET" else None
                return redirect(url_for("accounts.login", next=target))
            g.login, g.role = who.login, who.role
            if not who.role.includes(role):
                raise Forbidden("role_needed", f"this needs the role {role}, {who.login!r} is {who.role}", role=role)
            return view(**arguments)

        return guarded

    return decorate


def login_required(view: View) -> View:
    """Let everybody in who is logged in; others are sent to the login page."""
    return needs(Role.viewer)(view)

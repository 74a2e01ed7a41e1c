"""Logging in through the company's OpenID provider: authorization code with PKCE, state and nonce."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flask import Blueprint, abort, current_app, flash, redirect, request, session, url_for
from flask.typing import ResponseReturnValue

from experiments import access
from experiments.access import AccountInfo, Role
from experiments.errors import Conflict, Forbidden, InvalidDocument
from experiments.settings import Oidc
from web import security
from web.languages import gettext
from web.pages.people.accounts import local
from web.state import state

if TYPE_CHECKING:
    from authlib.integrations.flask_client import FlaskOAuth2App

blueprint = Blueprint("oidc", __name__)

_NAME = "upturn_oidc"
_ORDER = {role: i for i, role in enumerate(Role)}


def _settings() -> Oidc:
    settings = state().store.settings.oidc
    if settings is None:
        abort(404)
    return settings


def _client(settings: Oidc) -> "FlaskOAuth2App":
    from authlib.integrations.flask_client import OAuth

    if _NAME not in current_app.extensions:
        current_app.extensions[_NAME] = OAuth(current_app).register(
            "company",
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            server_metadata_url=f"{settings.issuer}/.well-known/openid-configuration",
            client_kwargs={"scope": "openid email profile", "code_challenge_method": "S256", "timeout": 10},
        )
    client: FlaskOAuth2App = current_app.extensions[_NAME]
    return client


@blueprint.get("/login/company")
def begin() -> ResponseReturnValue:
    """Send the browser to the provider."""
    settings = _settings()
    session["next"] = request.args.get("next", "")
    # A proxy that ends TLS says so; the provider compares this address with the one it was given.
    secure = request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"
    target = url_for("oidc.answer", _external=True, _scheme="https" if secure else "http")
    try:
        answer: ResponseReturnValue = _client(settings).authorize_redirect(target)
    except _unreachable() as error:
        return _refuse(error)
    return answer


@blueprint.get("/login/company/answer")
def answer() -> ResponseReturnValue:
    """Take the provider's answer, check it, and let the person in."""
    settings = _settings()
    client = _client(settings)
    target = session.pop("next", "")
    try:
        # Checks the state, and of the ID token the signature, the nonce, the times, and what is named here.
        token = client.authorize_access_token(
            claims_options={
                "iss": {"essential": True, "values": [settings.issuer, f"{settings.issuer}/"]},
                "aud": {"essential": True, "value": settings.client_id},
            }
        )
        claims = _claims(client, token)
    except (*_unreachable(), *_untrusted()) as error:
        return _refuse(error)
    try:
        who = _account(settings, claims)
    except Forbidden as error:
        flash(error.detail)
        return redirect(url_for("accounts.login"), 303)
    security.log_in(who)
    return redirect(local(target), 303)


def _unreachable() -> tuple[type[Exception], ...]:
    from requests import RequestException

    # ValueError: what came was no JSON.
    return RequestException, ValueError


def _untrusted() -> tuple[type[Exception], ...]:
    from authlib.common.errors import AuthlibBaseError
    from joserfc.errors import JoseError

    return AuthlibBaseError, JoseError, RuntimeError, KeyError


def _refuse(error: Exception) -> ResponseReturnValue:
    # The message may quote what the provider or an attacker sent: the log gets it, the page does not.
    current_app.logger.warning("login through the provider failed: %s: %s", type(error).__name__, error)
    flash(gettext("The company's login did not work. Please try again; if it stays so, ask whoever runs this server."))
    return redirect(url_for("accounts.login"), 303)


def _claims(client: "FlaskOAuth2App", token: Mapping[str, Any]) -> dict[str, Any]:
    claims = dict(token["userinfo"])
    if "email" not in claims and "userinfo_endpoint" in client.load_server_metadata():
        # Some providers keep the ID token small.
        more = dict(client.userinfo(token=token))
        if more.get("sub") == claims["sub"]:
            claims = more | claims
    return claims


def _account(settings: Oidc, claims: Mapping[str, Any]) -> AccountInfo:
    """Return the person's account, made at the first login."""
    subject = f"{settings.issuer}|{claims['sub']}"
    held, email = state(), str(claims.get("email", "")).lower()
    name, _, domain = email.rpartition("@")
    theirs = name and domain in settings.domains and claims.get("email_verified") is not False
    if settings.domains and not theirs:
        raise Forbidden("domain", gettext("Your e-mail address is not one that may log in here. Ask an admin."))
    with held.store.write() as record:
        found = access.account_of(record, subject)
        if found is None:
            login = email or str(claims.get("preferred_username") or claims["sub"])
            try:
                access.create_account(
                    record,
                    login,
                    None,
                    role=_role(settings, claims),
                    subject=subject,
                    now=held.clock(),
                    actor=login,
                )
            except (Conflict, InvalidDocument):
                raise Forbidden(
                    "taken",
                    gettext("The name %(login)s is another account's here. Ask an admin.", login=login),
                ) from None
            found = access.account_of(record, subject)
    if found is None or found.disabled_at is not None:
        raise Forbidden("disabled", gettext("Your account here is disabled. Ask an admin."))
    return found


def _role(settings: Oidc, claims: Mapping[str, Any]) -> Role:
    """Return the highest role that the claim gives; a viewer's where it gives none."""
    if settings.role is None:
        return Role.viewer
    claim, values = settings.role
    held = claims.get(claim)
    has = {str(value) for value in held} if isinstance(held, list) else {str(held)}
    return max((Role(role) for value, role in values if value in has), key=_ORDER.__getitem__, default=Role.viewer)

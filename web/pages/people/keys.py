"""API keys for programs: for admins."""

from dataclasses import dataclass

from flask import Blueprint, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from experiments import access
from experiments.access import KeyInfo, Role, Scope
from experiments.errors import Conflict, InvalidDocument
from web import rights
from web.formats import Formats
from web.languages import gettext
from web.pages.reader import formats
from web.security import needs
from web.state import state

blueprint = Blueprint("keys", __name__)

# What a program sends first with a key of the scope.
_CALLS: dict[Scope, str] = {
    Scope.assign: """curl "{server}/v1/assignments" -H "Authorization: Bearer {secret}" \\
  -H "Content-Type: application/json" -d '{{"user": "u1"}}'""",
    Scope.ingest: """curl "{server}/v1/events" -H "Authorization: Bearer {secret}" \\
  -H "Content-Type: application/json" -d '{{"batch": [
  {{"type": "event", "messageId": "m-1", "userId": "u1", "event": "purchase", "value": 25.5}}]}}'""",
    Scope.read: """curl "{server}/v1/experiments" -H "Authorization: Bearer {secret}\"""",
    Scope.admin: """curl "{server}/v1/experiments" -H "Authorization: Bearer {secret}\"""",
}
_PAGE_CALL = "{server}/api/features/{secret}"


@dataclass(frozen=True, slots=True)
class Line:
    """A key as the page lists it."""

    name: str
    prefix: str
    scopes: list[str]
    origins: list[str]
    since: str


@dataclass(frozen=True, slots=True)
class Made:
    """A new key: its secret, shown once, and how programs use it."""

    name: str
    secret: str
    snippets: list[tuple[str, str]]


def _line(key: KeyInfo, shown: Formats) -> Line:
    return Line(
        name=key.name,
        prefix=key.prefix,
        scopes=[str(rights.SCOPES[scope]) for scope in Scope if scope in key.scopes],
        origins=sorted(key.origins),
        since=shown.moment(key.created_at) if key.created_at else "",
    )


def _page(status: int = 200, **facts: object) -> ResponseReturnValue:
    shown = formats()
    with state().store.read() as session:
        lines = [_line(key, shown) for key in access.keys(session)]
    given = {"name": "", "chosen": [], "origins": "", "problems": {}, "made": None} | facts
    return render_template("keys.html", lines=lines, scopes=rights.SCOPES, **given), status


@blueprint.get("/keys")
@needs(Role.admin)
def show() -> ResponseReturnValue:
    """List the keys in use."""
    return _page()


@blueprint.post("/keys")
@needs(Role.admin)
def create() -> ResponseReturnValue:
    """Make a key and show its secret, once."""
    held, form = state(), request.form
    name, chosen, origins = form.get("name", "").strip(), form.getlist("scopes"), form.get("origins", "")
    given = {"name": name, "chosen": chosen, "origins": origins}
    try:
        with held.store.write() as session:
            secret = access.create_key(session, name, chosen, origins=origins.split(), now=held.clock(), actor=g.login)
    except InvalidDocument as error:
        return _page(422, **given, problems=rights.refused(error))
    except Conflict:
        taken = gettext("There is a key of this name already. Revoke it, or choose another name.")
        return _page(409, **given, problems={"name": taken})
    return _page(made=Made(name, secret, _snippets(chosen, secret, public=bool(origins.split()))))


def _snippets(scopes: list[str], secret: str, *, public: bool) -> list[tuple[str, str]]:
    server = request.host_url.rstrip("/")
    wanted = [(str(rights.SCOPES[scope]), _CALLS[scope]) for scope in Scope if scope in scopes]
    if public and Scope.assign in scopes:
        wanted.append((gettext("Address for a GrowthBook SDK in a web page"), _PAGE_CALL))
    return [(title, call.format(server=server, secret=secret)) for title, call in wanted]


@blueprint.get("/keys/revoke")
@needs(Role.admin)
def confirm() -> ResponseReturnValue:
    """Ask before a key is revoked."""
    name = request.args.get("name", "")
    with state().store.read() as session:
        found = next((key for key in access.keys(session) if key.name == name), None)
    if found is None:
        return redirect(url_for("keys.show"), 303)
    return render_template("revoke.html", line=_line(found, formats()))


@blueprint.post("/keys/revoke")
@needs(Role.admin)
def revoke() -> ResponseReturnValue:
    """Revoke a key."""
    held, name = state(), request.form.get("name", "")
    with held.store.write() as session:
        access.revoke_key(session, name, now=held.clock(), actor=g.login)
    flash(gettext("The key %(name)s is revoked.", name=name), "done")
    return redirect(url_for("keys.show"), 303)

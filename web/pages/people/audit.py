"""Who did what: the audit trail with its filters and its files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
from flask import Blueprint, Response, render_template, request

from experiments import audit, export
from experiments.audit import Entry, Wanted
from web import rights, sentences
from web.api.reports import CSV
from web.formats import Formats
from web.languages import gettext
from web.pages.reader import formats
from web.security import login_required
from web.state import state

blueprint = Blueprint("audit", __name__)

PAGE = 50
_LAST = 2**63 - 1
_NAMES = ("actor", "kind", "key", "action")
_DATES = ("from", "to")
# Pages of documents; the others have none of their own.
_PAGES: Mapping[str, str] = {"experiment": "/experiments/", "policy": "/policies/"}


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as the page shows it; ``changes`` are field, before, after."""

    at: str
    actor: str
    kind: str
    key: str
    link: str
    action: str
    revision: int
    changes: list[tuple[str, str, str]]


def _line(entry: Entry, shown: Formats) -> Line:
    kept = [change for change in entry.diff if change["path"] != "revision" and not _is_empty(change)]
    return Line(
        at=shown.moment(entry.at),
        actor=entry.actor,
        kind=sentences.known(rights.AUDIT_KINDS, entry.kind),
        key=entry.key,
        link=f"{_PAGES[entry.kind]}{entry.key}" if entry.kind in _PAGES else "",
        action=sentences.known(sentences.ACTIONS, entry.action),
        revision=entry.revision,
        changes=[(change["path"], _text(change["before"]), _text(change["after"])) for change in kept],
    )


def _is_empty(change: Mapping[str, Any]) -> bool:
    # A new document has many fields that nobody filled in.
    return change["before"] is None and change["after"] in (None, "", [], {})


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) and value else msgspec.json.encode(value).decode()


def _asked() -> tuple[dict[str, str], dict[str, str]]:
    """Return the filters that were given, and what is wrong with them, by name."""
    given = {name: request.args.get(name, "").strip() for name in (*_NAMES, *_DATES)}
    problems = {
        name: gettext("%(value)s is no date: write it as 2026-11-22.", value=given[name])
        for name in _DATES
        if given[name] and _day(given[name]) is None
    }
    return {name: value for name, value in given.items() if value}, problems


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else None
    except ValueError:
        return None
    # The ends of the calendar have no midnight in every zone.
    return day if day and 1900 <= day.year < 9999 else None


def _wanted(given: Mapping[str, str]) -> Wanted:
    def midnight(name: str, days: int) -> datetime | None:
        day = _day(given.get(name, ""))
        if day is None:
            return None
        return datetime.combine(day + timedelta(days=days), datetime.min.time(), state().zone)

    # A text with NUL is in no row, and PostgreSQL refuses to look for it.
    named = {name: given[name].replace("\0", "\ufffd") for name in _NAMES if name in given}
    return Wanted(**named, start=midnight("from", 0), end=midnight("to", 1))


@blueprint.get("/audit")
@login_required
def show() -> str:
    """Show the entries wanted, newest first."""
    given, problems = _asked()
    before = request.args.get("before", type=int)
    if before is not None and before > _LAST:
        before = None
    with state().store.read() as session:
        found = list(audit.entries(session, _wanted(given), before=before, limit=PAGE + 1))
        actors = audit.actors(session)
    shown = formats()
    return render_template(
        "audit.html",
        lines=[_line(entry, shown) for entry in found[:PAGE]],
        older=found[PAGE - 1].id if len(found) > PAGE else None,
        before=before,
        given=given,
        problems=problems,
        actor_options=[(actor, actor) for actor in actors],
        kinds=rights.AUDIT_KINDS,
        actions=sentences.ACTIONS,
    )


@blueprint.get("/audit.<any(csv,json):extension>")
@login_required
def download(extension: str) -> Response:
    """Return all entries wanted as a file."""
    wanted = _wanted(_asked()[0])
    with state().store.read() as session:
        found = audit.entries(session, wanted)
        if extension == "csv":
            body = export.csv_bytes(audit.COLUMNS, audit.table(found), bom=request.args.get("bom") == "1")
        else:
            body = msgspec.json.encode(list(found))
    response = Response(body, mimetype=CSV if extension == "csv" else "application/json")
    response.headers.set("Content-Disposition", "attachment", filename=f"audit.{extension}")
    return response

"""Testers of an experiment: variants set by hand, what a given user gets and why, links to share; and its manager's
settings that may change while it runs: name, owner, tags, schedule."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, abort, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from experiments import conflicts, registry
from experiments.access import Role
from experiments.crowd import compiled
from experiments.documents import Experiment, Kind, Status
from experiments.errors import InvalidDocument, NotFound, UpturnError
from experiments.lookup import KnownUser
from experiments.sdk.experiment import Assignment, Reason
from web import sentences
from web.languages import gettext
from web.pages.making import shown as views
from web.pages.making import words
from web.pages.making.form import Reader
from web.pages.reader import formats
from web.security import login_required, may, needs
from web.state import state

blueprint = Blueprint("testers", __name__)
_OPEN = (Status.draft, Status.running, Status.paused, Status.stopped)


@dataclass(frozen=True, slots=True)
class Preview:
    """What one user gets: the variant's name, why, what his app receives, and what was known of him."""

    user: str
    variant: str
    why: str
    payload: str
    attributes: str
    segment: str
    would: bool


@blueprint.get("/experiments/<key>/qa")
@login_required
def show(key: str) -> str:
    """Show the testers and the links; with ``user``, what that user gets."""
    return _page(key)


@blueprint.post("/experiments/<key>/qa/testers")
@needs(Role.editor)
def change(key: str) -> ResponseReturnValue:
    """Add a tester to a variant, or remove one."""
    form = request.form
    user = form.get("user", "").strip()
    if not user or len(user) > 200:
        flash(gettext("Give the tester’s user id, as the app sends it."), "problem")
        return redirect(url_for("testers.show", key=key), 303)
    variant = form.get("variant") or None
    held = state()
    with held.store.write() as session:
        experiment: Experiment = registry.get(session, Kind.experiment, key)
        if experiment.status not in _OPEN or (variant and variant not in [v.key for v in experiment.variants]):
            abort(400)
        forced = {name: to for name, to in experiment.forced.items() if name != user} | (
            {user: variant} if variant else {}
        )
        registry.revise(
            session, Kind.experiment, key, experiment.to_json() | {"forced": forced}, actor=g.login, now=held.clock()
        )
    flash(gettext("Done."), "done")
    return redirect(url_for("testers.show", key=key, user=user), 303)


@blueprint.post("/experiments/<key>/settings")
@needs(Role.editor)
def settings(key: str) -> ResponseReturnValue:
    """Change name, owner, tags and schedule, which may change while an experiment runs."""
    held = state()
    reader = Reader(request.form.to_dict(flat=False))
    tags = request.form.get("tags", "").replace("，", ",").replace("、", ",").split(",")
    change: dict[str, Any] = {
        "name": request.form.get("name", "").strip(),
        "owner": request.form.get("owner", "").strip(),
        "tags": list(dict.fromkeys(tag.strip() for tag in tags if tag.strip())),
        "revision": int(request.form.get("revision", "0")) if request.form.get("revision", "").isdecimal() else 0,
    }
    if may("approver"):
        start, stop = reader.moment("start_at", held.zone), reader.moment("stop_at", held.zone)
        change["schedule"] = {"start_at": start, "stop_at": stop} if start or stop else None
    wrong = {trouble.field: trouble.text for trouble in reader.troubles}
    if not change["name"]:
        wrong["name"] = gettext("Give the experiment a name.")
    try:
        if not wrong:
            with held.store.write() as session:
                document = registry.get(session, Kind.experiment, key).to_json() | change
                registry.revise(session, Kind.experiment, key, document, actor=g.login, now=held.clock())
    except InvalidDocument as error:
        wrong = {problem.field.removeprefix("schedule."): problem.remedy for problem in error.problems}
        if "stop_at" in wrong:
            wrong["stop_at"] = gettext("Let it stop after the start.")
    except UpturnError as error:
        if isinstance(error, NotFound):
            raise
        wrong = {"revision": str(sentences.ERRORS.get(error.code, error.detail))}
    if wrong:
        return _page(key, wrong, request.form), 422
    flash(gettext("Done."), "done")
    return redirect(url_for("testers.show", key=key), 303)


def _page(key: str, wrong: Mapping[str, str] | None = None, typed: Mapping[str, str] | None = None) -> str:
    held = state()
    formatted = formats()
    with held.store.read() as session:
        experiment: Experiment = registry.get(session, Kind.experiment, key)
        snapshot = registry.snapshot(session)
        concerns = []
        if experiment.status in (Status.draft, Status.running, Status.paused):
            found = conflicts.find(session, held.store.lake, experiment, now=held.clock()).concerns
            concerns = views.concerns(found, session, formatted)
        preview = _preview(experiment, snapshot, request.args.get("user", "").strip())
    schedule = experiment.schedule
    local = {
        name: "" if at is None else at.astimezone(held.zone).replace(tzinfo=None).isoformat(timespec="minutes")
        for name, at in (
            ("start_at", schedule.start_at if schedule else None),
            ("stop_at", schedule.stop_at if schedule else None),
        )
    }
    values = {
        "name": experiment.name,
        "owner": experiment.owner,
        "tags": ", ".join(experiment.tags),
        "revision": str(experiment.revision),
    }
    errors = dict(wrong or {})
    given = values | local | {name: value for name, value in (typed or {}).items() if name != "csrf_token"}
    # A refused change is kept on the page; sent again, it is meant for what is newest now.
    given["revision"] = str(experiment.revision)
    return render_template(
        "qa.html",
        experiment=experiment,
        names={variant.key: variant.name or variant.key for variant in experiment.variants},
        open=experiment.status in _OPEN,
        preview=preview,
        user=request.args.get("user", ""),
        concerns=concerns,
        errors=errors,
        f=lambda name, default="": given.get(name, default),
        zone=held.store.settings.timezone,
        key=key,
    )


def _preview(experiment: Experiment, snapshot: Mapping[str, Any], user: str) -> Preview | None:
    """What the user gets from every path, all of which assign alike; of a draft, what he would get."""
    if not user:
        return None
    held = state()
    known = held.store.lookup.users([user]).get(user, KnownUser())
    would = experiment.status is not Status.running
    rule = compiled(experiment, snapshot, testers=True)
    answer, stratum = known.assign(rule, user, known.attributes)
    return Preview(
        user,
        _named(experiment, answer),
        str(words.ANSWERS[Reason(answer.reason)]),
        "" if answer.variant is None else json.dumps(_plain(answer.value), ensure_ascii=False, indent=2),
        json.dumps(known.attributes, ensure_ascii=False, indent=2) if known.attributes else "",
        stratum or "",
        would,
    )


def _named(experiment: Experiment, answer: Assignment) -> str:
    names = {variant.key: variant.name or variant.key for variant in experiment.variants}
    return "" if answer.variant is None else names[answer.variant]


def _plain(value: object) -> object:
    return {name: _plain(part) for name, part in value.items()} if isinstance(value, Mapping) else value

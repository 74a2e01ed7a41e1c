"""The list of experiments, the results page, its downloads, and what can be done there."""

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, abort, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import ValidationError

from experiments import export, lake, registry, reports
from experiments.documents import Decision, Experiment, Kind, Status
from experiments.errors import UpturnError
from experiments.lifecycle import TRANSITIONS
from web import assets, charts, languages, sentences
from web.api import reports as downloads
from web.formats import Formats
from web.languages import gettext
from web.pages.overview import BAR_WIDTH, lines
from web.pages.results import shown
from web.pages.verdict import readable
from web.security import login_required
from web.state import state

blueprint = Blueprint("experiments", __name__)

_HISTORY = 50


def _formats() -> Formats:
    held = state()
    return Formats(languages.current_locale(), held.store.settings.currency, held.zone)


@blueprint.get("/")
@login_required
def overview() -> str:
    """List the experiments."""
    with state().store.read() as session:
        found = lines(session, _formats())
    return render_template("experiments.html", lines=found, bar_width=BAR_WIDTH)


@blueprint.get("/experiments/<key>")
@login_required
def show(key: str) -> str:
    """Show the newest report of an experiment, and what can be done with it."""
    formats = _formats()
    with state().store.read() as session:
        experiment: Experiment = registry.get(session, Kind.experiment, key)
        saved = reports.latest(session, key)
        waiting = lake.backlog(session)
        entries = registry.history(session, key)
    report = readable(saved)
    stale = report is not None and any(e["action"] == "revise" and e["revision"] > report.revision for e in entries)
    return render_template(
        "results.html",
        experiment=experiment,
        status_label=sentences.known(sentences.STATUSES, experiment.status),
        report=report,
        saved=saved,
        results=shown(saved.body, formats) if report and saved else None,
        as_of=formats.moment(report.as_of) if report else "",
        waiting=formats.count(waiting) if waiting and report else "",
        stale=stale,
        moves=_moves(experiment.status),
        history=[_history(entry, formats) for entry in entries[:_HISTORY]],
        vega=assets.NAME,
        formats=formats,
    )


@blueprint.get("/experiments/<key>.<any(json,csv,parquet):extension>")
@login_required
def download(key: str, extension: str) -> Response:
    """Return the newest report as a file."""
    return downloads.download(downloads.latest(key), extension, attachment=extension != "json")


@blueprint.get("/experiments/<key>/chart/<name>.csv")
@login_required
def chart(key: str, name: str) -> Response:
    """Return what a chart draws."""
    if name not in charts.NAMES:
        abort(404)
    report = downloads.latest(key).report
    rows = charts.csv_rows(report, name, _formats()) if report.decision.verdict != "invalid" else []
    body = export.csv_bytes(charts.columns(rows), rows, bom=request.args.get("bom") == "1")
    response = Response(body, mimetype=downloads.CSV)
    response.headers.set("Content-Disposition", "attachment", filename=f"{key}-{name}.csv")
    return response


@blueprint.post("/experiments/<key>/report")
@login_required
def update(key: str) -> ResponseReturnValue:
    """Analyse the experiment now."""
    held = state()
    return _done(key, lambda: reports.make(held.store, key, now=held.clock()), gettext("The numbers are up to date."))


@blueprint.post("/experiments/<key>/status")
@login_required
def move(key: str) -> ResponseReturnValue:
    """Start, pause, resume, stop or archive the experiment."""
    wanted = request.form.get("status", "")
    if wanted not in set(Status):
        abort(400)
    return _done(key, lambda: _move(key, Status(wanted), None), gettext("Done."))


@blueprint.post("/experiments/<key>/decision")
@login_required
def decide(key: str) -> ResponseReturnValue:
    """Record what was decided, on the report that was on the page."""
    form = request.form
    try:
        decision = Decision(
            variant=form.get("variant", ""),
            segments=form.getlist("segments") or None,
            reason=form.get("reason", "").strip(),
            report=form.get("report") or None,
        )
    except ValidationError:
        flash(gettext("Choose a variant and give a reason."), "problem")
        return redirect(url_for("experiments.show", key=key), 303)
    return _done(key, lambda: _move(key, Status.decided, decision), gettext("The decision is recorded."))


def _move(key: str, status: Status, decision: Decision | None) -> None:
    held = state()
    with held.store.write() as session:
        registry.move(session, key, status, actor=g.login, now=held.clock(), decision=decision)


def _done(key: str, work: Callable[[], object], success: str) -> ResponseReturnValue:
    """Do something and go back to the page with what became of it."""
    try:
        work()
    except UpturnError as error:
        if error.status == 404:
            raise
        known = sentences.ERRORS.get(error.code)
        flash(str(known) if known else gettext("That is not possible now: %(detail)s", detail=error.detail), "problem")
    else:
        flash(success, "done")
    return redirect(url_for("experiments.show", key=key), 303)


def _moves(status: Status) -> list[tuple[str, str]]:
    """Return the steps offered as buttons; recording a decision has a form of its own."""
    offered = [step for step in Status if step in TRANSITIONS[status] and step is not Status.decided]
    resume = gettext("Resume")
    return [
        (step.value, resume if (status, step) == (Status.paused, Status.running) else str(sentences.MOVES[step]))
        for step in offered
    ]


def _history(entry: Mapping[str, Any], formats: Formats) -> dict[str, object]:
    return {
        "at": formats.moment(entry["at"]),
        "actor": entry["actor"],
        "action": sentences.known(sentences.ACTIONS, entry["action"]),
        "revision": entry["revision"],
        "diff": []
        if entry["action"] == "create"
        else [c for c in entry["diff"] if c["path"] not in ("revision", "status")],
    }

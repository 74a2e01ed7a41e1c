"""The list of experiments, the results page, its downloads, and what can be done there."""

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, abort, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import ValidationError
from sqlalchemy.orm import Session

from experiments import lake, promises, registry, reports
from experiments.access import Role
from experiments.documents import Decision, Experiment, Kind, Status
from experiments.errors import Conflict, NotFound, UpturnError
from experiments.lifecycle import TRANSITIONS
from experiments.reports import Saved
from web import assets, sentences
from web.api import reports as downloads
from web.charts import pictures
from web.formats import Formats
from web.languages import gettext
from web.pages import overview as overviews
from web.pages.people.second import asking
from web.pages.people.second import waiting as waiting_second
from web.pages.reader import formats
from web.pages.reports import drawn
from web.pages.reports.matrix import choice, matrices
from web.pages.reports.planned import digest, planned
from web.pages.reports.results import shown
from web.pages.reports.scorecard import scorecard
from web.pages.reports.verdict import headline, readable
from web.security import login_required, needs
from web.state import state

blueprint = Blueprint("experiments", __name__)

_HISTORY, _KEPT = 50, 30


@blueprint.get("/")
@login_required
def overview() -> str:
    """List the experiments."""
    held = state()
    with held.store.read() as session:
        wanted = overviews.Wanted.parse(request.args)
        found = overviews.overview(session, wanted, held.clock(), formats())
    return render_template("experiments.html", overview=found, wanted=wanted, bar_width=overviews.BAR_WIDTH)


@blueprint.get("/experiments/<key>")
@login_required
def show(key: str) -> str:
    """Show the newest report of an experiment: what to do, and the effects."""
    return _page(key, "results")


@blueprint.get("/experiments/<key>/<any(segments,time,health,plan,decision):tab>")
@login_required
def tab(key: str, tab: str) -> str:
    """Show another side of the experiment."""
    return _page(key, tab)


def _page(key: str, tab: str, form: Mapping[str, object] | None = None) -> str:
    """Return a page of an experiment; ``form``: what was sent in, where it has to be shown again."""
    texts, asked = formats(), request.args
    with state().store.read() as session:
        experiment: Experiment = registry.get(session, Kind.experiment, key)
        saved = reports.latest(session, key)
        waiting = lake.backlog(session)
        entries = registry.history(session, key)
        second = waiting_second(session, Kind.experiment, key, texts)
        segments = {segment.key: segment for segment in registry.all_of(session, Kind.segment)}
        uses = registry.metric_uses(session, experiment) if tab == "plan" else []
        kept = reports.listing(session, key)[:_KEPT] if tab == "plan" else []
        rests_on = _rests_on(session, experiment) if tab == "decision" else None
    report = readable(saved)
    results = shown(saved.body, texts) if report and saved else None
    page: dict[str, object] = {}
    if report is not None and results is not None and results.trusted and tab == "results":
        page = {"scorecard": scorecard(report, experiment, asked.get("view", ""), texts)}
    if report is not None and results is not None and results.trusted and tab == "segments":
        page = {
            "matrices": matrices(report, experiment, segments, texts),
            "choosing": True,
            "choice": choice(report, experiment, asked.get("variant", ""), asked.getlist("segment"), texts),
            "treatments": [(arm.variant, arm.name) for arm in report.arms if arm.variant != report.control],
        }
    if tab == "plan":
        page = {"planned": planned(experiment, report, uses, segments, texts), "kept": kept}
    if tab == "decision":
        asked_for = {"variant": asked.get("variant"), "segments": asked.getlist("segment"), "reason": "", "problem": ""}
        page = {"form": form or asked_for, **_decided(experiment, entries, rests_on, texts)}
    return render_template(
        "results.html",
        tab=tab,
        experiment=experiment,
        status_label=sentences.known(sentences.STATUSES, experiment.status),
        report=report,
        saved=saved,
        results=results,
        as_of=texts.moment(report.as_of) if report else "",
        waiting=texts.count(waiting) if waiting and report else "",
        second=second,
        stale=report is not None and any(e["action"] == "revise" and e["revision"] > report.revision for e in entries),
        moves=_moves(experiment.status),
        history=[_history(entry, texts) for entry in entries[:_HISTORY]],
        vega=assets.NAME,
        formats=texts,
        where="experiments",
        at={"key": key},
        digest=digest(experiment),
        **page,
    )


def _rests_on(session: Session, experiment: Experiment) -> Saved | None:
    """Return the report on which was decided."""
    named = experiment.decision.report if experiment.decision else None
    try:
        return None if named is None else reports.find(session, named)
    except NotFound:
        return None


def _decided(
    experiment: Experiment, entries: list[dict[str, Any]], rests_on: Saved | None, texts: Formats
) -> dict[str, object]:
    """Return who decided and when, and what the report had recommended."""
    report, decision = readable(rests_on), experiment.decision
    step = next((entry for entry in entries if entry["action"] == Status.decided), None)
    found: dict[str, object] = {"decided": None if step is None else _history(step, texts)}
    if report is not None and decision is not None:
        advice = report.decision
        chosen = (decision.variant, sorted(decision.segments or []))
        found["advised"] = headline(report, texts)
        found["follows"] = chosen == (advice.variant or report.control, sorted(advice.segments))
    return found


@blueprint.get("/experiments/<key>.<any(json,csv,parquet,xlsx):extension>")
@login_required
def download(key: str, extension: str) -> Response:
    """Return the newest report as a file."""
    return downloads.download(downloads.latest(key), extension, attachment=extension != "json")


@blueprint.get("/experiments/<key>/chart/<name>.csv")
@login_required
def chart(key: str, name: str) -> Response:
    """Return what a chart draws."""
    return drawn.rows(downloads.latest(key), name, key)


@blueprint.get("/experiments/<key>/chart/<name>.<any(svg,png):extension>")
@login_required
def picture(key: str, name: str, extension: pictures.Extension) -> Response:
    """Return a chart as a picture."""
    return drawn.picture(downloads.latest(key), name, extension, key)


@blueprint.post("/experiments/<key>/report")
@needs(Role.editor)
def update(key: str) -> ResponseReturnValue:
    """Analyse the experiment now."""
    held = state()
    return _done(key, lambda: reports.make(held.store, key, now=held.clock()), gettext("The numbers are up to date."))


@blueprint.post("/experiments/<key>/status")
@needs(Role.approver)
def move(key: str) -> ResponseReturnValue:
    """Start, pause, resume, stop or archive the experiment."""
    wanted = request.form.get("status", "")
    if wanted not in set(Status):
        abort(400)
    return _done(key, lambda: _move(key, Status(wanted), None), gettext("Done."))


@blueprint.post("/experiments/<key>/decision")
@needs(Role.approver)
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
        problem = gettext("Choose a variant and give a reason.")
        sent = {"variant": form.get("variant"), "segments": form.getlist("segments"), "reason": form.get("reason", "")}
        return _page(key, "decision", sent | {"problem": problem}), 422
    return _done(
        key, lambda: _move(key, Status.decided, decision), gettext("The decision is recorded."), tab="decision"
    )


@blueprint.post("/experiments/<key>/policy")
@needs(Role.approver)
def draft(key: str) -> ResponseReturnValue:
    """Make the draft of a policy from the decision, for the segments that were ticked, if any were."""
    variant, segments = request.form.get("variant"), request.form.getlist("segment")
    try:
        _draft(key, variant, segments)
    except UpturnError as error:
        return _refused(key, error, "segments" if segments else "decision")
    flash(gettext("The policy is drafted. Nobody gets anything new until it is started."), "done")
    return redirect(f"/policies/{key}", 303)


def _draft(key: str, variant: str | None, segments: list[str]) -> None:
    held = state()
    with held.store.write() as session:
        experiment: Experiment = registry.get(session, Kind.experiment, key)
        decision = experiment.decision
        if experiment.status is not Status.decided or decision is None:
            raise Conflict("not_decided", f"the experiment {key!r} is {experiment.status}: decide it first")
        if segments:
            decision = decision.model_copy(update={"segments": segments, "variant": variant or decision.variant})
        saved = _rests_on(session, experiment) or reports.latest(session, key)
        report = readable(saved)
        name = None if saved is None or report is None else saved.id
        policy = promises.from_decision(experiment, decision, report, name)
        registry.create(session, Kind.policy, policy.to_json(), actor=g.login, now=held.clock())


def _move(key: str, status: Status, decision: Decision | None) -> None:
    held = state()
    with asking(Kind.experiment, key, status, decision), held.store.write() as session:
        registry.move(session, key, status, actor=g.login, now=held.clock(), decision=decision)


def _done(key: str, work: Callable[[], object], success: str, tab: str = "") -> ResponseReturnValue:
    """Do something and go back to the page with what became of it."""
    try:
        work()
    except UpturnError as error:
        return _refused(key, error, tab)
    flash(success, "done")
    return redirect(_address(key, tab), 303)


def _refused(key: str, error: UpturnError, tab: str) -> ResponseReturnValue:
    if error.status == 404:
        raise error
    known = sentences.ERRORS.get(error.code)
    flash(str(known) if known else gettext("That is not possible now: %(detail)s", detail=error.detail), "problem")
    return redirect(_address(key, tab), 303)


def _address(key: str, tab: str) -> str:
    return url_for("experiments.tab", key=key, tab=tab) if tab else url_for("experiments.show", key=key)


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

"""The uplift page of an experiment: a study is asked for, watched, read, downloaded, and made into a policy."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from flask import Blueprint, Response, abort, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import ValidationError
from sqlalchemy.orm import Session

from experiments import registry, rows
from experiments.access import Role
from experiments.documents import Experiment, Kind, Status
from experiments.errors import Conflict, InvalidDocument, UpturnError
from experiments.uplift import lists as userlists
from experiments.uplift import participants, serving, studies
from experiments.uplift import report as reports
from experiments.uplift.report import Uplift
from experiments.uplift.studies import Study, StudyEntry, StudyRequest, StudyStatus
from web import assets, languages, sentences, targeting
from web.api.uplift import streamed
from web.charts import Chart, pictures
from web.formats import Formats
from web.languages import gettext
from web.pages.reports import drawn
from web.pages.uplift import conditions, lists, spending, uplift
from web.pages.uplift.answered import Asked, amounts
from web.security import login_required, needs
from web.state import state

blueprint = Blueprint("studies", __name__)

_UNDER_WAY = (StudyStatus.queued, StudyStatus.running)
_LEARNERS: Mapping[str, Sequence[str]] = {
    "usual": ("s", "t", "x"),
    "quick": ("t",),
    "all": ("s", "t", "x", "r", "dr", "forest"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A study in the list of all."""

    id: str
    at: str
    metric: str
    status: str
    features: str
    current: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a study is, or why it failed."""

    id: str
    status: str
    label: str
    percent: int
    since: str
    problems: list[str]


def _formats() -> Formats:
    held = state()
    return Formats(languages.current_locale(), held.store.settings.currency, held.zone)


@blueprint.get("/experiments/<key>/uplift")
@login_required
def show(key: str) -> str:
    """Show the newest study of an experiment, or the one asked for."""
    return _page(key, {}, {})


@blueprint.post("/experiments/<key>/uplift")
@needs(Role.editor)
def ask(key: str) -> ResponseReturnValue:
    """Ask for a study, and start it."""
    held, form = state(), request.form
    wrong: dict[str, str] = {}
    try:
        wanted = _wanted()
        study, new = studies.ask(held.store, key, wanted, now=held.clock())
    except ValidationError as error:
        for each in error.errors():
            wrong[str(each["loc"][0])] = gettext("Give a number above 0, or leave it empty.")
    except InvalidDocument as error:
        for problem in error.problems:
            where = "metric" if problem.field == "value.margin" else problem.field
            wrong[where] = sentences.known(targeting.REFUSALS, problem.problem)
    except Conflict as error:
        flash(targeting.failed(error.code, error.detail), "problem")
        return redirect(url_for("studies.show", key=key), 303)
    else:
        if new:
            studies.start(held.store.settings, study.id)
        return redirect(url_for("studies.show", key=key, study=study.id), 303)
    return _page(key, form.to_dict(flat=False), wrong), 422


@blueprint.post("/studies/<study>/list")
@needs(Role.editor)
def make_list(study: str) -> ResponseReturnValue:
    """Ask for a list within the limits of the form, and start it."""
    held, form = state(), request.form
    with held.store.read() as session:
        found = studies.find(session, study, now=held.clock())
    report = _readable(found)
    treatments = [arm.variant for arm in report.arms[1:]] if report is not None else []
    wanted, wrong = lists.wanted(form, treatments)
    if wanted is None:
        return _page(found.experiment, {}, {}, study=study, limits=form, unfit=wrong), 422
    try:
        entry, new = userlists.ask(held.store, study, wanted, now=held.clock())
    except InvalidDocument as refused:
        unfit = {problem.field: lists.refusal(refused) for problem in refused.problems}
        return _page(found.experiment, {}, {}, study=study, limits=form, unfit=unfit), 422
    except UpturnError as refused:
        if refused.status == 404:
            raise
        flash(lists.refusal(refused), "problem")
    else:
        if new:
            userlists.start(held.store.settings, entry.id)
    budget = form.get("budget", "").strip() or None
    return redirect(url_for("studies.show", key=found.experiment, study=study, budget=budget) + "#lists", 303)


def _wanted() -> StudyRequest:
    form = request.form
    given: dict[str, Any] = {
        "metric": form.get("metric") or None,
        "learners": list(_LEARNERS.get(form.get("learners", ""), _LEARNERS["usual"])),
        "features": form.get("features", "attributes"),
        "leave_out": form.getlist("leave_out"),
    }
    for name in ("budget", "depth"):
        if text := form.get(name, "").strip():
            given[name] = text.replace(",", "") if name == "budget" else text
    # As JSON, where numbers come as texts: the documents are strict.
    given |= {name: _number(given[name]) for name in ("budget", "depth") if name in given}
    return StudyRequest.model_validate(given)


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _page(
    key: str,
    entered: Mapping[str, Sequence[str]],
    wrong: Mapping[str, str],
    *,
    study: str | None = None,
    limits: Mapping[str, str] | None = None,
    unfit: Mapping[str, str] | None = None,
) -> str:
    """The page; ``limits`` is what was entered for a list of the study, and ``unfit`` what is wrong with it."""
    held, formats = state(), _formats()
    with held.store.read() as session:
        experiment: Experiment = registry.get(session, Kind.experiment, key)
        listed = studies.listing(session, key, now=held.clock())
        metrics = _metrics(session, experiment)
        found = _chosen(session, listed, held.clock(), study)
        newest = listed[0] if listed else None
        asked = _asked(session, found) if found is not None else None
        has_policy = any(policy.key == key for policy in registry.all_of(session, Kind.policy))
        report = _readable(found)
        made = []
        if report is not None and asked is not None:
            made = lists.of(session, key, dict(asked.names), amounts(report, asked, formats), held.clock())
    shown = budget = None
    treatments: list[tuple[str, str]] = []
    known: list[str] = []
    features: list[tuple[str, str, bool]] = []
    if found is not None and found.report is not None and report is not None and asked is not None:
        shown = uplift.shown(bytes(found.report), asked, found.notes, formats)
        entered_budget = request.args.get("budget") if limits is None else limits.get("budget")
        budget = spending.budget(report, asked, formats, entered_budget)
        treatments = [(arm.variant, asked.name(arm.variant)) for arm in report.arms[1:]]
        known = [conditions.feature(each.name) for each in report.features if participants.servable(each.name)]
        left_out = [each.feature for each in found.notes.left_out if each.problem == "not_wanted"]
        names = [*(each.name for each in report.features), *left_out]
        features = [(name, conditions.feature(name), name in left_out) for name in names]
    waiting = newest if newest is not None and newest.status is not StudyStatus.done else None
    return render_template(
        "studies.html",
        key=key,
        experiment=experiment,
        status_label=sentences.known(sentences.STATUSES, experiment.status),
        study=found,
        shown=shown,
        unreadable=found is not None and shown is None,
        budget=budget,
        lists=made,
        made_at=formats.moment(found.finished_at) if found is not None and found.finished_at else "",
        progress=_progress(waiting, formats, dict(metrics)) if waiting is not None else None,
        listed=[_entry(each, found, dict(metrics), formats) for each in listed],
        metrics=metrics,
        features=features,
        entered=entered,
        wrong=wrong,
        treatments=treatments,
        known=known,
        tests=[(code, str(text)) for code, text in targeting.TESTS.items()],
        limits=limits or {},
        unfit=unfit or {},
        has_costs=any(variant.costs.per_user > 0 for variant in experiment.variants),
        feature_choices=[(code, str(text)) for code, text in targeting.FEATURES.items()],
        may_start=experiment.status is not Status.draft,
        has_policy=has_policy,
        has_scores=found is not None and studies.scores_path(held.store.settings, found.id).is_file(),
        control_name=next(each.name or each.key for each in experiment.variants if each.key == experiment.control),
        currency=formats.currency,
        vega=assets.NAME,
        where="studies",
        at={"key": key, "study": found.id} if found is not None else {},
    )


def _metrics(session: Session, experiment: Experiment) -> list[tuple[str, str]]:
    """Return the metrics that can be studied, by key and name, the primary one first."""
    found = [metric for metric, _, _, _ in registry.metric_uses(session, experiment)]
    possible = []
    for metric in found:
        try:
            rows.chosen_metric(found, metric.key)
        except InvalidDocument:
            continue
        possible.append((metric.key, metric.name))
    return possible


def _chosen(session: Session, listed: Sequence[StudyEntry], now: datetime, wanted: str | None = None) -> Study | None:
    """The study asked for, if it is done, else the newest one that is."""
    wanted = wanted or request.args.get("study")
    done = [each for each in listed if each.status is StudyStatus.done]
    chosen = next((each for each in done if each.id == wanted), done[0] if done else None)
    return None if chosen is None else studies.find(session, chosen.id, now=now)


def _asked(session: Session, study: Study) -> Asked | None:
    experiment: Experiment = registry.get(session, Kind.experiment, study.experiment, study.revision)
    report = _readable(study)
    if report is None:
        return None
    metric = registry.get(session, Kind.metric, report.outcome)
    valued = experiment.value is not None and experiment.value.metric == report.outcome
    return Asked(
        metric=metric.name,
        money=valued or getattr(metric, "unit", None) == "money",
        names=tuple((variant.key, variant.name or variant.key) for variant in experiment.variants),
        monthly_users=experiment.value.monthly_users if valued and experiment.value is not None else 0,
        segments=tuple((each.key, each.name) for each in registry.all_of(session, Kind.segment)),
    )


def _readable(study: Study | None) -> Uplift | None:
    """Return a study's report, or None where there is none that this version of the program can read."""
    if study is None or study.report is None:
        return None
    try:
        return reports.decode(bytes(study.report))
    except msgspec.ValidationError:
        return None


def _entry(found: StudyEntry, study: Study | None, metrics: Mapping[str, str], formats: Formats) -> Entry:
    metric = found.settings.get("metric") or next(iter(metrics), "")
    return Entry(
        id=found.id,
        at=formats.moment(found.created_at),
        metric=metrics.get(metric, metric),
        status=sentences.known(targeting.STUDY_STATUSES, found.status),
        features=sentences.known(targeting.FEATURES, found.settings.get("features", "all")),
        current=study is not None and study.id == found.id,
    )


def _progress(found: StudyEntry, formats: Formats, metrics: Mapping[str, str]) -> Progress:
    problems: list[str] = []
    if found.error is not None:
        problems = [
            targeting.refused(each.field, each.problem, metrics.get(each.field, conditions.feature(each.field)))
            for each in found.error.problems
        ] or [targeting.failed(found.error.code, found.error.detail)]
    return Progress(
        id=found.id,
        status=found.status,
        label=sentences.known(targeting.STUDY_STATUSES, found.status),
        percent=round(100 * found.progress),
        since=formats.moment(found.created_at),
        problems=problems,
    )


@blueprint.get("/studies/<study>/progress")
@login_required
def progress(study: str) -> str:
    """Return how far a study is, as a piece of the page."""
    held = state()
    with held.store.read() as session:
        found = studies.find(session, study, now=held.clock())
    return render_template("_progress.html", progress=_progress(found, _formats(), {}))


@blueprint.get("/experiments/<key>/uplift/chart/<name>.csv")
@login_required
def chart(key: str, name: str) -> Response:
    """Return what a chart draws."""
    return drawn.table(_chart(key, name).rows, f"{key}-{name}")


@blueprint.get("/experiments/<key>/uplift/chart/<name>.<any(svg,png):extension>")
@login_required
def picture(key: str, name: str, extension: pictures.Extension) -> Response:
    """Return a chart as a picture."""
    return drawn.image(_chart(key, name), extension, f"{key}-{name}")


def _chart(key: str, name: str) -> Chart:
    held = state()
    with held.store.read() as session:
        registry.revision_of(session, Kind.experiment, key)
        study = _chosen(session, studies.listing(session, key, now=held.clock()), held.clock())
        asked = None if study is None else _asked(session, study)
    if study is None or study.report is None or asked is None:
        abort(404)
    shown = uplift.shown(bytes(study.report), asked, study.notes, _formats())
    found = next((each for each in shown.charts if each.name == name), None)
    if found is None:
        abort(404)
    return found


@blueprint.get("/studies/<study>/scores.<any(csv,parquet):extension>")
@login_required
def scores(study: str, extension: str) -> Response:
    """Return a row for each user studied: predicted effects, and what model and rules give him."""
    held = state()
    with held.store.read() as session:
        found = studies.find(session, study, now=held.clock())
    path = studies.scores_path(held.store.settings, found.id)
    if found.status is not StudyStatus.done or not path.is_file():
        abort(404)
    return streamed(path, f"{found.experiment}-uplift", extension)


@blueprint.post("/studies/<study>/policy")
@needs(Role.editor)
def roll_out(study: str) -> ResponseReturnValue:
    """Make the draft of the policy that gives each user what the study's rules say."""
    held = state()
    key = ""
    try:
        with held.store.write() as session:
            found = studies.find(session, study, now=held.clock())
            key = found.experiment
            said = _readable(found)
            if said is None:
                code = "study_not_done" if found.status is not StudyStatus.done else "report_unreadable"
                raise Conflict(code, f"the study {study!r} has no report that can be read")
            experiment: Experiment = registry.get(session, Kind.experiment, key, found.revision)
            body = serving.policy(experiment, study, said, found.notes, held.store.settings.currency)
            policy = registry.create(session, Kind.policy, body, actor=g.login, now=held.clock())
    except Conflict as error:
        flash(targeting.failed(error.code, error.detail), "problem")
        return redirect(url_for("studies.show", key=key, study=study), 303)
    flash(
        gettext("The draft of the policy is made. Look at it, choose how many users are held back, and start it."),
        "done",
    )
    return redirect(url_for("policies.show", key=policy.key), 303)

"""Making an experiment by a guided form, step by step; changing a draft with the same form; copying an experiment."""

from contextlib import suppress
from typing import Any

import msgspec
from flask import Blueprint, Response, abort, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from experiments import conflicts, presets, registry
from experiments.access import Role
from experiments.crowd import Crowd, compiled
from experiments.documents import Experiment, Kind, Status, parse
from experiments.errors import Conflict, InvalidDocument, UpturnError
from experiments.lifecycle import difference
from experiments.sdk.errors import DocumentError
from experiments.tables import UserAttributes
from web import sentences
from web.drafts import Drafts, Fields, Unfinished
from web.formats import Formats
from web.languages import gettext
from web.pages.making import form as forms
from web.pages.making import plan as plans
from web.pages.making import shown as views
from web.pages.making import words
from web.pages.making.build import Built, build, is_share, primary_of
from web.pages.making.form import STEPS, Known
from web.pages.people.second import asking
from web.pages.reader import formats
from web.security import may, needs
from web.state import state

blueprint = Blueprint("making", __name__)

# Of more users the metric is measured when somebody asks for it: it takes seconds.
_AT_ONCE = 200_000


def drafts() -> Drafts:
    """Where unfinished forms are kept."""
    return Drafts(state().store.settings.folder / "drafts")


def known(session: Session) -> Known:
    """Read what forms can name."""
    kinds = (Kind.experiment, Kind.policy)
    return Known(
        {metric.key: metric for metric in registry.all_of(session, Kind.metric)},
        {segment.key: segment for segment in registry.all_of(session, Kind.segment)},
        registry.all_of(session, Kind.layer),
        registry.all_of(session, Kind.holdout),
        frozenset(document.key for kind in kinds for document in registry.all_of(session, kind)),
        state().zone,
    )


@blueprint.get("/experiments/new")
@needs(Role.editor)
def choose() -> str:
    """Show the templates, and the experiments that can be copied."""
    with state().store.read() as session:
        found = registry.all_of(session, Kind.experiment)
    return render_template("new.html", presets=words.PRESETS, experiments=found)


@blueprint.post("/experiments/new")
@needs(Role.editor)
def begin() -> ResponseReturnValue:
    """Begin with a template."""
    code = request.form.get("preset", "")
    if code not in set(presets.PresetCode):
        abort(400)
    preset = presets.PresetCode(code)
    held = state()
    with held.store.read() as session:
        seen = conflicts.seen_events(session, held.store.lake, now=held.clock())
        fields = forms.of_preset(preset, g.login, known(session).metrics, seen)
    form = drafts().begin(g.login, code, fields, now=held.clock())
    return _to(form, "goal")


@blueprint.post("/experiments/<key>/edit")
@needs(Role.editor)
def edit(key: str) -> ResponseReturnValue:
    """Begin to change a draft."""
    return _edit(key)


@blueprint.post("/experiments/<key>/duplicate")
@needs(Role.editor)
def duplicate(key: str) -> ResponseReturnValue:
    """Copy an experiment into a new draft, and open that."""
    held = state()
    with held.store.write() as session:
        name = registry.get(session, Kind.experiment, key).name
        copy = gettext("%(name)s (copy)", name=name[:180])
        made = presets.duplicate(session, key, name=copy, actor=g.login, now=held.clock())
    flash(gettext("This is the copy: a draft of its own. Change what shall differ."), "done")
    return _edit(made.key)


def _edit(key: str) -> ResponseReturnValue:
    held = state()
    with held.store.read() as session:
        experiment: Experiment = registry.get(session, Kind.experiment, key)
        fields = forms.of_document(experiment, known(session))
    if experiment.status is not Status.draft:
        flash(gettext("Only drafts can be changed here. Copy the experiment to try something else."), "problem")
        return redirect(url_for("experiments.show", key=key), 303)
    form = drafts().begin(g.login, "", fields, now=held.clock(), base=experiment.to_json())
    return _to(form, "goal")


@blueprint.get("/experiments/new/<form>/<step>")
@needs(Role.editor)
def show(form: str, step: str) -> str:
    """Show a step with what was typed."""
    if step not in STEPS:
        abort(404)
    return _page(drafts().get(form, g.login), step, check=request.args.get("check") == "1")


@blueprint.post("/experiments/new/<form>/<step>")
@needs(Role.editor)
def save(form: str, step: str) -> ResponseReturnValue:
    """Keep what was typed, and go where the button says."""
    if step not in STEPS:
        abort(404)
    kept = drafts().get(form, g.login)
    _take(kept, step)
    go = request.form.get("go", "next")
    if go == "add" and forms.arms(kept.fields) < forms.MOST_ARMS:
        _add_arm(kept.fields)
    elif go.startswith("remove:"):
        _remove_arm(kept.fields, go.removeprefix("remove:"))
    drafts().keep(kept)
    if go in ("create", "start"):
        return _store(kept, start=go == "start")
    target = step
    if go in STEPS:
        target = go
    elif go == "next":
        with state().store.read() as session:
            wrong = {trouble.step for trouble in _build(kept, known(session))[0].troubles}
        if step in wrong:
            return redirect(url_for("making.show", form=form, step=step, check=1), 303)
        target = STEPS[min(STEPS.index(step) + 1, len(STEPS) - 1)]
    if target in ("plan", "check"):
        _measure(kept, again=go == "measure")
    return _to(kept, target)


@blueprint.post("/experiments/new/<form>/<step>/live")
@needs(Role.editor)
def live(form: str, step: str) -> Response:
    """Keep what was typed, and return what the page shows beside it: scripts ask while someone types."""
    if step not in STEPS:
        abort(404)
    kept = drafts().get(form, g.login)
    _take(kept, step)
    drafts().keep(kept)
    answer: dict[str, object] = {}
    if step == "audience":
        with state().store.read() as session:
            found = known(session)
            built, _ = _build(kept, found)
            crowd = Crowd.of(session, now=state().clock())
            answer["size"] = _sized(session, built, crowd, formats()).sentence
    return Response(msgspec.json.encode(answer), mimetype="application/json")


@blueprint.post("/experiments/new/<form>/drop")
@needs(Role.editor)
def drop(form: str) -> ResponseReturnValue:
    """Throw the unfinished form away."""
    drafts().drop(drafts().get(form, g.login))
    return redirect(url_for("experiments.overview"), 303)


def _to(form: Unfinished, step: str) -> ResponseReturnValue:
    return redirect(url_for("making.show", form=form.id, step=step), 303)


def _take(form: Unfinished, step: str) -> None:
    """Put the fields of a step as they were sent into the form; the others stay."""
    sent = request.form
    form.fields["arms"] = [sent.get("arms", forms.one(form.fields, "arms", "2"))]
    for name in forms.names_of(step, form.fields):
        form.fields[name] = [value[:5000] for value in sent.getlist(name)][:200]


def _add_arm(fields: Fields) -> None:
    count = forms.arms(fields)
    for part in forms.ARM_FIELDS:
        fields[f"v{count}_{part}"] = []
    fields[f"v{count}_touches"], fields[f"v{count}_per"] = ["1"], ["week"]
    fields["arms"] = [str(count + 1)]


def _remove_arm(fields: Fields, text: str) -> None:
    count = forms.arms(fields)
    if not (text.isascii() and text.isdigit() and int(text[:3]) < count and count > 1):
        return
    gone, control = int(text), forms.one(fields, "control", "0")
    for i in range(gone, count):
        for part in forms.ARM_FIELDS:
            fields[f"v{i}_{part}"] = fields.pop(f"v{i + 1}_{part}", [])
    fields["arms"] = [str(count - 1)]
    if control.isdigit() and int(control) > gone:
        fields["control"] = [str(int(control) - 1)]
    elif control == text:
        fields["control"] = ["0"]


def _build(form: Unfinished, found: Known, formatted: Formats | None = None) -> tuple[Built, plans.PlanView]:
    """Make the document, with the number of users that the plan asks for."""
    formatted = formatted or formats()
    first = build(form.fields, form.base, found, None)
    metric = primary_of(first, found)
    seen = form.measured
    if seen is not None and metric is not None:
        sign = plans.signature(metric, first.document, first.segments)
        seen = seen if seen.get("sign") == sign else None
    view = plans.view(form.fields, first, metric, seen, formatted, now=state().clock())
    built = build(form.fields, form.base, found, view.users)
    fresh = {trouble.field for trouble in built.troubles}
    built.troubles += [t for t in first.troubles if t.step == "plan" and t.field != "planned" and t.field not in fresh]
    return built, view


def _measure(form: Unfinished, *, again: bool) -> None:
    """Measure the main metric for the plan, where that was not done for this metric and audience."""
    held = state()
    with held.store.read() as session:
        found = known(session)
        first = build(form.fields, form.base, found, None)
        metric = primary_of(first, found)
        snapshot = registry.snapshot(session)
        users = session.scalar(select(func.count()).select_from(UserAttributes)) or 0
    if metric is None or (users > _AT_ONCE and not again):
        return
    sign = plans.signature(metric, first.document, first.segments)
    if form.measured is not None and form.measured.get("sign") == sign and not again:
        return
    with suppress(UpturnError, DocumentError):
        rule = plans.draft_rule(first.document, snapshot, first.segments)
        form.measured = plans.measured(held.store, metric, rule, now=held.clock()) | {"sign": sign}
        drafts().keep(form)


def _sized(session: Session, built: Built, crowd: Crowd, formatted: Formats) -> views.SizeView:
    snapshot = registry.snapshot(session)
    try:
        rule = plans.draft_rule(built.document, snapshot, built.segments)
    except (DocumentError, KeyError, TypeError, AttributeError):
        return views.SizeView(gettext("Correct the audience first; then the number of users follows."))
    others = [
        compiled(other, snapshot)
        for other in registry.all_of(session, Kind.experiment)
        if other.status in (Status.running, Status.paused)
    ]
    return views.size(crowd.size(rule, others), formatted)


def _page(form: Unfinished, step: str, *, check: bool, changed: views.Changed | None = None) -> str:
    formatted = formats()
    held = state()
    with held.store.read() as session:
        found = known(session)
        built, plan = _build(form, found, formatted)
        context: dict[str, Any] = {}
        if step == "audience":
            crowd = Crowd.of(session, now=held.clock())
            context["size"] = _sized(session, built, crowd, formatted)
            context["layers"] = [("", gettext("None")), *((layer.key, layer.name) for layer in found.layers)]
            context["segments"] = views.segments(found, registry.snapshot(session), crowd, formatted)
        elif step == "variants":
            context["arms"] = views.arms(form.fields)
        elif step == "metrics":
            context |= views.metrics(found, form.fields)
            context["events"] = list(conflicts.seen_events(session, held.store.lake, now=held.clock()))
        elif step == "check" and built.experiment is not None:
            context["size"], context["concerns"] = _checked(session, built, formatted)
    # Nobody is blamed for steps that he has not come to yet.
    seen = STEPS[: STEPS.index(step) + 1] if check or step == "check" else ()
    shown = {trouble.field: trouble.text for trouble in built.troubles if trouble.step in seen}
    return render_template(
        "new_step.html",
        form=form,
        step=step,
        steps=words.STEPS,
        wrong={trouble.step for trouble in built.troubles},
        troubles=[trouble for trouble in built.troubles if trouble.field in shown],
        errors=shown,
        f=lambda name, default="": forms.one(form.fields, name, default),
        chosen=lambda name: form.fields.get(name, []),
        plan=plan,
        document=views.pretty(built.experiment, built.document),
        experiment=built.experiment,
        planned=formatted.count(built.experiment.plan.planned_users) if built.experiment else "",
        key=built.document.get("key", ""),
        made=[*built.metrics, *built.segments],
        known=found,
        words=words,
        zone=held.store.settings.timezone,
        currency=held.store.settings.currency,
        changed=changed,
        share=_is_share(built, found),
        may_start=may("approver"),
        **context,
    )


def _is_share(built: Built, found: Known) -> bool:
    metric = primary_of(built, found)
    return metric is None or is_share(metric)


def _checked(session: Session, built: Built, formatted: Formats) -> tuple[views.SizeView, list[tuple[str, str, str]]]:
    assert built.experiment is not None
    held = state()
    fresh = {document["key"]: parse(Kind.metric, document) for document in built.metrics}
    stored = {metric.key: metric for metric in registry.all_of(session, Kind.metric)}
    uses = [fresh.get(use.key) or stored.get(use.key) for use in built.experiment.metrics]
    found = conflicts.find(
        session,
        held.store.lake,
        built.experiment,
        now=held.clock(),
        metrics=[metric for metric in uses if metric is not None],
        segments=[parse(Kind.segment, document) for document in built.segments],
    )
    return views.size(found.size, formatted), views.concerns(found.concerns, session, formatted)


def _store(form: Unfinished, *, start: bool) -> ResponseReturnValue:
    """Store the document with what it needs, in one transaction."""
    held = state()
    with held.store.read() as session:
        built, _ = _build(form, known(session))
    if built.troubles:
        return _to(form, "check")
    document = dict(built.document)
    if not may("approver"):
        if start:
            abort(403)
        before = (form.base or {}).get("schedule")
        if document.get("schedule") != before:
            # To schedule a start is to start.
            flash(gettext("The schedule was left out: only approvers may start and stop experiments."), "problem")
            document["schedule"] = before
    try:
        with held.store.write() as session:
            made = presets.create(
                session,
                document,
                metrics=built.metrics,
                segments=built.segments,
                revision=int(form.base["revision"]) if form.base else None,
                actor=g.login,
                now=held.clock(),
            )
    except Conflict as error:
        if error.code == "stale_revision" and form.base is not None:
            return _changed_meanwhile(form)
        return _refused(form, error)
    except InvalidDocument as error:
        return _refused(form, error)
    drafts().drop(form)
    if start:
        _start(made.key)
    else:
        flash(gettext("The draft is saved."), "done")
    return redirect(url_for("experiments.show", key=made.key), 303)


def _start(key: str) -> None:
    """Start what was just stored; where that is refused, the draft stays."""
    held = state()
    try:
        with asking(Kind.experiment, key, Status.running), held.store.write() as session:
            registry.move(session, key, Status.running, actor=g.login, now=held.clock())
    except UpturnError as error:
        why = sentences.ERRORS.get(error.code, error.detail)
        flash(gettext("The draft is saved, but it was not started: %(why)s", why=why), "problem")
    else:
        flash(gettext("The experiment is running."), "done")


def _refused(form: Unfinished, error: UpturnError) -> ResponseReturnValue:
    sentence = sentences.ERRORS.get(error.code)
    flash(
        str(sentence) if sentence else gettext("That is not possible now: %(detail)s", detail=error.detail), "problem"
    )
    return _to(form, "check")


def _changed_meanwhile(form: Unfinished) -> ResponseReturnValue:
    """Bring in what somebody else changed, keep what was typed here, and show both before it is saved again."""
    assert form.base is not None
    formatted = formats()
    with state().store.read() as session:
        newest: Experiment = registry.get(session, Kind.experiment, form.base["key"])
        found = known(session)
        entries = registry.history(session, newest.key)
    if newest.status is not Status.draft:
        flash(gettext("Someone started the experiment meanwhile; drafts only can be changed here."), "problem")
        return redirect(url_for("experiments.show", key=newest.key), 303)
    theirs = forms.of_document(newest, found)
    mine, clashes = forms.merged(form.fields, form.began, theirs)
    since = [entry for entry in entries if entry["revision"] > form.base["revision"]]
    changed = views.Changed(
        [(entry["actor"], formatted.moment(entry["at"])) for entry in since],
        [change for change in difference(form.base, newest.to_json()) if change["path"] != "revision"],
        [(views.label(name), forms.one(form.fields, name), forms.one(theirs, name)) for name in clashes],
    )
    form.fields, form.base, form.began = mine, newest.to_json(), theirs
    drafts().keep(form)
    return Response(_page(form, "check", check=True, changed=changed), 409)

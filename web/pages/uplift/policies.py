"""The policies: what each serves to whom, what was promised and what came of it, and how to widen, stop or go back."""

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, abort, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from experiments import lake, registry, reports, rollout
from experiments.access import Role
from experiments.documents import Kind
from experiments.errors import Conflict, InvalidDocument, UpturnError
from experiments.policy import Policy, PolicyStatus
from web import assets, languages, sentences, targeting
from web.charts import Chart, pictures
from web.formats import Formats
from web.languages import gettext
from web.pages.people.second import asking
from web.pages.people.second import waiting as waiting_second
from web.pages.reports import drawn
from web.pages.reports.verdict import readable
from web.pages.uplift import rolledout
from web.security import login_required, needs
from web.state import state

blueprint = Blueprint("policies", __name__)

_HISTORY = 50
# What the server keeps of itself says nothing to readers.
_KEPT = ("revision", "status", "salt", "phase")


def _formats() -> Formats:
    held = state()
    return Formats(languages.current_locale(), held.store.settings.currency, held.zone)


@blueprint.get("/policies")
@login_required
def overview() -> str:
    """List the policies, those that run first."""
    held, formats = state(), _formats()
    with held.store.read() as session:
        named = rolledout.named(session)
        found: list[Policy] = registry.all_of(session, Kind.policy)
        order = [PolicyStatus.running, PolicyStatus.paused, PolicyStatus.draft]
        found.sort(key=lambda policy: (*(policy.status is not status for status in order), policy.name))
        lines = [
            rolledout.line(policy, rolledout.measured(session, policy, formats.currency), named, formats)
            for policy in found
        ]
    return render_template("policies.html", lines=lines)


@blueprint.get("/policies/<key>")
@login_required
def show(key: str) -> str:
    """Show a policy."""
    return _page(key, "", "")


def _page(key: str, entered: str, wrong: str) -> str:
    held, formats = state(), _formats()
    with held.store.read() as session:
        policy: Policy = registry.get(session, Kind.policy, key)
        named = rolledout.named(session)
        saved = reports.latest(session, key, Kind.policy)
        report = readable(saved)
        found = rolledout.measured(session, policy, formats.currency)
        entries = registry.history(session, key, Kind.policy)
        second = waiting_second(session, Kind.policy, key, formats)
        waiting = lake.backlog(session) if rollout.was_started(policy) else 0
    return render_template(
        "policy.html",
        key=key,
        policy=policy,
        shown=rolledout.shown(policy, found, report, named, formats),
        line=rolledout.line(policy, found, named, formats),
        moves=_moves(policy.status),
        under_way=policy.status in (PolicyStatus.running, PolicyStatus.paused),
        changeable=policy.status in (PolicyStatus.draft, PolicyStatus.running, PolicyStatus.paused),
        started=rollout.was_started(policy),
        as_of=formats.moment(report.as_of) if report is not None else "",
        waiting=formats.count(waiting) if waiting and report is not None else "",
        entered=entered or formats.plain(100 * policy.holdback.share),
        wrong=wrong,
        second=second,
        control_name=next(each.name or each.key for each in policy.variants if each.key == policy.control),
        history=[_history(entry, formats) for entry in entries[:_HISTORY]],
        vega=assets.NAME,
        where="policies",
        at={"key": key},
    )


# A policy has one chart, whose name is not in its address.
@blueprint.get("/policies/<key>/chart.csv", defaults={"name": "policy-lift"})
@login_required
def chart(key: str, name: str) -> Response:
    """Return what the chart of promise and gain draws."""
    return drawn.table(_chart(key).rows, f"{key}-{name}")


@blueprint.get("/policies/<key>/chart.<any(svg,png):extension>", defaults={"name": "policy-lift"})
@login_required
def picture(key: str, name: str, extension: pictures.Extension) -> Response:
    """Return the chart of promise and gain as a picture."""
    return drawn.image(_chart(key), extension, f"{key}-{name}")


def _chart(key: str) -> Chart:
    held, formats = state(), _formats()
    with held.store.read() as session:
        policy: Policy = registry.get(session, Kind.policy, key)
        report = readable(reports.latest(session, key, Kind.policy))
        found = rolledout.measured(session, policy, formats.currency)
        shown = rolledout.shown(policy, found, report, rolledout.named(session), formats)
    if shown.chart is None:
        abort(404)
    return shown.chart


@blueprint.post("/policies/<key>/report")
@needs(Role.editor)
def update(key: str) -> ResponseReturnValue:
    """Compare what the rules give with the users held back, now."""
    held = state()
    text = gettext("The numbers are up to date.")
    return _done(key, lambda: reports.make(held.store, key, now=held.clock(), kind=Kind.policy), text)


@blueprint.post("/policies/<key>/status")
@needs(Role.approver)
def move(key: str) -> ResponseReturnValue:
    """Start, pause, resume, stop or archive the policy."""
    wanted = request.form.get("status", "")
    if wanted not in set(PolicyStatus):
        abort(400)

    def work() -> None:
        held = state()
        with asking(Kind.policy, key, wanted), held.store.write() as session:
            registry.move_policy(session, key, PolicyStatus(wanted), actor=g.login, now=held.clock())

    return _done(key, work, gettext("Done."))


@blueprint.post("/policies/<key>/holdback")
@needs(Role.approver)
def widen(key: str) -> ResponseReturnValue:
    """Hold back another share of the users: fewer widen the roll-out."""
    text = request.form.get("share", "").strip().rstrip("%％")
    try:
        share = float(text.replace(",", ".")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        return _page(key, text, gettext("Give a number from 0 to 99.9, in percent.")), 422

    def work() -> None:
        held = state()
        with held.store.write() as session:
            policy: Policy = registry.get(session, Kind.policy, key)
            if str(policy.revision) != request.form.get("revision"):
                raise Conflict("stale_revision", f"the policy {key!r} was changed meanwhile: look at it again")
            body = policy.to_json()
            body["holdback"]["share"] = share
            registry.revise(session, Kind.policy, key, body, actor=g.login, now=held.clock())

    return _done(
        key, work, gettext("From now on %(share)s of the users are held back.", share=_formats().percent(share))
    )


@blueprint.post("/policies/<key>/rollback")
@needs(Role.approver)
def roll_back(key: str) -> ResponseReturnValue:
    """Serve again what was served before, or the control to all; confirmed in the form."""
    to = request.form.get("to", "")
    if to not in ("previous", "control"):
        abort(400)

    def work() -> None:
        held = state()
        with held.store.write() as session:
            registry.roll_back(session, key, to_control=to == "control", actor=g.login, now=held.clock())

    return _done(key, work, gettext("Rolled back. It counts from the next request of every app."))


def _done(key: str, work: Callable[[], object], success: str) -> ResponseReturnValue:
    """Do something and go back to the page with what became of it."""
    try:
        work()
    except UpturnError as error:
        if error.status == 404:
            raise
        known = targeting.POLICY_ERRORS.get(error.code)
        detail = "; ".join(p.remedy for p in error.problems) if isinstance(error, InvalidDocument) else error.detail
        flash(str(known) if known else gettext("That is not possible now: %(detail)s", detail=detail), "problem")
    else:
        flash(success, "done")
    return redirect(url_for("policies.show", key=key), 303)


def _moves(status: PolicyStatus) -> list[tuple[str, str]]:
    resume = gettext("Resume")
    return [
        (
            step.value,
            resume if (status, step) == (PolicyStatus.paused, PolicyStatus.running) else str(sentences.MOVES[step]),
        )
        for step in PolicyStatus
        if step in rollout.TRANSITIONS[status]
    ]


def _history(entry: Mapping[str, Any], formats: Formats) -> dict[str, object]:
    return {
        "at": formats.moment(entry["at"]),
        "actor": entry["actor"],
        "action": sentences.known(targeting.POLICY_ACTIONS, entry["action"]),
        "revision": entry["revision"],
        "diff": []
        if entry["action"] == "create"
        else [change for change in entry["diff"] if change["path"] not in _KEPT],
    }

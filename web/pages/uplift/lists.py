"""Lists of scored users: asked for with a budget, watched, downloaded, and rolled out as a policy."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, abort, flash, g, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from pydantic import ValidationError
from sqlalchemy.orm import Session

from experiments.access import Role
from experiments.errors import InvalidDocument, UpturnError
from experiments.uplift import lists, serving
from experiments.uplift.lists import ListEntry, ListRequest
from experiments.uplift.studies import StudyStatus
from web import sentences, targeting
from web.api.uplift import streamed
from web.formats import Formats
from web.languages import gettext
from web.pages.uplift import conditions
from web.pages.uplift.answered import Amounts
from web.security import login_required, needs
from web.state import state

blueprint = Blueprint("lists", __name__)

_SHOWN = 5
# How an attribute may be compared in a limit on who gets a variant.
TESTS: Sequence[str] = ("$lt", "$lte", "$gte", "$gt", "$eq", "$ne")


@dataclass(frozen=True, slots=True)
class UserList:
    """A list as the page shows it; what it holds is empty until it is done. ``kept``: its file is still there."""

    id: str
    at: str
    status: str
    label: str
    percent: int
    limit: str
    problems: list[str]
    users: str
    given: list[tuple[str, str]]
    expected: str
    refresh_by: str
    kept: bool


def of(session: Session, key: str, names: dict[str, str], money: Amounts, now: datetime) -> list[UserList]:
    """Return the newest lists of an experiment."""
    return [_shown(each, names, money) for each in lists.listing(session, key, now=now)[:_SHOWN]]


def _shown(found: ListEntry, names: dict[str, str], money: Amounts) -> UserList:
    formats, made = money.formats, found.made
    return UserList(
        id=found.id,
        at=formats.moment(found.created_at),
        status=found.status,
        label=sentences.known(targeting.STUDY_STATUSES, found.status),
        percent=round(100 * found.progress),
        limit=" · ".join(_limits(found.settings, names, formats)) or gettext("no limit"),
        problems=_problems(found),
        users="" if made is None else formats.count(made.users),
        given=[] if made is None else [(names.get(each, each), formats.count(n)) for each, n in made.variants.items()],
        expected="" if made is None else money.sum(made.expected),
        refresh_by="" if made is None else formats.moment(made.refresh_by),
        kept=lists.users_path(state().store.settings, found.id).is_file(),
    )


def _limits(settings: Mapping[str, Any], names: Mapping[str, str], formats: Formats) -> Iterator[str]:
    if (budget := settings.get("budget")) is not None:
        yield gettext("budget %(money)s", money=formats.money(budget, signed=False))
    if (contacts := settings.get("contacts")) is not None:
        yield gettext("%(users)s contacts", users=formats.count(contacts))
    for variant, users in settings.get("stock", {}).items():
        name = names.get(variant, variant)
        yield gettext("“%(variant)s” for at most %(users)s users", variant=name, users=formats.count(users))
    for variant, condition in settings.get("allowed", {}).items():
        facts = {"variant": names.get(variant, variant), "condition": conditions.words(condition, formats)}
        yield gettext("“%(variant)s” only if %(condition)s", **facts)


def _problems(found: ListEntry) -> list[str]:
    if found.error is None:
        return []
    named = [
        targeting.refused(each.field, each.problem, conditions.feature(each.field)) for each in found.error.problems
    ]
    return named or [targeting.failed(found.error.code, found.error.detail)]


def wanted(form: Mapping[str, str], variants: Sequence[str]) -> tuple[ListRequest | None, dict[str, str]]:
    """Return the list that a form asks for, or what is wrong with its fields.

    Args:
        form: as sent.
        variants: the treatments studied.
    """
    wrong: dict[str, str] = {}
    limit = "contacts" if form.get("unit") == "contacts" else "budget"
    budget = _amount(form, "budget", wrong, whole=limit == "contacts")
    given: dict[str, Any] = {} if budget is None else {limit: budget}
    if limit == "budget" and (contacts := _amount(form, "contacts", wrong, whole=True)) is not None:
        given["contacts"] = contacts
    stock = {variant: _amount(form, f"stock-{variant}", wrong, whole=True) for variant in variants}
    given["stock"] = {variant: amount for variant, amount in stock.items() if amount is not None}
    given["allowed"] = {variant: asked for variant in variants if (asked := _allowed(form, variant, wrong))}
    if wrong:
        return None, wrong
    try:
        return ListRequest.model_validate({"who": form.get("who", "participants"), **given}), {}
    except ValidationError as error:
        for each in error.errors():
            place = [str(part) for part in each["loc"][:2]]
            name = {"allowed": "cap"}.get(place[0], place[0])
            wrong["-".join([name, *place[1:]])] = gettext("This cannot be used as a limit.")
    return None, wrong


def _amount(form: Mapping[str, str], name: str, wrong: dict[str, str], *, whole: bool) -> float | int | None:
    entered = form.get(name, "").strip()
    text = entered.replace(",", "").replace("，", "")
    if not text:
        return None
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < float("inf") or (amount == 0 and not whole):
        wrong[name] = gettext("“%(entered)s” is no amount: give a number above 0.", entered=entered)
        return None
    return round(amount) if whole else amount


def _allowed(form: Mapping[str, str], variant: str, wrong: dict[str, str]) -> dict[str, Any]:
    """The condition on who may get a variant, if the form names one."""
    name, text = (form.get(f"{part}-{variant}", "").strip() for part in ("cap", "value"))
    if not name and not text:
        return {}
    if not name:
        wrong[f"cap-{variant}"] = gettext("Name the attribute.")
        return {}
    test = form.get(f"test-{variant}", TESTS[0])
    ordered = test not in ("$eq", "$ne")
    value = _value(text)
    if test not in TESTS or not text or (ordered and (isinstance(value, bool) or not isinstance(value, int | float))):
        remedy = gettext("Give a number to compare with.") if ordered else gettext("Give a value to compare with.")
        wrong[f"value-{variant}"] = remedy
        return {}
    return {name: {test: value}}


def _value(text: str) -> Any:
    """A number or truth value as JSON writes them, else the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


@blueprint.get("/lists/<list_id>/progress")
@login_required
def progress(list_id: str) -> str:
    """Return how far a list is, as a piece of the page."""
    held = state()
    with held.store.read() as session:
        found = lists.find(session, list_id, now=held.clock())
    return render_template("_list_progress.html", percent=round(100 * found.progress), status=found.status)


@blueprint.get("/lists/<list_id>.<any(csv,parquet):extension>")
@login_required
def download(list_id: str, extension: str) -> Response:
    """Return a row for each user: what he gets, and what is predicted to come of it."""
    held = state()
    with held.store.read() as session:
        found = lists.find(session, list_id, now=held.clock())
    path = lists.users_path(held.store.settings, list_id)
    if found.status is not StudyStatus.done or not path.is_file():
        abort(404)
    return streamed(path, f"{found.experiment}-list", extension)


@blueprint.post("/lists/<list_id>/policy")
@needs(Role.approver)
def roll_out(list_id: str) -> ResponseReturnValue:
    """Make the draft of the policy that serves a list, or give the policy there is the list's rules."""
    held = state()
    now, currency = held.clock(), held.store.settings.currency
    key = study = ""
    try:
        with held.store.write() as session:
            found = lists.find(session, list_id, now=now)
            key, study = found.experiment, found.study
            policy, new = serving.roll_out(session, list_id, actor=g.login, now=now, currency=currency)
    except UpturnError as refused:
        if refused.status == 404:
            raise
        flash(refusal(refused), "problem")
        return redirect(url_for("studies.show", key=key, study=study) + "#lists", 303)
    made = gettext("The draft of the policy is made. Look at it, choose how many users are held back, and start it.")
    flash(made if new else gettext("The policy now serves the new list."), "done")
    return redirect(url_for("policies.show", key=policy.key), 303)


def refusal(error: UpturnError) -> str:
    """Return in words why a list, or its policy, cannot be made."""
    problems = error.problems if isinstance(error, InvalidDocument) else ()
    named = [targeting.refused(each.field, each.problem, each.field) for each in problems]
    return " ".join(named) or targeting.failed(error.code, error.detail)

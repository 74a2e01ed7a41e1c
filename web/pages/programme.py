"""The page on all experiments of a period together: how often they won, what that is worth, what the holdout says."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from experiments import registry
from experiments.access import Role
from experiments.documents import Kind
from experiments.errors import InvalidDocument, UpturnError
from experiments.metrics import ConversionMetric, MeanMetric
from experiments.programme import contribution
from experiments.programme import totals as programme
from experiments.programme.contribution import Contribution, Question
from experiments.programme.totals import Missing, Programme, ProgrammeLine, Reconciled
from experiments.report import Interval, MoneyInterval
from experiments.store import Store
from web import sentences, standing
from web.formats import Formats, known_to
from web.languages import gettext, ngettext
from web.pages.reader import formats
from web.security import login_required, needs
from web.state import state

blueprint = Blueprint("programme", __name__)

_DAY = timedelta(days=1)
_MOST = 200
_ASKED = ("period", "from", "to", "holdout", "metric")


@dataclass(frozen=True, slots=True)
class Period:
    """The days asked for, and the links to others: name, label, whether it is this one."""

    name: str
    start: date
    end: date
    links: list[tuple[str, str, bool]]
    problem: str = ""

    @property
    def last(self) -> date:
        """The last day of it."""
        return self.end - _DAY


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the head, with what it stands on."""

    label: str
    value: str
    under: str


@dataclass(frozen=True, slots=True)
class Row:
    """One experiment of the period."""

    key: str
    name: str
    owner: str
    status: str
    status_label: str
    days: str
    outcome: str
    harmed: bool
    lift: str
    lift_limits: str
    left: str
    value: str
    value_limits: str
    left_value: str
    left_limits: str
    why: str


@dataclass(frozen=True, slots=True)
class Held:
    """The holdout's answer in words; without one made yet only what can be asked."""

    holdouts: list[tuple[str, str, bool]]
    metrics: list[tuple[str, str, bool]]
    sentence: str = ""
    details: tuple[str, ...] = ()
    reconciled: str = ""
    made: str = ""
    report: str = ""


def _period(given: Mapping[str, str], now: datetime, zone: ZoneInfo) -> Period:
    today = now.astimezone(zone).date()
    tomorrow = today + _DAY
    name = given.get("period", "")
    problem = ""
    starts = {
        "quarter": date(today.year, 3 * ((today.month - 1) // 3) + 1, 1),
        "90d": tomorrow - timedelta(days=90),
        "year": date(today.year, 1, 1),
    }
    start, end = starts.get(name, starts["90d"]), tomorrow
    if name not in starts:
        name = "90d"
        if given.get("from") or given.get("to"):
            try:
                start, end = programme.period(given.get("from") or None, given.get("to") or None, now=now, zone=zone)
                name = "custom"
            except InvalidDocument:
                problem = gettext("Give two days, the first not after the last. Shown are the last 90 days.")
    labels = {"quarter": gettext("This quarter"), "90d": gettext("90 days"), "year": gettext("This year")}
    return Period(name, start, end, [(key, label, key == name) for key, label in labels.items()], problem)


@blueprint.get("/programme")
@login_required
def show() -> str:
    """Show what the experiments of a period came to."""
    held, reader = state(), formats()
    period = _period(request.args, held.clock(), held.zone)
    question = _question(held.store, period, request.args)
    found = programme.of_period(held.store, period.start, period.end, now=held.clock(), question=question)
    return render_template(
        "programme.html",
        period=period,
        found=found,
        figures=_figures(found, reader),
        total=_amount(found.total, reader),
        total_missing=_missing(found.total_missing),
        shrunken=_amount(found.shrunken, reader),
        shrunken_missing=_missing(found.shrunken_missing),
        usual=_percents(found.usual, reader),
        spread=reader.share(found.spread) if found.spread is not None else "",
        rows=[_row(line, reader) for line in found.experiments[:_MOST]],
        more=max(len(found.experiments) - _MOST, 0),
        held=_held(held.store, found, question, reader),
        first=reader.day(str(period.start)),
        last=reader.day(str(period.last)),
    )


@blueprint.post("/programme/holdout")
@needs(Role.editor)
def measure() -> ResponseReturnValue:
    """Compare a holdout with the rest, now."""
    held, form = state(), request.form
    period = _period(form, held.clock(), held.zone)
    question = _question(held.store, period, form)
    if question is not None:
        try:
            contribution.make(held.store, question, now=held.clock())
            flash(gettext("The numbers are up to date."), "done")
        except InvalidDocument:
            flash(gettext("Choose a metric that adds up, and a period with at least one whole day of data."), "problem")
        except UpturnError as error:
            if error.status == 404:
                raise
            known = sentences.ERRORS.get(error.code)
            flash(
                str(known) if known else gettext("That is not possible now: %(detail)s", detail=error.detail), "problem"
            )
    address: dict[str, Any] = {name: form[name] for name in _ASKED if form.get(name)}
    return redirect(url_for("programme.show", **address) + "#holdout", 303)


def _question(store: Store, period: Period, given: Mapping[str, str]) -> Question | None:
    """Which holdout on which metric: as asked for, else the first holdout, and a metric of money if there is one."""
    with store.read() as session:
        holdouts = [document.key for document in registry.all_of(session, Kind.holdout)]
        metrics = [m for m in registry.all_of(session, Kind.metric) if isinstance(m, ConversionMetric | MeanMetric)]
    if not holdouts or not metrics:
        return None
    metrics.sort(key=lambda metric: metric.unit != "money")
    keys = [metric.key for metric in metrics]
    holdout, metric = given.get("holdout", ""), given.get("metric", "")
    return Question(
        holdout if holdout in holdouts else holdouts[0], metric if metric in keys else keys[0], period.start, period.end
    )


def _figures(found: Programme, reader: Formats) -> list[Figure]:
    days = found.median_days
    return [
        Figure(gettext("Experiments started"), reader.count(found.started), ""),
        Figure(
            gettext("Decided"),
            reader.count(found.decided),
            ngettext("%(num)s rolled out", "%(num)s rolled out", found.shipped),
        ),
        Figure(gettext("Share that won"), _rate(found.win_rate, reader), _between(found.win_rate, reader)),
        Figure(
            gettext("Usual run time"),
            "–" if days is None else ngettext("%(num)s day", "%(num)s days", max(1, round(days))),
            gettext("Median, start to stop"),
        ),
        Figure(gettext("Stopped for harm"), _rate(found.harm_rate, reader), _between(found.harm_rate, reader)),
    ]


def _rate(rate: Interval | None, reader: Formats) -> str:
    return "–" if rate is None else reader.percent(round(rate.estimate, 2))


def _between(rate: Interval | None, reader: Formats) -> str:
    if rate is None:
        return gettext("Nothing to count yet")
    lower, upper = reader.percent(round(rate.lower, 2)), reader.percent(round(rate.upper, 2))
    return gettext("Could be %(lower)s to %(upper)s", lower=lower, upper=upper)


def _amount(value: MoneyInterval | None, reader: Formats) -> tuple[str, str, str] | None:
    if value is None:
        return None
    estimate, lower, upper = (reader.money(x, value.currency) for x in (value.estimate, value.lower, value.upper))
    return estimate, lower, upper


def _percents(interval: Interval | None, reader: Formats) -> tuple[str, str, str] | None:
    return None if interval is None else reader.relative(interval)


def _missing(code: Missing | None) -> str:
    return "" if code is None else sentences.known(standing.MISSING, code)


def _limits(texts: tuple[str, str, str] | None) -> str:
    return "" if texts is None else gettext("%(lower)s to %(upper)s", lower=texts[1], upper=texts[2])


def _row(line: ProgrammeLine, reader: Formats) -> Row:
    lift, left = _percents(line.lift, reader), _percents(line.shrunken_lift, reader)
    value, left_value = _amount(line.value, reader), _amount(line.shrunken_value, reader)
    outcome = ""
    if line.shipped is not None:
        outcome = gettext("Rolled out") if line.shipped else gettext("Nothing changed")
    return Row(
        key=line.experiment,
        name=line.name,
        owner=line.owner,
        status=line.status,
        status_label=sentences.known(sentences.STATUSES, line.status),
        days="–" if line.days is None else reader.count(max(1, round(line.days))),
        outcome=outcome,
        harmed=line.harmed,
        lift=lift[0] if lift else "–",
        lift_limits=_limits(lift),
        left=left[0] if left else "–",
        value=value[0] if value else "–",
        value_limits=_limits(value),
        left_value=left_value[0] if left_value else "–",
        left_limits=_limits(left_value),
        why=_missing(line.missing or line.shrunken_missing),
    )


def _held(store: Store, found: Programme, question: Question | None, reader: Formats) -> Held | None:
    if question is None:
        return None
    with store.read() as session:
        holdouts = [(h.key, h.name, h.key == question.holdout) for h in registry.all_of(session, Kind.holdout)]
        metrics = [
            (m.key, m.name, m.key == question.metric)
            for m in registry.all_of(session, Kind.metric)
            if isinstance(m, ConversionMetric | MeanMetric)
        ]
    answer = found.holdout
    if answer is None:
        return Held(holdouts, metrics)
    return Held(
        holdouts,
        metrics,
        sentence=_contributed(answer, reader),
        details=_details(answer, reader),
        reconciled=_reconciled(answer, found.reconciled, reader),
        made=reader.moment(answer.as_of),
        report=answer.report,
    )


def _contributed(answer: Contribution, reader: Formats) -> str:
    if not answer.trusted:
        return gettext("The holdout cannot be trusted: its users are not in the planned proportion.")
    if answer.total is None:
        return sentences.known(sentences.PROBLEMS, answer.problem or "")
    estimate, lower, upper = _totals(answer, answer.total, reader)
    return gettext(
        "Operations contributed %(estimate)s (%(lower)s to %(upper)s) over %(days)s days: %(metric)s.",
        estimate=estimate,
        lower=lower,
        upper=upper,
        days=answer.days,
        metric=answer.name,
    )


def _totals(answer: Contribution, interval: Interval, reader: Formats) -> tuple[str, str, str]:
    """A total: money as money, a share of users as users, anything else as a number."""
    if answer.unit == "money":
        estimate, lower, upper = (reader.money(x) for x in (interval.estimate, interval.lower, interval.upper))
        return estimate, lower, upper
    known = max(known_to([interval]), 10.0)
    estimate, lower, upper = (
        reader.change("number", x, known) for x in (interval.estimate, interval.lower, interval.upper)
    )
    if answer.unit == "share":
        return gettext("%(count)s users", count=estimate), lower, upper
    return estimate, lower, upper


def _details(answer: Contribution, reader: Formats) -> tuple[str, ...]:
    said = [
        gettext(
            "%(rest)s users were reached as usual, %(held)s were held out of everything. All were known before "
            "%(day)s; who came later is not counted. Costs are not taken off.",
            rest=reader.count(answer.rest),
            held=reader.count(answer.held),
            day=reader.day(answer.start),
        )
    ]
    if answer.per_user is not None:
        texts = reader.interval(answer.unit, answer.per_user, known_to([answer.per_user]))
        said.append(
            gettext(
                "For each user: %(estimate)s (%(lower)s to %(upper)s).",
                estimate=texts[0],
                lower=texts[1],
                upper=texts[2],
            )
        )
    return tuple(said)


def _reconciled(answer: Contribution, found: Reconciled | None, reader: Formats) -> str:
    if found is None:
        return ""
    verdict = sentences.known(standing.AGREEMENTS, found.agreement)
    if found.singles is None:
        return verdict
    estimate, lower, upper = _totals(answer, found.singles, reader)
    return gettext(
        "The %(count)s single wins on this metric, each since its decision, make %(estimate)s "
        "(%(lower)s to %(upper)s). %(verdict)s",
        count=found.counted,
        estimate=estimate,
        lower=lower,
        upper=upper,
        verdict=verdict,
    )
